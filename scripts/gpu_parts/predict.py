"""Predicting, evaluating, and the exported file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import Bench, LeftOut, count_photos, require_gpu, synchronise
from headstart.runs.directory import Run


def predict(bench: Bench) -> None:
    """Pictures a second of predict and evaluate, from JPEG files, and of the exported ONNX file on the GPU."""
    network = bench.sizes.networks[0]
    run = bench.work / "trained"

    def checkpoint() -> Path:
        if not Run(run).checkpoints:
            from headstart.training.run import train

            overrides = ["finetuning=full", "trainer.max_epochs=1"]
            train(bench.config(f"paths.run={run}", *bench.overrides(network, *overrides)))
        return Run(run).checkpoints_folder / "best.ckpt"

    def predicting() -> dict[str, Any]:
        from headstart.inference.predict import predict as predict_files

        path, folder = checkpoint(), bench.photos / "train"
        cfg = bench.config(f"run={run}", f"input={folder}", f"output={bench.work / 'rows.csv'}", name="predict")
        return whole_command(count_photos(folder), lambda: predict_files(cfg, path))

    def evaluating() -> dict[str, Any]:
        from headstart.evaluation.evaluate import evaluate

        path = checkpoint()
        cfg = bench.config(f"run={run}", "split=val", name="evaluate")
        return whole_command(count_photos(bench.photos / "val"), lambda: evaluate(cfg, path))

    def onnx() -> dict[str, Any]:
        require_gpu()
        import onnxruntime

        from headstart.export.export import export

        file = bench.work / "network.onnx"
        export(bench.config(f"run={run}", "format=onnx", f"output={file}", name="export"), checkpoint())
        session = onnxruntime.InferenceSession(file, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
        if session.get_providers()[0] != "CUDAExecutionProvider":
            raise LeftOut("needs onnxruntime-gpu with the CUDA and cuDNN that it was built for")
        side, batch = bench.sizes.side, bench.sizes.batch
        pictures = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).numpy()
        for _ in range(3):
            session.run(["probabilities"], {"pictures": pictures})
        return {
            "pictures/s": 10
            * batch
            / seconds_of(lambda: [session.run(["probabilities"], {"pictures": pictures}) for _ in range(10)])
        }

    bench.measure(f"predict, {network}", predicting)
    bench.measure(f"evaluate, {network}, with tables and pictures", evaluating)
    bench.measure(f"ONNX on the GPU, {network}", onnx)


def whole_command(pictures: int, work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of a command, with loading of the network and start of the loaders, but without start of Python."""
    seconds = seconds_of(work)
    return {"pictures": pictures, "whole command s": seconds, "pictures/s, whole command": pictures / seconds}


def seconds_of(work: Callable[[], Any]) -> float:
    """How long a piece of work takes."""
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start
