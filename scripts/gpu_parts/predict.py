"""Predicting, evaluating, and the exported file."""

from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import CUDA, Bench, LeftOut, count_photos, timed
from headstart.runs.directory import Run


def predict(bench: Bench) -> None:
    """Pictures a second of predict and evaluate, from JPEG files, and of the exported ONNX file on the GPU."""
    network = bench.sizes.networks[0]
    run = bench.work / "trained"

    def trained_run() -> Run:
        if not Run(run).checkpoints:
            from headstart.training.run import train

            words = ["finetuning=full", "trainer.max_epochs=1"]
            with bench.cache("pictures"):
                train(bench.config(f"paths.run={run}", *bench.words(network, *words)))
        return Run(run)

    def checkpoint() -> Path:
        return trained_run().checkpoints_folder / "best.ckpt"

    def predicting() -> dict[str, Any]:
        from headstart.inference.predict import predict as predict_files

        path, folder = checkpoint(), bench.photos / "train"
        cfg = bench.config(f"run={run}", f"input={folder}", f"output={bench.work / 'rows.csv'}", name="predict")
        return timed(count_photos(folder), lambda: predict_files(cfg, path))

    def evaluating() -> dict[str, Any]:
        from headstart.evaluation.evaluate import evaluate

        path = checkpoint()
        cfg = bench.config(f"run={run}", "split=val", name="evaluate")
        return timed(count_photos(bench.photos / "val"), lambda: evaluate(cfg, path))

    def onnx() -> dict[str, Any]:
        if not CUDA:
            raise LeftOut("needs a GPU")
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise LeftOut("needs onnxruntime-gpu")
        from headstart.export.export import export

        file = bench.work / "network.onnx"
        export(bench.config(f"run={run}", "format=onnx", f"output={file}", name="export"), checkpoint())
        session = onnxruntime.InferenceSession(file, providers=["CUDAExecutionProvider"])
        side, batch = bench.sizes.side, bench.sizes.batch
        pictures = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).numpy()
        for _ in range(3):
            session.run(["probabilities"], {"pictures": pictures})
        return timed(10 * batch, lambda: [session.run(["probabilities"], {"pictures": pictures}) for _ in range(10)])

    bench.measure(f"predict, {network}", predicting)
    bench.measure(f"evaluate, {network}, with tables and pictures", evaluating)
    bench.measure(f"ONNX on the GPU, {network}", onnx)
