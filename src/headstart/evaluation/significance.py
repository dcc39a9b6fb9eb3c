"""Which differences between runs are more than chance."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.errors import UsageError
from headstart.evaluation.compare import Answers, Configuration

DRAWS = 2000
MOST_PAIRS = 100
CLAIMED = 0.05


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


def pair_tests(found: Sequence[Configuration], split: str, over: str, seed: int = 0) -> tuple[list[PairTest], int]:
    """Every two runs of different configurations and the same seed: tests of those that have answered the same samples,
    and how many pairs have not.

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
    tests = _holm([_tested(*both, seed) for both in of_both if _same_samples(*both[2:])])
    return tests, len(pairs) - len(tests)


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


def claims(tests: Sequence[PairTest], untested: int, split: str) -> dict[str, Any]:
    """What may be concluded: `header` and `rows` of the pairs, and a `note` in words.

    Args:
        tests: of the pairs that could be tested.
        untested: how many could not.
        split: what was answered.
    """
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
    remedy = f"For that: python src/evaluate.py run=<run> split={split} for each of them."
    if not tests and not untested:
        note = "Nothing is claimed: no two configurations have a run of the same seed."
    elif not tests:
        note = f"Nothing is claimed: no two runs have predictions of the same samples of {split}. {remedy}"
    elif untested:
        note += f" Nothing is claimed of {untested} more pairs: they have no predictions of the same samples. {remedy}"
    return {"header": header, "rows": rows, "note": note}
