"""Runs side by side: what they differ in, and what came out."""

import csv
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from headstart.errors import UsageError, nearest
from headstart.metrics.scores import goodness

WATCHERS = ("best_checkpoint", "last_checkpoint", "interruption", "learning_rate", "learning_table", "progress_bar",
            "dashboard", "curves")  # fmt: skip
APART = ("paths.", "name.", "resume.", "report.", "logger.", *(f"callbacks.{name}." for name in WATCHERS))
"""Parts of a config that say where and how a run is kept and watched, not what it is; other callbacks do change it."""
KIND = "._target_"
METRICS = ("acc", "acc_macro", "acc_exact", "f1_macro", "auroc_macro", "ece", "loss")
SAME = 0.02
"""Accuracies that differ by more are of other weights; precision changes less."""

Answers = dict[str, tuple[str, bool]]  # sample -> its label, and whether the answer was right


@dataclass
class Run:
    """One run that has ended.

    Attributes:
        folder: its directory.
        settings: dotted key -> value of all of its config, as written.
        metrics: what `metrics.json` holds; None for what is no finite number.
    """

    folder: Path
    settings: dict[str, Any]
    metrics: dict[str, float | None]

    def right(self, split: str) -> Answers | None:
        """None where the run has no evaluation of the split, or one of other weights than it ended with."""
        file = self.folder / f"evaluation_{split}" / "predictions.csv"
        if not file.is_file():
            return None
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            found = {row["path"]: (row["true"], row["right"] == "1") for row in csv.DictReader(stream)}
        ended_with = self.metrics.get(f"{split}/acc_exact", self.metrics.get(f"{split}/acc"))
        share = sum(right for _, right in found.values()) / max(len(found), 1)
        return None if ended_with is not None and not abs(share - ended_with) <= SAME else found


