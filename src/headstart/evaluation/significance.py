"""Tests which differences between runs are significant."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.errors import UsageError, counted
from headstart.evaluation.compare import Configuration
from headstart.runs.evaluations import Answers

DRAWS = 2000
"""Number of bootstrap samples."""
MOST_PAIRS = 100
"""Largest number of tested pairs; more are too many to read."""
LEVEL = 0.05
"""Significance level: a difference counts if p is below it."""


@dataclass(frozen=True)
class PairTest:
    """Two runs on the same samples.

    Attributes:
        first, second: titles of the runs.
        samples: number of samples that both have predicted.
        only_first, only_second: number of samples that only the first, only the second run predicted right. For numbers
            the samples on which it is closer than the other.
        difference: accuracy of the first run minus accuracy of the second. For numbers the mean absolute error of the
            second minus that of the first, in standard deviations of the true numbers.
        low, high: 95 % interval of the difference, by a paired bootstrap.
        p: p value of McNemar's exact test; for numbers of a permutation test, which swaps the two runs at random for
            each sample (Fisher 1935, "The Design of Experiments", section 21).
        adjusted: the p value after Holm's correction for all tested pairs.
        numbers: whether the runs predict numbers.
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
    numbers: bool = False

    @property
    def verdict(self) -> str:
        """The conclusion in words."""
        if self.adjusted >= LEVEL:
            return "no significant difference"
        return "the first is better" if self.difference > 0 else "the second is better"


def pair_tests(found: Sequence[Configuration], split: str, over: str, seed: int = 0) -> tuple[list[PairTest], int]:
    """Tests every two runs of different configurations and the same seed.

    Args:
        found: the configurations.
        split: the split whose predictions are compared.
        over: the seed's setting.
        seed: of the bootstrap.

    Returns:
        the tests of the pairs with predictions of the same samples, and the number of the other pairs.

    Raises:
        UsageError: there are more than `MOST_PAIRS` pairs.
    """
    pairs = []
    for one, other in itertools.combinations(found, 2):
        for first, second in itertools.product(one.runs, other.runs):
            if first.settings.get(over) == second.settings.get(over):
                same = f" ({over}={first.settings.get(over)})" if len(one.runs) + len(other.runs) > 2 else ""
                pairs.append((one.title + same, other.title + same, first, second))
    if len(pairs) > MOST_PAIRS:
        raise UsageError(f"{len(pairs)} pairs of runs are too many to test, at most {MOST_PAIRS}: give fewer runs")
    answers = {run.folder: run.predictions(split) for each in found for run in each.runs}
    of_both = [(*names, answers[first.folder], answers[second.folder]) for *names, first, second in pairs]
    tests = _holm([_tested(*both, seed) for both in of_both if _same_samples(*both[2:])])
    return tests, len(pairs) - len(tests)


def _same_samples(one: Answers | None, two: Answers | None) -> bool:
    """Whether both have predictions, of the same samples with the same labels."""
    return bool(one and two) and {k: true for k, (true, _) in one.items()} == {k: true for k, (true, _) in two.items()}


def _tested(name: str, other: str, one: Answers, two: Answers, seed: int) -> PairTest:
    if not isinstance(next(iter(one.values()))[1], bool):
        return _tested_numbers(name, other, one, two, seed)
    from scipy.stats import binomtest

    only_first = sum(right and not two[key][1] for key, (_, right) in one.items())
    only_second = sum(right and not one[key][1] for key, (_, right) in two.items())
    differing, samples = only_first + only_second, len(one)
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    low, high = _paired_interval(only_first, only_second, samples, seed)
    return PairTest(name, other, samples, only_first, only_second, (only_first - only_second) / samples, low, high, p)


