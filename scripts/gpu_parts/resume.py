"""Exact resuming on the GPU."""

import signal
from pathlib import Path
from typing import Any

from check_resume import content, differences

from gpu_parts.bench import Bench, count_photos, process


def resume(bench: Bench) -> None:
    """Deterministic training, killed with SIGKILL and resumed, against the same run without interruption."""
    network = "tiny_resnet" if "tiny_resnet" in bench.sizes.networks else "resnet18"
    steps_of_an_epoch = -(-count_photos(bench.photos / "train") // bench.sizes.batch)
    step = steps_of_an_epoch + steps_of_an_epoch // 2

    def train(folder: Path, killed: bool, *overrides: str) -> Path:
        folder.mkdir(parents=True)
        if not killed:
            (folder / "killed").touch()  # both runs have the same config and the same files
        kill = [f"+callbacks.kill.step={step}", "+callbacks.kill.file=${paths.run}/killed"]
        deterministic = ["augmentation=flip_crop", "trainer.deterministic=true", "trainer.max_epochs=3"]
        loggers = "logger=[csv,tensorboard]"
        process(
            *("src/train.py", f"hydra.run.dir={folder}", *bench.overrides(network, *overrides)),
            *(*deterministic, loggers, "+callbacks.kill._target_=gpu_parts.watching.Kill", *kill),
            status=-signal.SIGKILL if killed else 0,
        )
        return folder

    def exact(*overrides: str) -> dict[str, Any]:
        with bench.folder() as folder:
            whole = train(Path(folder) / "whole/run", False, *overrides)
            resumed = train(Path(folder) / "resumed/run", True, *overrides)
            process("src/train.py", f"resume={resumed}")
            found = list(differences(content(whole), content(resumed)))
        print("\n".join(found[:5]))
        return {"killed at step": step, "equal to the bit": "yes" if not found else f"no: {found[0]}"}

    bench.measure(f"{network}, unfreeze_at", lambda: exact("finetuning=unfreeze_at", "finetuning.epoch=1"))
    bench.measure(f"{network}, full", lambda: exact("finetuning=full", "finetuning.batch_norm=train"))
