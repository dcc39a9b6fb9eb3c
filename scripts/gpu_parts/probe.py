"""The linear probe."""

import statistics
import time
from typing import Any

import torch

from gpu_parts.bench import CUDA, DEVICE, Bench, count_photos, middle_and_range, synchronise


def probe(bench: Bench) -> None:
    """The linear probe with empty and with filled caches, against one forward pass over the decoded photos."""
    network = bench.sizes.networks[0]

    def one_forward_pass() -> float:
        from headstart.training.build import build_data, build_task

        with bench.cache(None):
            cfg = bench.config(f"paths.run={bench.work / 'forward'}", *bench.words(network, "cache=off"))
        start = time.perf_counter()
        data = build_data(cfg)
        task = build_task(cfg, data).to(DEVICE).eval()
        for split in ("train", "val"):
            with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
                for pictures, _ in data.loader(split):
                    task.backbone(pictures.to(DEVICE, non_blocking=True))
        synchronise()
        return time.perf_counter() - start

    def probe_run(cache: str | None) -> float:
        return bench.train(network, "finetuning=probe", cache=cache)["total"]

    def measure() -> dict[str, Any]:
        probe_run("probe")  # fills the cache of "again"
        forward, cold, again = [], [], []
        for _ in range(bench.sizes.rounds):
            forward.append(one_forward_pass())
            cold.append(probe_run(None))
            again.append(probe_run("probe"))
        return {
            "one forward pass s": middle_and_range(forward),
            "probe, cold s": middle_and_range(cold),
            "probe, again s": middle_and_range(again),
            "cold / forward": round(statistics.median(cold) / statistics.median(forward), 2),
        }

    bench.measure(f"{network}, {count_photos(bench.photos)} photos", measure)
