"""The data of a run: counts, origin and sizes, examples, unreadable files and duplicates."""

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from markupsafe import Markup
from omegaconf import DictConfig
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from headstart.cli.conf_files import typed_name
from headstart.data.leaks import leaks
from headstart.data.module import SPLITS, DataModule
from headstart.data.samples import Samples, loader_of
from headstart.display.contact_sheet import SMALL_PICTURE_SIDE, is_picture
from headstart.display.page import data_uri
from headstart.inputs.base import Preprocess
from headstart.inputs.images.files import size_of
from headstart.report import texts
from headstart.report.sampling import MEASURED, evenly
from headstart.runs.directory import Run

SIDE = 144
"""Height and width of an example, in pixels."""
CLASSES_WITH_EXAMPLES = 20
LISTED = 20
"""At most this number of classes and unreadable files are listed; the tables of the run have all."""


@dataclass
class DataCard:
    """The contents of the section about the data.

    Attributes:
        name: the last part of `root`; without a root, the name of the data set.
        root: its folder or file.
        classes: names in the order of the model's outputs.
        counts: split -> number of samples of each class.
        totals: split -> number of samples; with several labels per sample, less than the sum of `counts`.
        origins: split -> where its samples come from, in words.
        sizes: sizes of the pictures or texts in words; None if the samples are neither or cannot be read.
        lengths: histogram of the lengths of texts; None if the samples are no texts or cannot be read.
        examples: class -> pictures as data URIs.
        texts: class -> beginnings of texts.
        bad: unreadable files and the reasons.
        leaks: `splits` and `classes` -> pairs of names with identical content in two of them.
        checked: whether the samples could be checked for identical content.
        missing: why the data cannot be read; None if they can.
    """

    name: str
    root: str | None
    classes: list[str]
    counts: dict[str, list[int]]
    totals: dict[str, int]
    origins: dict[str, str]
    sizes: str | None = None
    lengths: Markup | None = None
    examples: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    leaks: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    checked: bool = False
    missing: str | None = None


def data_card(
    run: Run, trained: DictConfig, classes: list[str], data: DataModule | str, preprocess: Preprocess, examples: int
) -> DataCard:
    """The card of a run's data.

    Args:
        run: whose data.
        trained: the config of the run.
        classes: names in the order of the model's outputs.
        data: set up; or the reason why they cannot be read: then the samples are counted in the run's split file.
        preprocess: of the model.
        examples: number of examples per class.
    """
    root = trained.data.get("root")
    name = PureWindowsPath(root).name if root else typed_name("data", trained.data._target_, run.choices)
    card = DataCard(name, root, classes, {}, {}, {}, bad=_bad_files(run.bad_files_file))
    if isinstance(data, str):
        card.missing = data
        _count_rows(card, run.split_file)
    else:
        card.counts = {split: data.class_counts(split) for split in SPLITS if data.num_samples[split]}
        card.totals = {split: data.num_samples[split] for split in card.counts}
        summary, card.lengths = texts.lengths(data, preprocess)
        card.sizes = f"{summary[0].upper()}{summary[1:]}" if summary else _sizes(data)
        _add_examples(card, data, examples)
        card.checked = data.samples.digests is not None
        card.leaks = leaks(data.samples, data.splits)
    brought = None if isinstance(data, str) else data.brought
    by = "the first number" if trained.data.get("numbers") else "class"
    card.origins = {split: origin(split, trained.data, brought, by) for split in card.counts}
    return card


def origin(split: str, plan: DictConfig, brought: frozenset[str] | None, by: str = "class") -> str:
    """Where the samples of a split come from, in words.

    Args:
        split: train, val or test.
        plan: the `data` part of the config.
        brought: the splits that the data set defines itself; None if the data cannot be read any more.
        by: what splits are stratified by.
    """
    if split == "train":
        if plan.shots_per_class is not None:
            return f"{plan.shots_per_class} samples per class, drawn with seed {plan.seed}"
        if plan.train_fraction < 1:
            return f"{plan.train_fraction:g} of the training samples, stratified by {by}, drawn with seed {plan.seed}"
        return (
            "the rest of the data set's own train split"
            if brought is None or len(brought) < 3
            else "the data set's own"
        )
    if split == "val" and plan.num_folds is not None:
        return f"fold {plan.fold} of {plan.num_folds} (counted from 0), stratified, seed {plan.seed}"
    if brought is None:
        return "as listed in the run's split file"
    if split in brought:
        return "the data set's own"
    return f"{plan[f'{split}_fraction']:g} of train, stratified by {by}, seed {plan.seed}"


