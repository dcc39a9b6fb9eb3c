"""Several processes."""

import statistics
from dataclasses import replace
from typing import Any

import torch

from gpu_parts.bench import CUDA, PICTURES, Bench, count_photos, make_photos


def ddp(bench: Bench) -> None:
    """DistributedDataParallel (DDP) on all GPUs (NCCL); on one GPU, its cost; on a CPU, two processes."""
    network = bench.sizes.networks[0]
    devices = torch.cuda.device_count()
    if devices > 1 and bench.made_up:  # as many steps in an epoch as on one GPU
        sizes = replace(bench.sizes, photos=devices * bench.sizes.photos)
        bench.photos = make_photos(bench.work / "photos_ddp", sizes)
    number = count_photos(bench.photos / "train")
    usual = ["finetuning=full", "finetuning.batch_norm=frozen", "finetuning.patience=null", "trainer.max_epochs=3"]

    def run(*overrides: str) -> dict[str, Any]:
        run = bench.train(network, *usual, *overrides, cache=PICTURES, apart=True)
        memory = {"GB": max(run["memory"])} if CUDA else {}
        return {
            "pictures/s, epochs": number / statistics.mean(run["seconds"][1:]),
            "pictures/s, steps": statistics.mean(run["speed"][1:]),
            "val/loss": run["val/loss"],
            **memory,
        }

    bench.measure("one process", lambda: run("trainer=gpu" if CUDA else "trainer=cpu"))
    if devices > 1:
        bench.measure(f"{devices} processes, NCCL", lambda: run("trainer=ddp"))
    elif CUDA:
        bench.measure("one process in DDP, NCCL", lambda: run("trainer=gpu", "+trainer.strategy=ddp"))
    else:
        bench.measure("two processes on the CPU, gloo", lambda: run("trainer=ddp_cpu"))
