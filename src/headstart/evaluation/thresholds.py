"""Chooses the thresholds of the labels of a trained model."""

import logging
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed

from headstart.callbacks.logit_collector import LogitCollector
from headstart.data.module import DataModule
from headstart.metrics.thresholds import FEWEST, USUAL, best_thresholds
from headstart.tasks import checkpoint
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)


def choose_thresholds(trainer: pl.Trainer, task: ClassificationTask, data: DataModule, path: Path) -> None:
    """Chooses the thresholds on val, sets them, and writes them into the checkpoint.

    Args:
        trainer: after its fit; the test that this needs is not in the run's curves.
        task: with several labels per sample.
        data: with a val split.
        path: the checkpoint whose weights are meant.
    """
    task.objective.thresholds = None
    collector = LogitCollector()
    loggers, callbacks, limit = trainer.loggers, trainer.callbacks, trainer.limit_test_batches
    others = [each for each in callbacks if not isinstance(each, LogitCollector)]  # it waits for the test of the run
    trainer.loggers, trainer.callbacks, trainer.limit_test_batches = [], [*others, collector], 1.0
    try:
        trainer.test(task, dataloaders=data.loader("val"), ckpt_path=path, verbose=False)
    finally:
        trainer.loggers, trainer.callbacks, trainer.limit_test_batches = loggers, callbacks, limit
    positions, logits = _of_all_processes(trainer, collector)
    probabilities = task.objective.probabilities(logits.to(task.device))
    chosen = best_thresholds(probabilities, data.targets("val", positions))
    task.objective.thresholds = chosen
    if trainer.is_global_zero:
        checkpoint.keep_thresholds(path, chosen)
        _tell(task.classes, chosen, data.class_counts("val"), data.num_samples["val"])
    trainer.strategy.barrier()


def _of_all_processes(trainer: pl.Trainer, collector: LogitCollector) -> tuple[list[int], torch.Tensor]:
    """The positions of the samples in their split, and their logits."""
    own = collector.positions, collector.logits
    if trainer.world_size == 1:
        return own
    found = [own] * trainer.world_size
    torch.distributed.all_gather_object(found, own)
    return [place for positions, _ in found for place in positions], torch.cat([logits for _, logits in found])


def _tell(classes: list[str], chosen: list[float], counts: list[int], number: int) -> None:
    few = [name for name, n in zip(classes, counts, strict=True) if min(n, number - n) < FEWEST]
    shown = ", ".join(f"{name} {threshold:.2f}" for name, threshold in zip(classes, chosen, strict=True))
    log.info("thresholds of the labels, with the best F1 on val: %s", shown)
    if few:
        log.info(
            "%d labels have fewer than %d val samples with or without them, and keep %.1f", len(few), FEWEST, USUAL
        )
