"""Words that people know from other tools, and what to type here instead."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from headstart.cli.conf_files import file_of
from headstart.cli.early_checks import duration
from headstart.errors import UsageError
from headstart.files import TABLE_SUFFIXES, read_yaml
from headstart.runs.hyperparameters import key_of

SETTINGS = {
    "trainer.max_epochs": ("epochs", "max_epochs", "num_epochs", "n_epochs", "num_train_epochs"),
    "optimizer.lr": ("lr", "lr0", "learning_rate"),
    "optimizer.weight_decay": ("weight_decay", "wd"),
    "model.image_size": ("imgsz", "img_size", "image_size", "resolution"),
    "model.weights": ("weights", "checkpoint", "ckpt"),
    "data.batch_size": ("batch", "batch_size", "bs"),
    "data.num_workers": ("workers", "num_workers"),
    "data.root": ("root", "data_dir", "data_path", "dataset"),
    "head.dropout": ("dropout",),
    "finetuning.patience": ("patience",),
    "trainer.precision": ("precision",),
    "trainer.devices": ("devices", "gpus"),
    "trainer.max_time": ("max_time", "time"),
    "task.objective.label_smoothing": ("label_smoothing",),
    "model": ("backbone", "arch", "architecture", "network", "net"),
    "scheduler": ("lr_scheduler",),
    "trainer": ("device", "accelerator"),
}
"""What to type -> words for it in other tools."""
PICTURE_NAME = re.compile(rb"\.(jpe?g|png|tiff?|bmp|webp|gif)\b", re.IGNORECASE)
SPLIT_NAMES = ("train", "val", "test")
HERE = {word: setting for setting, words in SETTINGS.items() for word in words}


def translations(arguments: list[str]) -> Iterator[str]:
    """One line for each argument of `src/train.py` in the words of another tool: what to type instead."""
    no_data_chosen = not any(map(_chooses_data, arguments))
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key = key.lstrip("+")
        if not equals:
            continue
        is_path = key == "data" and ("/" in value or Path(value).expanduser().exists())
        if key == "pretrained":
            off = value.lower() in ("false", "0", "no")
            yield f"{argument}: " + ("type model.weights=null" if off else "leave it out, weights are pretrained here")
        elif is_path or (HERE.get(key, key) == "data.root" and no_data_chosen):
            yield f"{argument}: type {_data_set(value)} {shlex.quote(f'data.root={value}')}"
        elif key in HERE:
            yield f"{argument}: type {_translation(HERE[key], value)}"


def _chooses_data(argument: str) -> bool:
    """Whether an argument chooses a data set, itself or by its recipe."""
    key = key_of(argument)
    return key == "data" or (key == "experiment" and _recipe_chooses_data(argument.partition("=")[2]))


def _recipe_chooses_data(name: str) -> bool:
    """Whether a recipe, or one that it is built on, chooses a data set."""
    try:
        defaults = read_yaml(file_of("experiment", name)).get("defaults", [])
    except (OSError, UsageError):  # there is no such recipe: Hydra says so
        return False
    return any("override /data" in each if isinstance(each, dict) else _recipe_chooses_data(each) for each in defaults)


def _data_set(root: str) -> str:
    """The word for a person's own data."""
    kind = data_set_of(Path(root).expanduser())
    if kind is None and root.lower().endswith(TABLE_SUFFIXES):
        return "data=table (pictures) or data=text_table (texts), and"
    return f"data={kind or 'image_folder'}"


def data_set_of(path: Path) -> str | None:
    """The file of `conf/data` for a file or folder of a person's own data; None if it cannot be seen.

    A table of pictures has names of pictures at its beginning. A folder is judged by the tables in it, and by the first
    files below it that are pictures or texts.
    """
    if path.is_file():
        return _kind_of_table(path) if path.suffix.lower() in TABLE_SUFFIXES else None
    tables = [file for file in _files_in(path) if file.stem in SPLIT_NAMES and file.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        return _kind_of_table(tables[0])
    for folder, below, files in os.walk(path):
        below.sort()
        for name in sorted(files):
            if PICTURE_NAME.search(os.fsencode(name)):
                return "image_folder"
            # texts in the folder itself, such as a README, are no samples: these lie in the folders of their classes
            if name.lower().endswith(".txt") and folder != str(path):
                return "text_folder"
    return None


def _kind_of_table(file: Path) -> str | None:
    """The data set for a table; None if it cannot be read, or is compressed."""
    if file.suffix.lower() == ".parquet":
        return None
    try:
        with file.open("rb") as stream:
            return "table" if PICTURE_NAME.search(stream.read(10_000)) else "text_table"
    except OSError:
        return None


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.is_file())
    except OSError:
        return []


def _translation(setting: str, value: str) -> str:
    """What to type for a setting; values of other tools that are not valid here are replaced."""
    if setting == "trainer" and re.fullmatch(r"(cuda|gpu)(:\d+)?|\d+", value):
        value = "gpu"
    if setting == "trainer.max_time" and duration(value) is None:
        return "trainer.max_time=<time>, such as trainer.max_time=10m or trainer.max_time=1h30m"
    return shlex.quote(f"{setting}={value}")
