"""Predictions for samples of a Python program: in memory, in files, or both."""

from collections.abc import Iterator
from itertools import chain, islice
from os import fspath
from typing import Any

from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from headstart.api.results import SHOWN_PICTURES, Predictions, as_jpeg
from headstart.display.contact_sheet import is_picture
from headstart.errors import UsageError
from headstart.inference.answers import answers_of
from headstart.inference.batches import batches
from headstart.inference.predict import Predictor, Tally, classify
from headstart.inference.rows import Prediction
from headstart.inference.unlabelled import find_samples
from headstart.inputs.base import Preprocess, Unlabelled, UnreadableInput
from headstart.progress import progress_bar

THUMBNAIL = 96
"""Longer side of a picture beside its prediction in a notebook, in pixels."""


def predictions(cfg: DictConfig, predictor: Predictor, items: list[Any]) -> Predictions:
    """The predictions for samples in memory and in files, in their order.

    Args:
        cfg: of `conf/predict.yaml`; its `input` and `output` are not used.
        predictor: the model.
        items: the samples.
    """
    if cfg.output is not None:
        raise UsageError("output: predictions are returned; write them with .to_pandas().to_csv(<file>)")
    model, rows = predictor.model, Collected()
    column = predictor.trained.data.get("text_column") if cfg.column is None else cfg.column
    size = cfg.batch_size or predictor.trained.data.batch_size
    samples = _samples(items, model.preprocess, column)
    first = list(islice(samples, size + 1))
    # a process that loads them would cost more than it saves, and a script without a main guard cannot start one
    needs_no_process = len(first) <= size or all(sample.raw is not None for sample in first)
    workers = 0 if cfg.num_workers is None and needs_no_process else cfg.num_workers
    shown = ShownPictures(model.preprocess)
    samples = shown.watched(chain(first, samples))
    answers = answers_of(model, model.classes, cfg.top_k)
    tally = Tally(f"{model.preprocess.sample_name}s")
    with progress_bar("Predicting", None, tally.name) as bar:
        classify(predictor, batches(samples, model.preprocess, size, workers), answers, rows, tally, bar)
    if tally.unreadable or len(rows) > size:  # a few predictions need no summary
        tally.log_summary()
    return Predictions(rows, answers, predictor.shown, shown.thumbnails)


class Collected(list[Prediction]):
    """Keeps all predictions."""

    write = list.extend


def _samples(items: list[Any], preprocess: Preprocess, column: str | int | None) -> Iterator[Unlabelled]:
    """One sample after the other; one in memory is named by its place in the list, such as `[0]`."""
    for place, item in enumerate(items):
        try:
            raw = preprocess.from_memory(item)
        except UnreadableInput as error:
            yield Unlabelled(f"[{place}]", reason=error.reason)
            continue
        if raw is None:
            yield from find_samples(fspath(item), preprocess, column).samples
        else:
            yield Unlabelled(f"[{place}]", raw)


class ShownPictures:
    """Keeps small copies of the first pictures, for a notebook.

    Args:
        preprocess: reads the pictures that are files.
    """

    def __init__(self, preprocess: Preprocess):
        self.preprocess = preprocess
        self.thumbnails: list[bytes] = []

    def watched(self, samples: Iterator[Unlabelled]) -> Iterator[Unlabelled]:
        """The same samples."""
        for sample in samples:
            if len(self.thumbnails) < SHOWN_PICTURES:
                self.thumbnails.append(self._thumbnail(sample))
            yield sample

    def _thumbnail(self, sample: Unlabelled) -> bytes:
        """The picture as JPEG; empty if it is none, or cannot be read."""
        try:
            raw: Tensor | Any = sample.raw if sample.raw is not None else self.preprocess.read(sample.name)
        except UnreadableInput:
            return b""
        return as_jpeg(Image.fromarray(raw.permute(1, 2, 0).numpy()), THUMBNAIL) if is_picture(raw) else b""
