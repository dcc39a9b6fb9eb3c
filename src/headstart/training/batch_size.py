"""Chooses the batch size for the machine (`data.batch_size=auto`): on a GPU the largest that fits into its memory.

Lightning's `BatchSizeFinder` is not used: it tries only the first stage of a run, in which most layers may be frozen,
and it writes the model to disk and reads it back.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error
from pytorch_lightning.utilities.seed import isolate_rng

from headstart.backbones.speed import uses_gpu
from headstart.data.module import DataModule
from headstart.errors import Failure
from headstart.finetuning.base import strategy_of
from headstart.training.rehearsal import rehearse

log = logging.getLogger(__name__)
USUAL = 32
"""The batch size without a GPU, where larger batches are hardly faster; also the first one that is tried."""
LARGEST = 1024
FEWEST_STEPS = 20
"""Steps of an epoch. With fewer, larger batches would save little time, and the model would learn less per epoch."""
STEPS_TRIED = 2
"""The second step also has the optimizer's state."""


@dataclass(frozen=True)
class Choice:
    """A batch size, and the reason for it."""

    size: int
    reason: str


def choose_batch_size(cfg: DictConfig, data: DataModule) -> Choice:
    """The batch size for this machine, a power of two.

    Args:
        cfg: config of the run, complete except for the batch size.
        data: built from that config and set up.

    Raises:
        Failure: a single sample does not fit into the memory of the GPU.
    """
    if not uses_gpu(cfg.trainer.accelerator) or cfg.trainer.fast_dev_run:
        return Choice(USUAL, "the usual one; only on a GPU the largest that fits is searched for")
    most = most_useful(data.num_samples["train"])
    before = data.batch_size
    try:
        size = largest_that_fits(lambda each: fits(cfg, data, each), most)
    finally:
        data.batch_size = before
    device, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
    if size == most:
        why = f"with {data.num_samples['train']:,} training samples a larger one would leave too few steps per epoch"
        why = why if most < LARGEST else "the largest that is tried"
    else:
        why = f"the largest power of two that fits: {2 * size} does not"
    return Choice(size, f"{why} ({device}, {total:.0f} GiB)")


def most_useful(num_train: int) -> int:
    """The largest power of two, up to `LARGEST`, with which an epoch has `FEWEST_STEPS` steps; at least `USUAL`."""
    size = USUAL
    while 2 * size <= LARGEST and 2 * size * FEWEST_STEPS <= num_train:
        size *= 2
    return size


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The largest batch size that fits, of `USUAL` doubled or halved several times.

    Args:
        fits: whether a batch size fits into memory.
        most: the largest one to try.

    Raises:
        Failure: none fits.
    """
    size = USUAL
    if fits(size):
        while 2 * size <= most and fits(2 * size):
            size *= 2
        return size
    while size > 1:
        size //= 2
        if fits(size):
            return size
    raise Failure(
        "data.batch_size=auto: the GPU has too little memory for a single sample. Choose a smaller model, "
        "a smaller model.image_size or model.max_length, or trainer.precision=bf16-mixed"
    )


def fits(cfg: DictConfig, data: DataModule, size: int) -> bool:
    """Whether some training steps with this batch size fit into memory; they train a separate task.

    All layers that a stage trains are trained at once, nothing is cached, and the batch with the longest samples comes
    first (`data/sampling.py`).
    """
    data.batch_size = size
    with isolate_rng():  # outside of `try`, because it restores nothing after an exception
        try:
            rehearse(cfg, data, _OneStage(), STEPS_TRIED, cached=False)
        except RuntimeError as error:
            if not is_oom_error(error):
                raise
            return False
        finally:
            garbage_collection_cuda()
    return True


class _OneStage(Callback):
    """Trains what any stage of the strategy trains, all at once; place it behind the strategy."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replaces the stages by one."""
        strategy = strategy_of(trainer)
        strategy.replace_stages_by_one(frozenset().union(*(each.trained for each in strategy.plan)))
