"""Mistakes that the config and a look at the disk show, which libraries would notice late or explain badly.

By hand, because torch and Lightning check a value when they use it: after the data were read, and in their own words.
Nothing here loads torch.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from headstart.errors import nearest_path
from headstart.files import HUB_ADDRESS, WEIGHT_SUFFIXES

BOUNDS: dict[str, tuple[float, float | None]] = {
    "seed": (0, 2**32 - 1),
    "optimizer.lr": (0.0, None),
    "optimizer.weight_decay": (0.0, None),
    "optimizer.momentum": (0.0, 1.0),
    "head.dropout": (0.0, 1.0),
    "data.batch_size": (1, None),
    "data.num_workers": (0, None),
    "trainer.max_epochs": (-1, None),
    "trainer.accumulate_grad_batches": (1, None),
    "trainer.gradient_clip_val": (0.0, None),
    "trainer.log_every_n_steps": (0, None),
    "task.objective.label_smoothing": (0.0, 1.0),
}
"""Setting -> least and largest value, both whole numbers if the setting is one; None: no largest value."""
LOGGERS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
"""Class of a logger -> the library that it needs in addition; the extra of the same name installs it."""
ROOTS = dict.fromkeys(("ImageFolder", "TextFolder"), "folder")
ROOTS |= dict.fromkeys(("PictureTable", "TextTable", "TextLines"), "file or folder")
"""Class of a data set that needs an existing `data.root` -> what it is."""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
NO_LOW_RANK = "finetuning=lora trains low-rank updates, and the backbone has none: add model.lora_rank=8"
UNITS = {"d": 86_400, "h": 3600, "m": 60, "min": 60, "s": 1, "sec": 1}
"""Unit of a length of time -> seconds."""


def late_mistakes(config: DictConfig) -> Iterator[str]:
    """One sentence for each mistake."""
    yield from _numbers_out_of_bounds(config)
    yield from _missing_files(config)
    yield from filter(None, map(missing_library, config.logger.values()))
    accelerator = config.trainer.get("accelerator")
    if isinstance(accelerator, str) and accelerator not in ACCELERATORS:
        yield f"trainer.accelerator={accelerator}: choose one of {', '.join(ACCELERATORS)}"
    limit = config.trainer.get("max_time")
    if isinstance(limit, (str, int, float)) and duration(limit) is None:
        yield f"trainer.max_time={limit}: give a time such as 10m, 1h30m or 00:01:30:00 (days:hours:minutes:seconds)"
    if _class_of(config.finetuning) == "LoRA" and not config.model.get("lora_rank"):
        yield NO_LOW_RANK


def duration(given: str | float) -> str | None:
    """A length of time as Lightning takes it, days:hours:minutes:seconds; None if it is no length of time.

    Args:
        given: such as `10m`, `1h30m`, `90s`, or `00:00:10:00`.
    """
    text = str(given).replace(" ", "").lower()
    if re.fullmatch(r"\d+:\d+:\d+:\d+", text):
        return text
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|sec|[dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = round(sum(float(number) * UNITS[unit] for number, unit in parts))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24:02}:{hours % 24:02}:{minutes:02}:{seconds:02}"


def _numbers_out_of_bounds(config: DictConfig) -> Iterator[str]:
    for key, (least, most) in BOUNDS.items():
        value = OmegaConf.select(config, key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not (least <= value and (most is None or value <= most)):
            kind = "a whole number" if isinstance(least, int) else "a number"
            allowed = f"of at least {least:g}" if most is None else f"from {least} to {most}"
            yield f"{key}={value}: give {kind} {allowed}"


def _missing_files(config: DictConfig) -> Iterator[str]:
    weights = config.model.get("weights")
    is_path = isinstance(weights, str) and ("/" in weights or weights.endswith(WEIGHT_SUFFIXES))
    if is_path and not weights.startswith(HUB_ADDRESS) and not Path(weights).expanduser().exists():
        yield f"model.weights={weights}: there is no such file or folder"
    root = config.data.get("root")
    kind = ROOTS.get(_class_of(config.data))
    if kind and isinstance(root, str) and not Path(root).expanduser().exists():
        yield f"data.root={root}: no such {kind}{nearest_path(Path(root).expanduser())}"


def missing_library(logger: DictConfig) -> str | None:
    """What to install for a logger, from its section of the config; None if nothing is missing."""
    library = LOGGERS.get(_class_of(logger))
    if library is None or find_spec(library) is not None:
        return None
    return f'logger={library} needs the library {library}: pip install -e ".[{library}]"'


def _class_of(node: Any) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, DictConfig) else ""
