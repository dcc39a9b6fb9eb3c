"""Figures and tables about the mistakes of a model: heat maps, nearest training samples, features, label errors."""

import logging
from collections.abc import Sequence
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
from headstart.display.contact_sheet import Tile, contact_sheet, is_picture, mistake_tile
from headstart.display.figures import shortened
from headstart.errors import UsageError
from headstart.evaluation.embedding import draw_embedding, in_two_dimensions, write_embedding, write_projector
from headstart.evaluation.evaluation_files import save
from headstart.evaluation.explanations import explain, require_captum
from headstart.evaluation.label_errors import find_label_errors, require_cleanlab, write_label_errors
from headstart.files import write_table
from headstart.heads.logistic_regression import out_of_fold
from headstart.metrics.intervals import describe_no_mistake
from headstart.metrics.mistakes import Mistake, worst_mistakes
from headstart.metrics.predictions import Predictions
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)
COLUMNS = 6
"""Number of columns in a sheet of pictures."""
MAPS = 12
"""Number of heat maps if explain=true gives no number."""
NEIGHBOURS = 5
"""Number of neighbours if neighbours=true gives no number."""
MISTAKES_WITH_NEIGHBOURS = 8
PROJECTED, PROJECTED_SIDE = 4096, 32
"""TensorBoard's projector shows up to 4,096 samples as pictures of 32 x 32 pixels; more samples are points."""
SUSPECTS = 36
"""Suspected label errors on the sheet of pictures; the table has all."""


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
    predictions: Predictions
    features: Tensor | None
    folder: Path

    def write(self) -> None:
        """Writes the files."""
        if not self.mistakes:
            log.info("%s: %s", self.split, describe_no_mistake(len(self.predictions)))
        elif is_picture(self._input(self.split, self.mistakes[0].position)):
            self._show_mistakes()
        else:
            log.warning("the samples are not pictures: mistakes.csv lists the mistakes, no figure shows them")
        if self.cfg.embedding:
            self._show_embedding()
        if self.cfg.label_errors:
            self._show_label_errors()

    @cached_property
    def mistakes(self) -> list[Mistake]:
        """The mistakes, the worst first."""
        return worst_mistakes(self.predictions)

    def _show_mistakes(self) -> None:
        if shown := self.mistakes[: self.cfg.worst]:
            tiles = [self._tile(mistake) for mistake in shown]
            title = f"worst mistakes, {len(shown)} of {len(self.mistakes)}"
            save(self.folder / "mistakes.png", contact_sheet(tiles, COLUMNS, title))
        if number := _number(self.cfg.explain, MAPS):
            self._show_maps(self.mistakes[:number])
        if number := _number(self.cfg.neighbours, NEIGHBOURS):
            self._show_neighbours(self.mistakes[:MISTAKES_WITH_NEIGHBOURS], number)

    def _show_maps(self, mistakes: Sequence[Mistake]) -> None:
        """Each mistake next to its heat map: which pixels led to the prediction."""
        device = self.trainer.strategy.root_device
        self.task.to(device)
        tiles = []
        for start in range(0, len(mistakes), self.data.batch_size):
            batch = mistakes[start : start + self.data.batch_size]
            pictures = torch.stack([self._input(self.split, m.position) for m in batch])
            maps = explain(self.task, self.task.backbone, pictures.to(device), [m.shown_class for m in batch])
            for mistake, picture, heat in zip(batch, pictures, maps, strict=True):
                name = shortened(self.predictions.classes[mistake.shown_class], 18)
                tiles += [self._tile(mistake), Tile(picture, f"what led to\n{name}", heat)]
        save(
            self.folder / "explanations.png",
            contact_sheet(tiles, COLUMNS, "worst mistakes, and which pixels led to the prediction"),
        )

    def _show_neighbours(self, mistakes: Sequence[Mistake], number: int) -> None:
        """Each mistake, then the training pictures with the nearest features (cosine, centred on their mean)."""
        train = self._train_features
        mean = train.mean(dim=0)
        positions = [mistake.position for mistake in mistakes]
        similarity = normalize(self.features[positions] - mean) @ normalize(train - mean).T
        if self.split == "train":  # a picture is not its own neighbour
            similarity[range(len(positions)), positions] = -2
        values, nearest = similarity.topk(min(number, len(train)), dim=1)
        tiles, rows = [], [["path", "true", "predicted", "rank", "neighbour", "class", "similarity"]]
        paths = paths_of(self.data, "train")
        for mistake, similarities, places in zip(mistakes, values.tolist(), nearest.tolist(), strict=True):
            tiles.append(self._tile(mistake))
            for rank, (value, place) in enumerate(zip(similarities, places, strict=True), start=1):
                name = self._names("train", place)
                tiles.append(Tile(self._input("train", place), f"{shortened(name)}\nsimilarity {value:.2f}"))
                rows.append(
                    [mistake.path, mistake.true, mistake.predicted, str(rank), paths[place], name, f"{value:.4f}"]
                )
        write_table(self.folder / "neighbours.csv", rows)
        title = "worst mistakes, each with the nearest training pictures"
        save(self.folder / "neighbours.png", contact_sheet(tiles, nearest.shape[1] + 1, title))

    def _show_embedding(self) -> None:
        points, method = in_two_dimensions(self.features, self.data.seed)
        write_embedding(self.folder / "embedding.csv", points, self.predictions)
        save(self.folder / "embedding.png", draw_embedding(points, method, self.predictions))
        number, small = len(self.features), None
        if number <= PROJECTED and is_picture(self._input(self.split, 0)):
            shrink = Resize((PROJECTED_SIDE, PROJECTED_SIDE))
            small = torch.stack([shrink(self._input(self.split, position)) for position in range(number)])
        write_projector(self.folder / "tensorboard", self.features, self.predictions, small)

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
        write_label_errors(self.folder / "label_errors.csv", errors, paths_of(self.data, "train"))
        log.info(
            "%d of %d training labels may be wrong; the model that suspects them agrees with %.1f %% of all labels: "
            "the lower this share, the more suspicions are false",
            *(len(errors), len(targets), 100 * agreed),
        )
        if errors and is_picture(self._input("train", 0)):
            tiles = [
                Tile(
                    self._input("train", e.position),
                    f"given: {shortened(e.given)}\nsuggested: {shortened(e.suggested)}, by {-e.score:.2f}",
                )
                for e in errors[:SUSPECTS]
            ]
            title = f"suspected labels, {len(tiles)} of {len(errors)}"
            save(self.folder / "label_errors.png", contact_sheet(tiles, COLUMNS, title))

    @cached_property
    def _train_features(self) -> Tensor:
        return features_of(self.task.backbone, self.data, "train", self.trainer, self._cache)

    @cached_property
    def _cache(self) -> Any:
        """The run's activation cache; None if it had none."""
        cache = self.trained.cache
        return instantiate(cache.activations) if cache and cache.activations else None

    def _input(self, split: str, position: int) -> Any:
        """A sample as the network gets it."""
        return self.data.eval_transform(self.data.samples.load(self.data.splits[split][position]))

    def _names(self, split: str, position: int) -> str:
        samples = self.data.samples
        return "|".join(samples.classes[c] for c in samples.classes_of(self.data.splits[split][position]))

    def _tile(self, mistake: Mistake) -> Tile:
        return mistake_tile(self._input(self.split, mistake.position), mistake)


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
    """Checks the settings that depend on the data.

    Raises:
        UsageError: `label_errors` does not work with these data.
    """
    if cfg.label_errors and task.objective.multi_label:
        raise UsageError("label_errors=true needs one class per sample, and these have several labels: leave it out")
    if cfg.label_errors and not all(n != 1 for n in data.class_counts("train")):
        raise UsageError(
            "label_errors predicts each sample from the others of its class, but a class has a single training sample: "
            "add some, or leave label_errors out"
        )


def paths_of(data: DataModule, split: str) -> list[str]:
    """The path of each sample of a split, relative to the root of the data; the name if the sample is not a file."""
    return [data.samples.names[index] for index in data.splits[split]]


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
