"""Figures and tables about the mistakes of a model: explanations, nearest training samples, features, label errors."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torchvision.transforms.v2 import Resize

from headstart.backbones.base import Backbone
from headstart.caching.features import features_of
from headstart.cli.schemas import AS_IN_RUN
from headstart.data.module import DataModule
from headstart.display.by_sample import as_shown, view_of
from headstart.display.contact_sheet import is_picture
from headstart.display.figures import save
from headstart.display.samples import Entry, SampleView, mistake_entry
from headstart.display.tables import excerpt
from headstart.errors import UsageError, counted
from headstart.evaluation.embedding import draw_embedding, in_two_dimensions, write_embedding, write_projector
from headstart.evaluation.explanations.attribution import require_captum
from headstart.evaluation.explanations.by_input import explanation_for
from headstart.evaluation.label_errors import find_label_errors, require_cleanlab, write_label_errors
from headstart.files import Column, with_column, write_table
from headstart.heads.logistic_regression import out_of_fold
from headstart.metrics.intervals import describe_no_mistake
from headstart.metrics.mistakes import Mistake
from headstart.metrics.number_predictions import NumberError
from headstart.progress import progress_bar
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objective import AnyPredictions

log = logging.getLogger(__name__)
EXPLANATIONS = 12
"""Number of explained mistakes if explain=true gives no number."""
EXPLAINED_AT_ONCE = 4
"""Samples in a batch: few, so that the progress is seen."""
NEIGHBOURS = 5
"""Number of neighbours if neighbours=true gives no number."""
MISTAKES_WITH_NEIGHBOURS = 8
PROJECTED, PROJECTED_SIDE = 4096, 32
"""TensorBoard's projector shows up to 4,096 samples as pictures of 32 x 32 pixels; more samples are points."""
SUSPECTS = 36
"""Suspected label errors that are shown; the table has all."""


