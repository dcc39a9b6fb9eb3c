"""Shows the data of a training as its network will get them, before and after augmentation; trains nothing."""

import logging
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from torch import Tensor

from headstart.cli.terminal import show
from headstart.data.module import DataModule
from headstart.data.samples import loader_of
from headstart.display.by_sample import view_of
from headstart.display.samples import Entry
from headstart.display.tables import excerpt
from headstart.tasks.base import Task
from headstart.training.build import build_task
from headstart.training.run import show_data, show_inputs, show_recipe
from headstart.training.settle import settle

log = logging.getLogger(__name__)
SHOWN = 8
"""Number of samples that are shown, from as many classes as possible."""
DRAWS = 4
"""Number of augmented versions of each."""
MEASURED = 2000
"""Number of training samples whose size is read."""
NOT_FOR_A_PREVIEW = {
    "trainer.max_time": None,
    "trainer.precision": "32-true",
    "trainer.accelerator": "cpu",
    "lr_find": False,
}
"""Settings whose choice needs measurements, and that change no sample."""


def preview(given: DictConfig) -> Path | None:
    """Prints what is known about the data, and draws a picture of some samples.

    All choices are made as in training, such as the splits, and the input size by `finetuning=auto`.

    Args:
        given: config of a training.

    Returns:
        the file of the picture; None if the samples are shown in the terminal, or if nothing can show them.
    """
    with TemporaryDirectory() as folder:  # for the files of a run
        cfg = given.copy()
        for key, value in {**NOT_FOR_A_PREVIEW, "paths.run": folder}.items():
            OmegaConf.update(cfg, key, value)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        show_recipe(cfg)
        settled = settle(cfg)
        data = settled.data
        task = build_task(settled.cfg, data)
    show_data(data)
    show_inputs(data, task)
    positions = chosen(data)
    first = data.samples.load(data.splits["train"][positions[0]])
    if isinstance(first, str):
        show(texts_table(data, task, positions))
        return None
    file = Path(given.paths.logs).expanduser() / "preview" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.png"
    title = f"{counts(data)}\ntraining pictures: {sizes(data)}"
    log.info(title)
    return _draw(data, positions, file, title)


def chosen(data: DataModule, number: int = SHOWN) -> list[int]:
    """Positions of training samples, the first ones of each class in turns; without classes the first ones."""
    by_class: dict[Any, list[int]] = {}
    for position, index in enumerate(data.splits["train"]):
        first_class = next(iter(data.samples.classes_of(index)), None)
        by_class.setdefault(first_class, []).append(position)
    queues = list(by_class.values())
    turns = [queue[turn] for turn in range(number) for queue in queues if turn < len(queue)]
    return turns[:number]


def counts(data: DataModule, most: int = 6) -> str:
    """The number of samples in each split and, if there are only a few classes, of each class in train."""
    words = ", ".join(f"{number:,} {split}" for split, number in data.num_samples.items() if number)
    if not data.classes or data.samples.numbers or len(data.classes) > most:
        return words
    each = zip(data.classes, data.class_counts(), strict=True)
    return f"{words}; in train {', '.join(f'{name} {number:,}' for name, number in each)}"


def sizes(data: DataModule) -> str:
    """The range of the sizes of training pictures, in words."""
    train = data.splits["train"]
    found = [_size(data, index) for index in train[:: max(len(train) // MEASURED, 1)]]
    ordered = sorted((each for each in found if each), key=lambda size: size[0] * size[1])
    if not ordered:
        return "no pictures"
    smallest, largest = ordered[0], ordered[-1]
    if smallest == largest:
        return f"all are {smallest[0]} x {smallest[1]} pixels"
    side = statistics.median(min(size) for size in ordered)
    words = f"from {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]} pixels"
    return f"{words}, shorter side {side:.0f} in the median"


def texts_table(data: DataModule, task: Task, positions: Sequence[int]) -> Table:
    """Some texts with their class, their number of tokens, and the share that is cut off."""
    texts = [data.samples.load(data.splits["train"][position]) for position in positions]
    preprocess = task.backbone.preprocess
    table = Table(title="some training texts", show_lines=True)
    for name in ("class", "tokens", "cut off"):
        table.add_column(name, justify="left" if name == "class" else "right", max_width=14, overflow="fold")
    table.add_column("text", overflow="fold")
    for position, text, tokens in zip(positions, texts, preprocess.full_lengths(texts), strict=True):
        cut = max(tokens - preprocess.max_length, 0) / tokens
        table.add_row(_label(data, position), f"{tokens:,}", f"{100 * cut:.0f} %" if cut else "", excerpt(text, 110))
    return table


def _draw(data: DataModule, positions: Sequence[int], file: Path, title: str) -> Path | None:
    """One row per sample: as it is, as the network gets it in evaluation, and some draws of the augmentation."""
    view = view_of(data.eval_transform(data.samples.load(data.splits["train"][positions[0]])))
    if not view.can_show:
        log.warning("only pictures and texts can be shown")
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    view.write(file.with_suffix(""), [_entries(data, position) for position in positions], title)
    return file


def _entries(data: DataModule, position: int) -> list[Entry]:
    index = data.splits["train"][position]
    raw: Tensor = data.samples.load(index)
    size = _size(data, index)
    original = f"{size[0]} x {size[1]} pixels" if size else "original"
    found = [Entry(raw, (_label(data, position), original), data.samples.names[index])]
    plain = data.eval_transform(raw)
    found.append(Entry(plain, ("without augmentation", f"{plain.shape[-1]} x {plain.shape[-2]} pixels")))
    if data.train_transform is data.eval_transform:
        return found
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        found.append(Entry(data.train_transform(raw), ("with augmentation", f"draw {draw + 1}")))
    return found


def _size(data: DataModule, index: int) -> tuple[int, int] | None:
    """Width and height of a sample that is a picture, before it is decoded at a smaller size."""
    load, place = loader_of(data.samples.load, index)
    if hasattr(load, "size_of"):
        return load.size_of(place)
    value = load(place)
    return (value.shape[-1], value.shape[-2]) if isinstance(value, Tensor) and value.ndim == 3 else None


def _label(data: DataModule, position: int) -> str:
    return data.samples.label_of(data.splits["train"][position])
