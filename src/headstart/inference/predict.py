"""Predicts the classes or the numbers of unlabelled samples in files."""

import io
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from headstart.backbones.speed import choose_precision, precision_on_this_machine
from headstart.cli.schemas import row_format
from headstart.errors import UsageError, printable
from headstart.inference.answers import Answers, answers_of
from headstart.inference.batches import Batch, batches
from headstart.inference.classifier import Classifier
from headstart.inference.rows import FORMATS, Prediction
from headstart.inference.unlabelled import find_samples
from headstart.progress import progress_bar
from headstart.tasks import checkpoint

log = logging.getLogger(__name__)
SHOWN = 10  # number of unreadable files in the summary; the rows name all of them


@dataclass
class Tally:
    """Counts the samples that are done; its size does not grow with their number.

    Attributes:
        name: the word for several samples in messages.
    """

    name: str = "files"

    read: int = 0
    unreadable: int = 0
    first_reasons: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, predictions: list[Prediction]) -> None:
        """Counts one batch."""
        bad = [prediction for prediction in predictions if prediction.error is not None]
        self.read += len(predictions) - len(bad)
        self.unreadable += len(bad)
        space = SHOWN - len(self.first_reasons)
        self.first_reasons += [f"{prediction.file}: {prediction.error}" for prediction in bad[:space]]

    def log_summary(self) -> None:
        """Logs the summary."""
        seconds = time.monotonic() - self.started
        log.info("%d %s in %.1f s, %.0f per second", self.read, self.name, seconds, self.read / max(seconds, 1e-9))
        if self.unreadable:
            listed = "".join(f"\n  {reason}" for reason in self.first_reasons)
            more = self.unreadable - len(self.first_reasons)
            rest = f"\n  ... and {more} more; the error column or field names all of them" if more else ""
            total = self.read + self.unreadable
            log.warning("%d of %d %s cannot be read:%s%s", self.unreadable, total, self.name, listed, rest)


@dataclass(frozen=True)
class Predictor:
    """A trained model on its device.

    Attributes:
        model: for its classes, its preprocessing and its labels.
        trained: the config of its run.
        fabric: device and precision.
        network: the model, prepared by `fabric`.
    """

    model: Classifier
    trained: DictConfig
    fabric: Fabric
    network: nn.Module

    @classmethod
    def load(cls, path: Path, trainer: DictConfig) -> "Predictor":
        """The model of a checkpoint; `trainer`: the section of `conf/predict.yaml`."""
        task, trained = checkpoint.load_task(path)
        model = Classifier(task)
        fabric = build_fabric(trainer, trained)
        return cls(model, trained, fabric, fabric.setup_module(model))

    @property
    def shown(self) -> str | None:
        """The name of the column with the sample itself; None if there is none."""
        return self.model.preprocess.sample_name if self.model.preprocess.in_rows else None


def predict(cfg: DictConfig, path: Path) -> bool:
    """Writes the most probable classes or the numbers of each sample in `cfg.input` to `cfg.output` or stdout.

    The order stays. Names and preprocessing come from the checkpoint. Each batch is written as soon as it is predicted:
    an interruption leaves complete rows, and memory does not grow with the number of samples.

    Returns:
        whether any sample could be read.
    """
    predictor = Predictor.load(path, cfg.trainer)
    model, trained, shown = predictor.model, predictor.trained, predictor.shown
    given = [str(each) for each in cfg.input] if OmegaConf.is_list(cfg.input) else str(cfg.input)
    column = trained.data.get("text_column") if cfg.column is None else cfg.column
    found = find_samples(given, model.preprocess, column)
    samples = batches(found.samples, model.preprocess, cfg.batch_size or trained.data.batch_size, cfg.num_workers)
    answers = answers_of(model, model.classes, cfg.top_k)
    tally = Tally(f"{shown}s" if shown else "files")
    hidden = cfg.output is None and sys.stdout.isatty()  # otherwise the bar would appear between the rows
    with opened(cfg.output) as stream, progress_bar("predicting", found.total, tally.name, hidden=hidden) as bar:
        several = model.objective.multi_label
        writer = FORMATS[row_format(cfg.format, cfg.output)](stream, answers, shown, several)
        try:
            classify(predictor, samples, answers, writer, tally, bar)
        finally:
            writer.close()
            bar.close()  # otherwise the summary would start on its line
            tally.log_summary()
    return tally.read > 0


def build_fabric(trainer: DictConfig, trained: DictConfig) -> Fabric:
    """Device and precision for one process.

    Raises:
        UsageError: this machine does not have the device or the precision.
    """
    accelerator = trainer.accelerator or "auto"
    if trainer.precision is None:
        precision = precision_on_this_machine(trained.trainer.precision, accelerator)
    else:
        precision = choose_precision(trainer.precision, accelerator)
    try:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise UsageError(f"trainer.accelerator={accelerator} trainer.precision={precision}: {error}") from error


class Rows(Protocol):
    """Takes predictions in the order of the samples."""

    def write(self, predictions: Sequence[Prediction], /) -> None:
        """Takes some more."""


def classify(
    predictor: Predictor, samples: Iterable[Batch], answers: Answers, writer: Rows, tally: Tally, bar: tqdm
) -> None:
    """Predicts batch after batch, and writes the rows in the order of the samples, each as soon as it is due."""
    fabric, network, model = predictor.fabric, predictor.network, predictor.model
    waiting: dict[int, Prediction] = {}
    due = 0
    for batch in samples:
        predictions = rows(batch, probabilities(fabric, network, batch.inputs), model, answers)
        waiting.update(zip(batch.places, predictions, strict=True))
        ready = []
        while due in waiting:
            ready.append(waiting.pop(due))
            due += 1
        writer.write(ready)
        tally.add(predictions)
        bar.set_postfix_str(f"{tally.unreadable} unreadable", refresh=False)
        bar.update(len(predictions))


@torch.inference_mode()
def probabilities(fabric: Fabric, network: nn.Module, inputs: Any) -> Tensor:
    """The answers for a batch of inputs, on the CPU: `(usable samples, num_classes)`."""
    return torch.empty(0, 0) if inputs is None else network(fabric.to_device(inputs)).float().cpu()


def rows(batch: Batch, probabilities: Tensor, model: Classifier, answers: Answers) -> list[Prediction]:
    """One row per sample of the batch, usable or not, in its order."""
    known = zip(answers.of(probabilities), model.labels(probabilities), strict=True)
    found = []
    for sample in batch.samples:
        pairs, labels = ((), None) if sample.reason is not None else next(known)
        found.append(Prediction(sample.name, pairs, sample.reason, labels, sample.raw))
    return found


class TerminalStream(io.TextIOWrapper):
    """A text stream to a terminal: a name cannot send it control characters."""

    def write(self, text: str) -> int:
        """Writes the text with `?` for each control character."""
        return super().write(printable(text))


@contextmanager
def opened(output: str | None) -> Iterator[TextIO]:
    """The stream for the rows; file names that are not valid text are written with their original bytes.

    Raises:
        UsageError: the file cannot be written.
    """
    options = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    if output is None:
        sys.stdout.flush()
        number = sys.stdout.fileno()
        kind = TerminalStream if os.isatty(number) else io.TextIOWrapper  # in a pipe or a file, names keep every byte
        with kind(open(number, "wb", closefd=False), **options) as stream:
            yield stream
        return
    target = Path(output).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = open(target, "w", **options)  # noqa: SIM115 - closed below; only errors of open() are a UsageError
    except OSError as error:
        raise UsageError(f"output={output} cannot be written: {error.strerror or error}") from error
    with stream:
        yield stream