@dataclass
class Inspection:
    """Writes what `cfg` asks for about the evaluation of one split.

    Attributes:
        cfg: of `conf/evaluate.yaml`.
        trained: the config of the run.
        task: the evaluated model.
        data: its data.
        split: the evaluated split.
        trainer: has evaluated it.
        predictions: of the split.
        features: `(samples, num_features)` of the split; None if `cfg` asks for nothing that needs them.
        folder: of the files.
    """

    cfg: DictConfig
    trained: DictConfig
    task: ClassificationTask
    data: DataModule
    split: str
    trainer: pl.Trainer
    predictions: AnyPredictions
    features: Tensor | None
    folder: Path

    def write(self) -> None:
        """Writes the files."""
        if not self.mistakes:
            log.info("%s: %s", self.split, describe_no_mistake(len(self.predictions)))
        elif self._view.can_show:
            self._show_mistakes()
        else:
            log.warning("%s.csv lists the %s; only pictures and texts are also shown", *2 * [self._name])
        if self.cfg.embedding:
            self._show_embedding()
        if self.cfg.label_errors:
            self._show_label_errors()

    @cached_property
    def _view(self) -> SampleView:
        return view_of(self._sample(self.split, 0))

    @cached_property
    def mistakes(self) -> list[Mistake] | list[NumberError]:
        """The mistakes, the worst first; for numbers the errors."""
        return self.task.objective.worst(self.predictions)

    @property
    def _name(self) -> str:
        return self.task.objective.worst_name

    def _show_mistakes(self) -> None:
        if shown := self.mistakes[: self.cfg.worst]:
            title = f"worst {self._name}, {len(shown)} of {len(self.mistakes)}"
            self._view.write(self.folder / self._name, [[self._entry(mistake)] for mistake in shown], title)
        if number := _number(self.cfg.explain, EXPLANATIONS):
            self._show_explanations(self.mistakes[:number])
        if number := _number(self.cfg.neighbours, NEIGHBOURS):
            self._show_neighbours(self.mistakes[:MISTAKES_WITH_NEIGHBOURS], number)

    def _show_explanations(self, mistakes: Sequence[Mistake | NumberError]) -> None:
        """Each mistake, and which parts of the sample led to the prediction."""
        explain = explanation_for(self.task.backbone.preprocess, self._raw(self.split, mistakes[0].position))
        self.task.to(self.trainer.strategy.root_device)
        samples: list[Any] = []
        found: list[Any] = []
        name = self.task.backbone.preprocess.sample_name
        log.info("explaining the worst %s", counted(len(mistakes), name))
        with progress_bar("explaining", len(mistakes), f"{name}s") as bar:
            for start in range(0, len(mistakes), EXPLAINED_AT_ONCE):
                batch = slice(start, start + EXPLAINED_AT_ONCE)
                classes = [mistake.shown_class for mistake in mistakes[batch]]
                raw = [self._raw(self.split, mistake.position) for mistake in mistakes[batch]]
                found += explain(self.task, self.task.backbone, raw, classes)
                samples += [as_shown(each, self.data.eval_transform) for each in raw]
                bar.update(len(classes))
        entries = [
            [mistake_entry(sample, mistake, each, self.predictions.explained_name(mistake.shown_class))]
            for mistake, sample, each in zip(mistakes, samples, found, strict=True)
        ]
        title = f"worst {self._name}, and which {self._view.parts} led to the prediction{self._view.parts_note}"
        self._view.write(self.folder / "explanations", entries, title)
        if (rows := self._view.explanation_rows([entry for (entry,) in entries])) is not None:
            write_table(self.folder / "explanations.csv", rows)

    def _show_neighbours(self, mistakes: Sequence[Mistake | NumberError], number: int) -> None:
        """Each mistake, then the training samples with the nearest features (cosine, centred on their mean)."""
        train = self._train_features
        mean = train.mean(dim=0)
        positions = [mistake.position for mistake in mistakes]
        similarity = normalize(self.features[positions] - mean) @ normalize(train - mean).T
        if self.split == "train":  # a sample is not its own neighbour
            similarity[range(len(positions)), positions] = -2
        values, nearest = similarity.topk(min(number, len(train)), dim=1)
        groups, rows = [], [["path", "true", "predicted", "rank", "neighbour", "class", "similarity"]]
        paths = paths_of(self.data, "train")
        for mistake, similarities, places in zip(mistakes, values.tolist(), nearest.tolist(), strict=True):
            groups.append([self._entry(mistake)])
            for rank, (value, place) in enumerate(zip(similarities, places, strict=True), start=1):
                name = self._names("train", place)
                lines = (name, f"similarity {value:.2f}")
                groups[-1].append(Entry(self._sample("train", place), lines, paths[place]))
                rows.append(
                    [mistake.path, mistake.true, mistake.predicted, str(rank), paths[place], name, f"{value:.4f}"]
                )
        contents = contents_of(self.data, "train", nearest.flatten().tolist(), "neighbour_")
        write_table(self.folder / "neighbours.csv", with_column(rows, contents))
        title = f"worst {self._name}, each with the nearest training {self.task.backbone.preprocess.sample_name}s"
        self._view.write(self.folder / "neighbours", groups, title)

    def _show_embedding(self) -> None:
        points, method = in_two_dimensions(self.features, self.data.seed)
        write_embedding(self.folder / "embedding.csv", points, self.predictions)
        save(self.folder / "embedding.png", draw_embedding(points, method, self.predictions))
        number, small = len(self.features), None
        if number <= PROJECTED and is_picture(self.data.eval_transform(self._raw(self.split, 0))):
            shrink = Resize((PROJECTED_SIDE, PROJECTED_SIDE))
            inputs = (self.data.eval_transform(self._raw(self.split, position)) for position in range(number))
            small = torch.stack(list(map(shrink, inputs)))
        contents = contents_of(self.data, self.split, range(number))
        short = contents and Column(contents.name, [excerpt(each) for each in contents.values])
        write_projector(self.folder / "tensorboard", self.features, self.predictions, small, short)

    def _show_label_errors(self) -> None:
        """Suspected label errors of the training samples, from features that were not trained on these labels."""
        backbone = starting_backbone(self.trained, self.task)
        if backbone is self.task.backbone:
            features = self._train_features
        else:
            features = features_of(backbone, self.data, "train", self.trainer, self._cache)
        targets = self.data.targets("train", range(len(features)))
        logits = out_of_fold(features, targets, cross_entropy, len(self.task.classes), self.data.seed)
        assert logits is not None, "check_data has counted the samples of each class"
        errors = find_label_errors(logits.softmax(dim=1), targets, self.task.classes)
        agreed = (logits.argmax(dim=1) == targets).float().mean().item()
        paths = paths_of(self.data, "train")
        contents = contents_of(self.data, "train", [error.position for error in errors])
        write_label_errors(self.folder / "label_errors.csv", errors, paths, contents)
        log.info(
            "%d of %d training labels may be wrong; the model that suspects them agrees with %.1f %% of all labels: "
            "the lower this share, the more suspicions are false",
            *(len(errors), len(targets), 100 * agreed),
        )
        if shown := errors[:SUSPECTS]:
            samples = [self._sample("train", error.position) for error in shown]
            entries = [
                Entry(
                    sample, (f"given: {e.given}", f"suggested: {e.suggested}", f"by {-e.score:.2f}"), paths[e.position]
                )
                for e, sample in zip(shown, samples, strict=True)
            ]
            title = f"suspected labels, {len(shown)} of {len(errors)}"
            view_of(samples[0]).write(self.folder / "label_errors", [[entry] for entry in entries], title)

    @cached_property
    def _train_features(self) -> Tensor:
        return features_of(self.task.backbone, self.data, "train", self.trainer, self._cache)

    @cached_property
    def _cache(self) -> Any:
        """The run's activation cache; None if it had none."""
        cache = self.trained.cache
        return instantiate(cache.activations) if cache and cache.activations else None

    def _sample(self, split: str, position: int) -> Any:
        """A sample as it is shown."""
        return as_shown(self._raw(split, position), self.data.eval_transform)

    def _raw(self, split: str, position: int) -> Any:
        return self.data.samples.load(self.data.splits[split][position])

    def _names(self, split: str, position: int) -> str:
        return self.data.samples.label_of(self.data.splits[split][position])

    def _entry(self, mistake: Mistake | NumberError) -> Entry:
        return mistake_entry(self._sample(self.split, mistake.position), mistake)


