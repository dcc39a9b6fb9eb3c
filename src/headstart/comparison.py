"""Runs side by side: what they differ in, what came out, and which differences are more than chance."""

import csv
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from headstart.errors import UsageError, nearest

WATCHERS = ("best_checkpoint", "last_checkpoint", "interruption", "learning_rate", "learning_table", "progress_bar",
            "dashboard", "curves")  # fmt: skip
APART = ("paths.", "name.", "resume.", "report.", "logger.", *(f"callbacks.{name}." for name in WATCHERS))
"""Parts of a config that say where and how a run is kept and watched, not what it is; other callbacks do change it."""
KIND = "._target_"
METRICS = ("acc", "acc_macro", "acc_exact", "f1_macro", "auroc_macro", "ece", "loss")
LOWER_IS_BETTER = ("/ece", "/loss")
DRAWS = 2000
MOST_PAIRS = 100
CLAIMED = 0.05
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


@dataclass(frozen=True)
class PairTest:
    """Two runs on the same samples.

    Attributes:
        first, second: what they are.
        samples: how many both have answered.
        only_first, only_second: samples that one alone got right.
        difference: of accuracies, the first's less the second's.
        low, high: its 95 % interval, by a paired bootstrap.
        p: of McNemar's exact test.
        adjusted: the same after Holm's correction for all pairs that were tested.
    """

    first: str
    second: str
    samples: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float
    adjusted: float = 1.0

    @property
    def verdict(self) -> str:
        """What is claimed."""
        if self.adjusted >= CLAIMED:
            return "cannot be told apart"
        return "the first is better" if self.difference > 0 else "the second is better"


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


def pair_tests(found: Sequence[Configuration], split: str, over: str, seed: int = 0) -> list[PairTest]:
    """Every two runs of different configurations and the same seed that have answered the same samples.

    Raises:
        UsageError: there are more pairs than one can look through.
    """
    pairs = []
    for one, other in itertools.combinations(found, 2):
        for first, second in itertools.product(one.runs, other.runs):
            if first.settings.get(over) == second.settings.get(over):
                same = f" ({over}={first.settings.get(over)})" if len(one.runs) + len(other.runs) > 2 else ""
                pairs.append((one.title + same, other.title + same, first, second))
    if len(pairs) > MOST_PAIRS:
        raise UsageError(
            f"{len(pairs)} pairs of runs are too many to tell apart, at most {MOST_PAIRS}: give fewer runs"
        )
    answers = {run.folder: run.right(split) for each in found for run in each.runs}
    of_both = [(*names, answers[first.folder], answers[second.folder]) for *names, first, second in pairs]
    return _holm([_tested(*both, seed) for both in of_both if _same_samples(*both[2:])])


def _same_samples(one: Answers | None, two: Answers | None) -> bool:
    """Whether both have answered, and the same samples with the same labels."""
    return bool(one and two) and {k: true for k, (true, _) in one.items()} == {k: true for k, (true, _) in two.items()}


def _tested(name: str, other: str, one: Answers, two: Answers, seed: int) -> PairTest:
    from scipy.stats import binomtest

    only_first = sum(right and not two[key][1] for key, (_, right) in one.items())
    only_second = sum(right and not one[key][1] for key, (_, right) in two.items())
    differing, samples = only_first + only_second, len(one)
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    low, high = _paired_interval(only_first, only_second, samples, seed)
    return PairTest(name, other, samples, only_first, only_second, (only_first - only_second) / samples, low, high, p)


def _paired_interval(only_first: int, only_second: int, samples: int, seed: int) -> tuple[float, float]:
    """95 % of the bootstrap's means of samples drawn anew (Efron and Tibshirani 1993, chapter 13).

    A sample's difference is 1, -1 or 0, so that a draw is no more than how often it has each.
    """
    shares = np.array([only_first, only_second, samples - only_first - only_second]) / samples
    drawn = np.random.default_rng(seed).multinomial(samples, shares, size=DRAWS)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / samples, (0.025, 0.975))
    return float(low), float(high)


def _holm(tests: list[PairTest]) -> list[PairTest]:
    """With the p that holds for all of them together (Holm 1979), in the order given."""
    order = sorted(range(len(tests)), key=lambda place: tests[place].p)
    adjusted, highest = {}, 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(tests) - rank) * tests[place].p))
        adjusted[place] = highest
    return [replace(test, adjusted=adjusted[place]) for place, test in enumerate(tests)]


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
    sign = 1 if metric.endswith(LOWER_IS_BETTER) else -1
    return sorted(found, key=lambda each: sign * statistics.mean(each.numbers(metric)))


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


def claims(tests: Sequence[PairTest], split: str) -> dict[str, Any]:
    """What may be concluded: `header` and `rows` of the pairs, and a `note` in words."""
    header = ["first", "second", "verdict", "samples", "first alone right", "second alone right", "difference", "p",
              "p after Holm"]  # fmt: skip
    rows = [
        [test.first, test.second, test.verdict, f"{test.samples:,}", str(test.only_first), str(test.only_second),
         f"{test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f})", f"{test.p:.3g}", f"{test.adjusted:.3g}"]
        for test in tests
    ]  # fmt: skip
    note = (
        f"{len(tests)} pairs of runs on the same samples of {split}: difference of accuracies with a 95 % paired "
        "bootstrap interval, McNemar's exact test, p below 0.05 after Holm's correction. It is about these trained "
        "networks: another seed of the same method is another network."
    )
    if not tests:
        note = (
            f"Nothing is claimed: no two runs have predictions of the same samples of {split}. For that: "
            f"python src/evaluate.py run=<run> split={split} for each of them."
        )
    return {"header": header, "rows": rows, "note": note}