def _paired_interval(only_first: int, only_second: int, samples: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean difference by a bootstrap over samples (Efron and Tibshirani 1993, chapter 13).

    The difference of a sample is 1, -1 or 0, so a draw of samples is a draw of three counts.
    """
    shares = np.array([only_first, only_second, samples - only_first - only_second]) / samples
    drawn = np.random.default_rng(seed).multinomial(samples, shares, size=DRAWS)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / samples, (0.025, 0.975))
    return float(low), float(high)


def _tested_numbers(name: str, other: str, one: Answers, two: Answers, seed: int) -> PairTest:
    errors, others = _errors(one, list(one)), _errors(two, list(one))
    gains, random = others - errors, np.random.default_rng(seed)
    mean, samples = gains.mean(), len(gains)
    drawn = [gains[random.integers(samples, size=samples)].mean() for _ in range(DRAWS)]
    swapped = [(gains * random.choice((-1, 1), size=samples)).mean() for _ in range(DRAWS)]
    p = (1 + np.sum(np.abs(swapped) >= abs(mean) * (1 - 1e-9))) / (1 + DRAWS)
    low, high = np.quantile(drawn, (0.025, 0.975))
    closer = int((gains > 0).sum()), int((gains < 0).sum())
    values = (float(value) for value in (mean, low, high, p))
    return PairTest(name, other, samples, *closer, *values, numbers=True)


def _errors(answers: Answers, order: Sequence[str]) -> np.ndarray:
    """The absolute error of each sample `(samples,)`, a mean over its numbers, in standard deviations of these."""
    true = np.array([[float(number) for number in answers[path][0].split("|")] for path in order])
    predicted = np.array([answers[path][1] for path in order])
    spread = true.std(axis=0)
    return (np.abs(predicted - true) / np.where(spread > 0, spread, 1)).mean(axis=1)


def _holm(tests: list[PairTest]) -> list[PairTest]:
    """Adds the p values corrected for the number of tests (Holm 1979); the order stays."""
    order = sorted(range(len(tests)), key=lambda place: tests[place].p)
    adjusted, highest = {}, 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(tests) - rank) * tests[place].p))
        adjusted[place] = highest
    return [replace(test, adjusted=adjusted[place]) for place, test in enumerate(tests)]


def claims(tests: Sequence[PairTest], untested: int, split: str) -> dict[str, Any]:
    """The conclusions: `header` and `rows` of the pairs, and a `note` in words.

    Args:
        tests: of the pairs that could be tested.
        untested: number of pairs that could not be tested.
        split: the split that was evaluated.
    """
    numbers = any(test.numbers for test in tests)
    columns = ["first closer", "second closer"] if numbers else ["only first right", "only second right"]
    header = ["first", "second", "verdict", "samples", *columns, "difference", "p", "p after Holm"]
    rows = [
        [test.first, test.second, test.verdict, f"{test.samples:,}", str(test.only_first), str(test.only_second),
         f"{test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f})", f"{test.p:.3g}", f"{test.adjusted:.3g}"]
        for test in tests
    ]  # fmt: skip
    what, test = "difference of accuracies", "McNemar's exact test"
    if numbers:
        what = "difference of mean absolute errors, in standard deviations of the true numbers (above 0: first better),"
        test = "a permutation test"
    pairs, others = counted(len(tests), "pair"), counted(untested, "more pair")
    note = (
        f"{pairs} of runs on the same samples of {split}: {what} with a 95 % paired bootstrap interval, {test}, "
        "p below 0.05 after Holm's correction. The result is about these trained networks: with another seed, "
        "the same method gives another network."
    )
    remedy = f"To test them: python src/evaluate.py run=<run> split={split} for each run."
    if not tests and not untested:
        note = "Nothing is claimed: no two configurations have a run of the same seed."
    elif not tests:
        note = f"Nothing is claimed: no two runs have predictions of the same samples of {split}. {remedy}"
    elif untested:
        note += f" Nothing is claimed about {others}: there are no predictions of the same samples. {remedy}"
    return {"header": header, "rows": rows, "note": note}