@dataclass
class Configuration:
    """Runs that differ in nothing but the seed.

    Attributes:
        values: setting -> value, of those in which configurations differ.
        runs: a run for each seed.
    """

    values: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    @cached_property
    def title(self) -> str:
        """What tells it from the others."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items()) or "all"

    def numbers(self, key: str) -> list[float]:
        """A metric of each run that has it."""
        return [run.metrics[key] for run in self.runs if run.metrics.get(key) is not None]


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """The runs that have ended in the given run and sweep directories, and those that have not.

    Raises:
        UsageError: a folder is neither, or fewer than two runs are found.
    """
    found: dict[Path, Run] = {}
    without: list[Path] = []
    for folder in folders:
        places = (
            [folder] if (folder / "config.yaml").is_file() else sorted(folder.glob("*/config.yaml"), key=_by_number)
        )
        places = [place.parent if place.name == "config.yaml" else place for place in places]
        if not places:
            raise UsageError(f"{folder} is neither a run nor a folder of runs: give logs/<name>/runs/<date> or a sweep")
        for place in places:
            if (place / "metrics.json").is_file():
                found[place.resolve()] = _read(place)
            else:
                without.append(place)
    if len(found) < 2:
        raise UsageError(f"a comparison needs two runs that have ended, here is {len(found)}: give more of them")
    return list(found.values()), without


def _by_number(file: Path) -> tuple[int, str]:
    """Jobs of a sweep in their order, not 10 before 2."""
    name = file.parent.name
    return (int(name) if name.isdigit() else -1, name)


def _read(folder: Path) -> Run:
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))  # as written: what refers is one fact
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    # what is not a number, as the loss of a run that went astray, has no place in an order or a mean
    known = {name: value if value is None or math.isfinite(value) else None for name, value in metrics.items()}
    return Run(folder, dict(_flat(config)), known)


def _flat(node: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            items += _flat(value, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", value))
    return items


def configurations(runs: Sequence[Run], over: str) -> list[Configuration]:
    """The runs grouped by all that they differ in beside the seed (`over`), in the order given."""
    known = dict.fromkeys(key for run in runs for key in run.settings)
    differing: dict[str, list[str]] = {}
    for key in known:
        # a part that is null in one run has a kind in another, which tells it all
        if key == over or key + KIND in known or f"{key}.".startswith(APART) or _told_by_kind(runs, key):
            continue
        values = [run.settings.get(key, run.settings.get(key.removesuffix(KIND), "none")) for run in runs]
        if len(set(map(repr, values))) > 1:
            differing[key.removesuffix(KIND)] = _shown(key, values)
    found: dict[tuple[str, ...], Configuration] = {}
    for place, run in enumerate(runs):
        values = {key: shown[place] for key, shown in differing.items()}
        found.setdefault(tuple(values.values()), Configuration(values)).runs.append(run)
    return list(found.values())


def _told_by_kind(runs: Sequence[Run], key: str) -> bool:
    """Whether a setting is the same wherever it is, and the kind of its part says where that is."""
    kind = key.rpartition(".")[0] + KIND
    values = {repr(run.settings[key]) for run in runs if key in run.settings}
    kinds = [{repr(run.settings.get(kind)) for run in runs if (key in run.settings) == has} for has in (True, False)]
    return key != kind and len(values) == 1 and kinds[0].isdisjoint(kinds[1])


def _shown(key: str, values: Sequence[Any]) -> list[str]:
    """The values of a setting in short; as they are where two of them would look alike."""
    short = [_short(key, value) for value in values]
    return short if len(set(short)) == len(set(map(repr, values))) else [repr(value) for value in values]


def _short(key: str, value: Any) -> str:
    if isinstance(value, str) and key.endswith(KIND):
        return value.rpartition(".")[2]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def summary(numbers: Sequence[float], digits: int = 4) -> str:
    """Mean, and of several lowest to highest."""
    if not numbers:
        return ""
    mean = f"{statistics.mean(numbers):,.{digits}f}"
    if len(numbers) == 1 or min(numbers) == max(numbers):
        return mean
    return f"{mean} ({min(numbers):,.{digits}f} to {max(numbers):,.{digits}f})"


def metric_names(runs: Sequence[Run], split: str, first: str) -> list[str]:
    """The metrics of a split that any run has, as `metrics.json` calls them, `first` in front.

    Raises:
        UsageError: no run has `first`.
    """
    known = [name for name in METRICS if any(run.metrics.get(f"{split}/{name}") is not None for run in runs)]
    if first not in known:
        raise UsageError(
            f"--metric={first}{nearest(first, known)}: no run has {split}/{first}; "
            f"there are: {', '.join(known) or 'none'}"
        )
    return [f"{split}/{name}" for name in [first, *(name for name in known if name != first)]]


def measured(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Path]]:
    """The runs that have a metric, and the folders of those that have not."""
    found = [run for run in runs if run.metrics.get(metric) is not None]
    return found, [run.folder for run in runs if run.metrics.get(metric) is None]


def ordered(found: Sequence[Configuration], metric: str) -> list[Configuration]:
    """The configurations, the best mean of a metric that all runs have first."""
    return sorted(found, key=lambda each: -goodness(statistics.mean(each.numbers(metric)), metric))


def configuration_rows(found: Sequence[Configuration], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a configuration: settings, runs, the first metric, the cost, the other metrics."""
    header = [*(found[0].values or ["configuration"]), "runs", names[0], "seconds", "parameters", *names[1:]]
    rows = []
    for each in found:
        cost = [summary(each.numbers(key), 0) for key in ("seconds", "parameters")]
        first, *others = (summary(each.numbers(name)) for name in names)
        rows.append([*(each.values.values() or ["all"]), str(len(each.runs)), first, *cost, *others])
    return header, rows


def run_rows(found: Sequence[Configuration], names: Sequence[str], over: str) -> list[list[Any]]:
    """The same of each run, the header first; nothing is rounded."""
    columns = [names[0], "seconds", "parameters", *names[1:]]
    rows: list[list[Any]] = [["run", *found[0].values, over, *columns]]
    for each in found:
        for run in each.runs:
            numbers = [run.metrics.get(key) for key in columns]
            rows.append([str(run.folder), *each.values.values(), run.settings.get(over), *numbers])
    return rows
