"""Callbacks that measure a training run of the GPU campaign from inside, or end it."""

import json
import os
import signal
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback

from gpu_parts.bench import CUDA, peak_memory, reset_peak_memory, synchronise


class BetweenSteps(Callback):
    """Calls `begin` at the end of the first step of each epoch, and `end` at the end of the last step but one.

    The last step is left out, because `Divergence` reads the loss in it. An epoch has three steps or more.

    Args:
        file: the JSON file for what is found.
    """

    def __init__(self, file: str):
        self.file = Path(file)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Begins and ends."""
        if batch_idx == 0:
            self.begin()
        elif batch_idx == trainer.num_training_batches - 2:
            self.end(steps=batch_idx, pictures=batch_idx * len(batch[1]) * trainer.world_size)

    def begin(self) -> None:
        """Begins to measure."""
        raise NotImplementedError

    def end(self, steps: int, pictures: int) -> None:
        """Ends it after some steps, in which all processes together trained on some pictures."""
        raise NotImplementedError


class Clock(BetweenSteps):
    """Writes three numbers of each epoch.

    - `seconds`: from the start of the epoch to the end of its last step. The start of the epoch includes the filling of
      the activation cache for a new stage; validation and checkpoints are not included.
    - `speed`: pictures a second from the end of the first step to the end of the last but one.
    - `memory`: the peak on the GPU in GB, in the process that uses most; None on a CPU.
    """

    def __init__(self, file: str):
        super().__init__(file)
        self.start = None
        self.seconds, self.speed, self.memory = [], [], []

    def setup(self, trainer, pl_module, stage) -> None:
        """Becomes the first callback, so that the clock runs before the activation cache is filled."""
        trainer.callbacks = [self, *(callback for callback in trainer.callbacks if callback is not self)]

    def on_train_start(self, trainer, pl_module) -> None:
        """Starts the clock for the first epoch: here the activation cache is filled for the first stage."""
        self.start_epoch()

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Starts the clock for a later epoch: here the activation cache is filled for a later stage."""
        if self.start is None:
            self.start_epoch()

    def start_epoch(self) -> None:
        """Starts the clock."""
        synchronise()
        reset_peak_memory()
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Stops it after the last step."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch:
            synchronise()
            self.seconds.append(time.perf_counter() - self.start)
            self.memory.append(peak_memory())
            self.start = None

    def begin(self) -> None:
        """Starts the clock of the steps."""
        synchronise()
        self.after_first_step = time.perf_counter()

    def end(self, steps: int, pictures: int) -> None:
        """Stops it."""
        synchronise()
        self.speed.append(pictures / (time.perf_counter() - self.after_first_step))

    def on_fit_end(self, trainer, pl_module) -> None:
        """Writes the file."""
        if CUDA:
            memory = torch.tensor(self.memory, device=trainer.strategy.root_device)
            self.memory = trainer.strategy.reduce(memory, reduce_op="max").tolist()
        if trainer.is_global_zero:
            self.file.write_text(json.dumps({"seconds": self.seconds, "speed": self.speed, "memory": self.memory}))


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


class Synchronisations(BetweenSteps):
    """Writes the places at which the CPU waited for the GPU in the last epoch, and the number of steps watched."""

    def __init__(self, file: str):
        super().__init__(file)
        self.watching = ExitStack()

    def begin(self) -> None:
        """Lets torch warn at each wait."""
        self.found = self.watching.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        self.watching.callback(torch.cuda.set_sync_debug_mode, "default")
        torch.cuda.set_sync_debug_mode("warn")

    def end(self, steps: int, pictures: int) -> None:
        """Writes the file."""
        self.watching.close()
        self.file.write_text(json.dumps({"steps": steps, "places": self.places()}))

    def on_exception(self, trainer, pl_module, exception) -> None:
        """Stops watching."""
        self.watching.close()

    def places(self) -> dict[str, int]:
        """`file:line` -> number of waits."""
        waits = [found for found in self.found if "called a synchronizing CUDA operation" in str(found.message)]
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
