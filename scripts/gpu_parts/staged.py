"""Gradual unfreezing."""

import shutil
import time
from typing import Any

import torch
from torch import nn

from gpu_parts.bench import CUDA, DEVICE, Bench, count_photos, require_gpu, synchronise


def staged(bench: Bench) -> None:
    """Gradual unfreezing: seconds and memory of each stage, cached and uncached, and fp16 with a scaler."""
    network = bench.sizes.networks[0]
    first_case = "gradual, cached, empty cache"
    fills_cache = first_case not in bench.results

    def stages(*more: str, cache: str | None) -> dict[str, Any]:
        epochs = len(bench.backbone(network).layer_groups()) + 1  # one for each stage; the first trains the head alone
        overrides = ["finetuning=gradual", "finetuning.patience=null", f"trainer.max_epochs={epochs}"]
        run = bench.train(network, *overrides, *more, cache=cache)
        by_stage = {f"stage {i} s": seconds for i, seconds in enumerate(run["seconds"])}
        memory = {f"stage {i} GB": found for i, found in enumerate(run["memory"])} if CUDA else {}
        return {"whole run s": run["total"]} | by_stage | memory

    def with_empty_cache() -> dict[str, Any]:
        shutil.rmtree(bench.cache("staged"), ignore_errors=True)
        return stages(cache="staged")

    def again() -> dict[str, Any]:
        if not fills_cache:  # an earlier process measured the first case, and its cache may be gone
            with_empty_cache()
        return stages(cache="staged")

    def in_fp16() -> dict[str, Any]:
        require_gpu()
        return stages("trainer.precision=16-mixed", cache=None)

    def head_alone() -> dict[str, Any]:
        features_number = bench.backbone(network).num_features
        head = nn.Linear(features_number, 2).to(DEVICE)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
        features = torch.randn(bench.sizes.batch, features_number, device=DEVICE)
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
        return {"stage 0 s": time.perf_counter() - start}

    bench.measure(first_case, with_empty_cache)
    bench.measure("gradual, cached, again", again)
    bench.measure("gradual, nothing cached", lambda: stages("cache=off", cache=None))
    bench.measure("gradual, fp16 with a scaler", in_fp16)
    bench.measure("the head alone, bare loop", head_alone)
