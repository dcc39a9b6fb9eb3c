"""Runs side by side: the settings in which they differ, and their metrics."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.cli.conf_files import typed_name
from headstart.errors import UsageError, nearest
from headstart.metrics.scores import goodness
from headstart.runs.directory import Run, find_runs
from headstart.runs.hyperparameters import is_hyperparameter

KIND = "._target_"
"""Ending of the key that names the class or function of a part."""
METRICS = ("acc", "acc_macro", "acc_exact", "map", "f1_macro", "auroc_macro", "ece", "r2", "mae", "rmse", "loss")


@dataclass
class Configuration:
    """Runs that differ only in the seed.

    Attributes:
        values: setting -> value, for the settings in which the configurations differ.
        runs: one run per seed.
    """

    values: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    @cached_property
    def title(self) -> str:
        """The settings in which it differs from the others."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items()) or "all"

    def numbers(self, key: str) -> list[float]:
        """A metric of each run that has it."""
        return [run.metrics[key] for run in self.runs if run.metrics.get(key) is not None]


def ended_runs(folders: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """The runs that have ended in these run and sweep directories, and the folders of those that have not.

    Raises:
        UsageError: a folder holds no run, or fewer than two runs have ended.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        runs = find_runs(folder)
        if not runs:
            raise UsageError(f"{folder} is neither a run nor a folder of runs: give logs/<name>/runs/<date> or a sweep")
        found |= {run.folder.resolve(): run for run in runs}
    ended = [run for run in found.values() if run.has_ended]
    if len(ended) < 2:
        raise UsageError(f"a comparison needs two runs that have ended, here is {len(ended)}: give more of them")
    return ended, [run.folder for run in found.values() if not run.has_ended]


def configurations(runs: Sequence[Run], over: str) -> list[Configuration]:
    """The runs grouped by all settings in which they differ except the seed (`over`), in the order given."""
    known = dict.fromkeys(key for run in runs for key in run.settings)
    differing: dict[str, list[str]] = {}
    for key in known:
        # skipped: a part that is null in some runs; the `_target_` of the other runs shows the difference
        if key == over or key + KIND in known or not is_hyperparameter(key) or _follows_from_kind(runs, key):
            continue
        values = [run.settings.get(key, run.settings.get(key.removesuffix(KIND), "none")) for run in runs]
        if len(set(map(repr, values))) > 1:
            words = [_typed(run, key, value) for run, value in zip(runs, values, strict=True)]
            differing[key.removesuffix(KIND)] = _in_short(key, values, words)
    found: dict[tuple[str, ...], Configuration] = {}
    for place, run in enumerate(runs):
        values = {key: shown[place] for key, shown in differing.items()}
        found.setdefault(tuple(values.values()), Configuration(values)).runs.append(run)
    return list(found.values())


def _follows_from_kind(runs: Sequence[Run], key: str) -> bool:
    """Whether a setting adds nothing to the `_target_` of its part: it has one value, and only for certain targets."""
    kind = key.rpartition(".")[0] + KIND
    values = {repr(run.settings[key]) for run in runs if key in run.settings}
    kinds = [{repr(run.settings.get(kind)) for run in runs if (key in run.settings) == has} for has in (True, False)]
    return key != kind and len(values) == 1 and kinds[0].isdisjoint(kinds[1])


def _typed(run: Run, key: str, value: Any) -> str:
    """The value of a setting as one types it: for a part the name of its file, if that is known."""
    group = key.removesuffix(KIND)
    if group == key or value is None:
        return _short(key, value)
    return typed_name(group, value, run.choices)


def _in_short(key: str, values: Sequence[Any], words: Sequence[str]) -> list[str]:
    """The words for the values of a setting, or short values; unshortened if two different values look alike."""
    if len(set(words)) == len(set(map(repr, values))):
        return list(words)
    short = [_short(key, value) for value in values]
    return short if len(set(short)) == len(set(map(repr, values))) else [repr(value) for value in values]


def _short(key: str, value: Any) -> str:
    if isinstance(value, str) and key.endswith(KIND):
        return value.rpartition(".")[2]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def summary(numbers: Sequence[float], digits: int = 4) -> str:
    """The mean; for several numbers also the lowest and the highest."""
    if not numbers:
        return ""
    mean = f"{statistics.mean(numbers):,.{digits}f}"
    if len(numbers) == 1 or min(numbers) == max(numbers):
        return mean
    return f"{mean} ({min(numbers):,.{digits}f} to {max(numbers):,.{digits}f})"


def metric_names(runs: Sequence[Run], split: str, first: str) -> list[str]:
    """The metrics of a split that any run has, as `<split>/<name>`, with `first` in front.

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
    """The runs that have a metric, and the folders of those that do not."""
    found = [run for run in runs if run.metrics.get(metric) is not None]
    return found, [run.folder for run in runs if run.metrics.get(metric) is None]


def ordered(found: Sequence[Configuration], metric: str) -> list[Configuration]:
    """The configurations sorted by the mean of a metric that all runs have, the best first."""
    return sorted(found, key=lambda each: -goodness(statistics.mean(each.numbers(metric)), metric))


def configuration_rows(found: Sequence[Configuration], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header, and one row per configuration: settings, number of runs, first metric, cost, other metrics."""
    header = [*(found[0].values or ["configuration"]), "runs", names[0], "seconds", "parameters", *names[1:]]
    rows = []
    for each in found:
        cost = [summary(each.numbers(key), 0) for key in ("seconds", "parameters")]
        first, *others = (summary(each.numbers(name)) for name in names)
        rows.append([*(each.values.values() or ["all"]), str(len(each.runs)), first, *cost, *others])
    return header, rows


def run_rows(found: Sequence[Configuration], names: Sequence[str], over: str) -> list[list[Any]]:
    """The header, then one row per run; nothing is rounded."""
    columns = [names[0], "seconds", "parameters", *names[1:]]
    rows: list[list[Any]] = [["run", *found[0].values, over, *columns]]
    for each in found:
        for run in each.runs:
            numbers = [run.metrics.get(key) for key in columns]
            rows.append([str(run.folder), *each.values.values(), run.settings.get(over), *numbers])
    return rows
