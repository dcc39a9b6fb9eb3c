"""Several processes."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import CUDA, Bench, count_photos, middle_and_range, process
from headstart.runs.directory import Run


def ddp(bench: Bench) -> None:
    """DistributedDataParallel (DDP) on all GPUs (NCCL); on one GPU, its cost; on a CPU, two processes."""
    network = bench.sizes.networks[0]
    number = count_photos(bench.photos / "train")
    devices = torch.cuda.device_count()
    words = ["finetuning=full", "finetuning.batch_norm=frozen", "finetuning.patience=null", "trainer.max_epochs=3"]

    def run(*choice: str) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(dir=bench.work))
        clock = [
            "+callbacks.watch._target_=gpu_parts.watching.Clock",
            f"+callbacks.watch.file={folder / 'watched.json'}",
        ]
        with bench.cache("pictures"):
            process("src/train.py", f"hydra.run.dir={folder / 'run'}", *bench.words(network, *words, *choice, *clock))
        watched = json.loads((folder / "watched.json").read_text())
        memory = {"GB": max(watched["memory"])} if CUDA else {}
        return {
            "pictures/s": middle_and_range([number / seconds for seconds in watched["seconds"][1:]]),
            "val/loss": round(Run(folder / "run").metrics["val/loss"], 6),
            **memory,
        }

    bench.measure("one process", lambda: run("trainer=gpu" if CUDA else "trainer=cpu"))
    if devices > 1:
        bench.measure(f"{devices} processes, NCCL", lambda: run("trainer=ddp"))
    elif CUDA:
        bench.measure("one process in DDP, NCCL", lambda: run("trainer=gpu", "+trainer.strategy=ddp"))
    else:
        bench.measure("two processes on the CPU, gloo", lambda: run("trainer=ddp_cpu"))
