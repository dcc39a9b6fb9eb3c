"""Callbacks that measure a training run of the GPU campaign from inside, or end it."""

import json
import os
import signal
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback

from gpu_parts.bench import CUDA, peak_memory, synchronise


class Clock(Callback):
    """Writes seconds and peak GPU memory of each epoch, up to its last step and without validation, to a JSON file."""

    def __init__(self, file: str):
        self.file, self.seconds, self.memory = Path(file), [], []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Starts the clock."""
        synchronise()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Stops it after the last step."""
        if trainer.is_last_batch:
            synchronise()
            self.seconds.append(time.perf_counter() - self.start)
            self.memory.append(peak_memory())

    def on_fit_end(self, trainer, pl_module) -> None:
        """Writes the file."""
        self.file.write_text(json.dumps({"seconds": self.seconds, "memory": self.memory}))


class LoaderClock(Callback):
    """Before the first step, iterates over the training loader twice and writes the seconds of the second time."""

    def __init__(self, file: str):
        self.file = Path(file)

    def on_train_start(self, trainer, pl_module) -> None:
        """Measures; the first time starts the loader processes. Batches go to the device, as in training."""
        for _ in range(2):
            start = time.perf_counter()
            for batch in trainer.train_dataloader:
                trainer.strategy.batch_to_device(batch)
            synchronise()
        self.file.write_text(json.dumps({"seconds": time.perf_counter() - start}))


class Synchronisations(Callback):
    """Writes the places at which the CPU waited for the GPU between the first and the last step of an epoch."""

    def __init__(self, file: str):
        self.file, self.caught = Path(file), warnings.catch_warnings(record=True)
        self.steps = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Watches from the end of the first step to the end of the last one."""
        if batch_idx == 0:
            self.found = self.caught.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        elif trainer.is_last_batch:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            self.file.write_text(json.dumps({"steps": batch_idx, "places": self.places()}))

    def places(self) -> dict[str, int]:
        """`file:line` -> number of waits."""
        waits = [found for found in self.found if "synchronizing" in str(found.message)]
        return dict(Counter(f"{Path(wait.filename).name}:{wait.lineno}" for wait in waits))


class Kill(Callback):
    """Kills the process at a step, without saving anything, and only once.

    Args:
        step: optimizer steps before it.
        file: exists from then on.
    """

    def __init__(self, step: int, file: str):
        self.step, self.file = step, Path(file)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Kills at the start of the step."""
        if trainer.global_step >= self.step and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