def _count_rows(card: DataCard, file: Path) -> None:
    """Counts the samples in a split file."""
    if not file.is_file():
        return
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    known = set(card.classes)
    for split in SPLITS:
        # a class name may contain the separator of several labels
        labels = [[row["class"]] if row["class"] in known else row["class"].split("|")
                  for row in rows if row["split"] == split]  # fmt: skip
        if labels:
            found = Counter(name for names in labels for name in names)
            card.counts[split] = [found[name] for name in card.classes]
            card.totals[split] = len(labels)


def _bad_files(file: Path) -> list[tuple[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        return [(row["name"], row["reason"]) for row in csv.DictReader(stream)]


def _sizes(data: DataModule) -> str | None:
    """Smallest, median and largest picture by number of pixels, in words."""
    indices = [index for split in SPLITS for index in data.splits[split]]
    chosen = evenly(indices, MEASURED)
    found = [size for size in (size_of(*loader_of(data.samples.load, index)) for index in chosen) if size]
    if not found:
        return None
    by_area = sorted(found, key=lambda size: (size[0] * size[1], size))
    if by_area[0] == by_area[-1]:
        return f"Pictures: all {by_area[0][0]} x {by_area[0][1]} pixels"
    sizes = [f"{width} x {height}" for width, height in (by_area[0], by_area[len(by_area) // 2], by_area[-1])]
    of = "" if len(chosen) == len(indices) else f" ({len(chosen):,} pictures measured)"
    return f"Pictures: from {sizes[0]} to {sizes[2]} pixels, the median has {sizes[1]}{of}"


def _add_examples(card: DataCard, data: DataModule, number: int) -> None:
    """Adds training samples of each class, evenly spaced; for at most `CLASSES_WITH_EXAMPLES` classes.

    For numbers, samples from the lowest to the highest first number.
    """
    first = data.samples.load(data.splits["train"][0]) if number and data.splits["train"] else None
    if not isinstance(first, str) and not is_picture(first):
        return
    for name, members in _members(data).items():
        shown = evenly(members, number)
        if isinstance(first, str):
            card.texts[name] = texts.examples_of(data, shown)
        else:
            card.examples[name] = [thumbnail_of(data.samples, index) for index in shown]


def _members(data: DataModule) -> dict[str, list[int]]:
    """Name of a group of training samples -> their indices."""
    train, samples = data.splits["train"], data.samples
    if samples.numbers:
        ascending = sorted(train, key=lambda index: samples.targets[index][0])
        return {f"from the lowest to the highest {data.classes[0]}": ascending}
    members: dict[int, list[int]] = {}
    for index in train:
        for c in samples.classes_of(index):
            members.setdefault(c, []).append(index)
    return {data.classes[c]: members[c] for c in sorted(members)[:CLASSES_WITH_EXAMPLES]}


def thumbnail_of(samples: Samples, index: int) -> str:
    """A small version of sample `index`, as a data URI."""
    return thumbnail(samples.load(index))


def thumbnail(picture: Tensor) -> str:
    """A small version of a picture, uint8 `(3, height, width)`, as a data URI; at most `SIDE` pixels high and wide."""
    image = to_pil_image(picture.cpu())
    stream = io.BytesIO()
    if max(image.size) <= SMALL_PICTURE_SIDE:  # every pixel counts
        image.save(stream, "PNG")
        return data_uri(stream.getvalue(), "png")
    image.thumbnail((SIDE, SIDE))
    image.save(stream, "JPEG", quality=80)
    return data_uri(stream.getvalue(), "jpeg")