def check(cfg: DictConfig) -> None:
    """Checks the settings before anything is loaded.

    Raises:
        UsageError: a library is missing, or two settings contradict each other.
    """
    if cfg.explain:
        require_captum()
    if cfg.label_errors:
        require_cleanlab()
    if cfg.calibrate and cfg.test_time != AS_IN_RUN:
        raise UsageError("calibrate=true is for the predictions as the run makes them: leave test_time out")
    if cfg.data.root is not None:
        for key in ("calibrate", "neighbours", "label_errors"):
            if cfg[key]:
                raise UsageError(f"{key}={str(cfg[key]).lower()} needs the data of the run: leave data.root out")


def check_data(cfg: DictConfig, task: ClassificationTask, data: DataModule) -> None:
    """Checks the settings that depend on the task and the data.

    Raises:
        UsageError: a setting does not work with them.
    """
    for key in ("calibrate", "label_errors"):
        if task.objective.numbers and cfg[key]:
            raise UsageError(f"{key}=true is for classes, and this model predicts numbers: leave it out")
    if cfg.label_errors and task.objective.multi_label:
        raise UsageError("label_errors=true needs one class per sample, and these have several labels: leave it out")
    if cfg.label_errors and not all(n != 1 for n in data.class_counts("train")):
        raise UsageError(
            "label_errors predicts each sample from the others of its class, but a class has a single training sample: "
            "add some, or leave label_errors out"
        )
    if cfg.explain and data.num_samples[cfg.split]:
        explanation_for(task.backbone.preprocess, data.samples.load(data.splits[cfg.split][0]))


def paths_of(data: DataModule, split: str) -> list[str]:
    """The path of each sample of a split, relative to the root of the data; the name if the sample is not a file."""
    return [data.samples.names[index] for index in data.splits[split]]


def contents_of(data: DataModule, split: str, positions: Iterable[int], prefix: str = "") -> Column | None:
    """The samples at these positions of a split as a column; None if there is none, or if no table can hold them.

    Args:
        data: whose samples.
        split: its split.
        positions: in the split.
        prefix: of the column's name.
    """
    indices = [data.splits[split][position] for position in positions]
    name = view_of(data.samples.load(indices[0])).column if indices else None
    return None if name is None else Column(f"{prefix}{name}", [data.samples.load(index) for index in indices])


def starting_backbone(trained: DictConfig, task: ClassificationTask) -> Backbone:
    """The backbone before training; the trained one may have memorised the labels of its training samples."""
    if not get_class(trained.finetuning._target_).trains_backbone:
        return task.backbone
    if trained.model.get("weights") is None:
        log.warning(
            "the backbone was trained on these labels from random weights: label errors that it memorised are not found"
        )
        return task.backbone
    return instantiate(trained.model).eval()


def _number(given: bool | int, default: int) -> int:
    """The given number; `true` stands for the default."""
    return default if given is True else int(given)
