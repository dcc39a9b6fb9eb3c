"""The linear probe."""

import shutil
import time
from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import CUDA, DEVICE, Bench, count_photos, synchronise


def probe(bench: Bench) -> None:
    """The linear probe with an empty and with a filled cache, against decoding and one forward pass."""
    network = bench.sizes.networks[0]

    def one_forward_pass() -> float:
        from headstart.training.build import build_data, build_task

        with bench.folder() as name:
            folders = [f"paths.run={Path(name) / 'run'}", f"paths.cache={Path(name) / 'cache'}"]
            cfg = bench.config(*folders, *bench.overrides(network, "cache=off"))
            start = time.perf_counter()
            data = build_data(cfg)
            task = build_task(cfg, data).to(DEVICE).eval()
            for split in ("train", "val"):
                with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
                    for pictures, _ in data.loader(split):
                        task.backbone(pictures.to(DEVICE, non_blocking=True))
            synchronise()
            return time.perf_counter() - start

    def probe_run() -> float:
        return bench.train(network, "finetuning=probe", cache="probe")["total"]

    def measure() -> dict[str, Any]:
        forward = one_forward_pass()
        shutil.rmtree(bench.cache("probe"), ignore_errors=True)
        cold, again = probe_run(), probe_run()
        return {
            "one forward pass s": forward,
            "probe, empty cache s": cold,
            "probe, filled cache s": again,
            "empty cache / forward pass": cold / forward,
        }

    for number in range(1, bench.sizes.rounds + 1):
        bench.measure(f"{network}, {count_photos(bench.photos)} photos, round {number}", measure)
