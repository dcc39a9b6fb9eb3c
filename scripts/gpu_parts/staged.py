"""Gradual unfreezing."""

import time
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from gpu_parts.bench import CUDA, DEVICE, Bench, LeftOut, count_photos, synchronise


def staged(bench: Bench) -> None:
    """Gradual unfreezing: seconds and memory of each stage, cached and uncached, and fp16 with a scaler."""
    network = bench.sizes.networks[0]
    words = ["finetuning=gradual", "finetuning.patience=null", "trainer.max_epochs=4"]

    def stages(*more: str, cache: str | None) -> dict[str, Any]:
        run = bench.train(network, *words, *more, cache=cache)
        by_stage = {f"stage {i} s": round(seconds, 3) for i, seconds in enumerate(run["seconds"])}
        memory = {f"stage {i} GB": found for i, found in enumerate(run["memory"])} if CUDA else {}
        return {"whole run s": round(run["total"], 1)} | by_stage | memory

    def in_fp16() -> dict[str, Any]:
        if not CUDA:
            raise LeftOut("fp16 with a scaler needs a GPU")
        return stages("trainer.precision=16-mixed", cache="fp16")

    def head_alone() -> dict[str, Any]:
        backbone = instantiate(bench.config(*bench.words(network)).model)
        head = nn.Linear(backbone.num_features, 2).to(DEVICE)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
        features = torch.randn(bench.sizes.batch, backbone.num_features, device=DEVICE)
        targets = torch.arange(bench.sizes.batch, device=DEVICE) % 2
        steps = -(-count_photos(bench.photos / "train") // bench.sizes.batch)
        for _ in range(2):
            synchronise()
            start = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(features), targets).backward()
                optimizer.step()
            synchronise()
        return {"stage 0 s": round(time.perf_counter() - start, 3)}

    bench.measure("gradual, cached, empty cache", lambda: stages(cache=None))
    bench.measure("gradual, cached, again", lambda: stages(cache="cold"))
    bench.measure("gradual, nothing cached", lambda: stages("cache=off", cache=None))
    bench.measure("gradual, fp16 with a scaler", in_fp16)
    bench.measure("the head alone, bare loop", head_alone)
