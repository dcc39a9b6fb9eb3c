"""Intervals, against known cases and against the metrics they are of."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from headstart.metrics import intervals as bootstrap
from headstart.metrics.intervals import (
    bootstrap_intervals,
    describe_no_mistake,
    f1_intervals,
    resampled_metric,
    statistics_of,
)
from headstart.metrics.predictions import Predictions
from headstart.tasks.objectives import CALIBRATION_BINS, MultiLabel, OneSigmoid, Softmax


def predictions(probabilities, targets, multi_label=False):
    classes = [f"class {c}" for c in range(probabilities.shape[1])]
    return Predictions([str(i) for i in range(len(targets))], classes, targets, probabilities, multi_label)


def statistics(found):
    return statistics_of(found, torch.zeros(len(found)), torch.ones(len(found)), CALIBRATION_BINS)


@pytest.mark.parametrize(("samples", "right"), [(400, 320), (2000, 1255)])
def test_the_interval_of_the_accuracy_is_the_normal_and_the_wilson_one(samples, right):
    """Of a mean of zeros and ones the bootstrap's distribution is known: binomial."""
    targets = torch.zeros(samples, dtype=torch.long)
    probabilities = torch.tensor([[0.9, 0.1]] * right + [[0.2, 0.8]] * (samples - right))
    low, high = bootstrap_intervals({"acc": statistics(predictions(probabilities, targets))["acc"]}, samples)["acc"]
    p, z = right / samples, 1.959964
    half = z * math.sqrt(p * (1 - p) / samples)
    assert (low, high) == pytest.approx((p - half, p + half), abs=0.15 * half)
    # Wilson 1927
    centre = (p + z**2 / 2 / samples) / (1 + z**2 / samples)
    half = z * math.sqrt(p * (1 - p) / samples + z**2 / 4 / samples**2) / (1 + z**2 / samples)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=0.15 * half)


def test_nine_in_ten_intervals_hold_the_truth():
    """What a 95 % interval promises, within what sixty trials can tell."""
    random = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(60):
        right = torch.rand(150, generator=random) < 0.8
        probabilities = torch.stack([right * 0.8 + 0.1, 0.9 - right * 0.8], dim=1)
        found = predictions(probabilities, torch.zeros(150, dtype=torch.long))
        low, high = bootstrap_intervals({"acc": statistics(found)["acc"]}, 150, seed)["acc"]
        held += low <= 0.8 <= high
    assert 52 <= held < 60


SHARES = torch.tensor([0.3, 0, 1, 0.5])
CASES = {
    "softmax": (Softmax(5), lambda n, g: torch.randint(0, 5, (n,), generator=g)),
    "an absent class": (Softmax(5), lambda n, g: torch.randint(0, 4, (n,), generator=g)),
    "one sigmoid": (OneSigmoid(2), lambda n, g: torch.randint(0, 2, (n,), generator=g)),
    "labels": (MultiLabel(4), lambda n, g: (torch.rand(n, 4, generator=g) < 0.3).long()),
    "an absent label": (MultiLabel(4), lambda n, g: (torch.rand(n, 4, generator=g) < SHARES).long()),
}


@pytest.mark.parametrize("few", [0, 1000], ids=["by sorting", "by pairs"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:.*samples in targets.*")
def test_each_sample_once_gives_the_metrics_of_training(name, few, monkeypatch):
    monkeypatch.setattr(bootstrap, "MAX_POSITIVES_FOR_PAIRS", few)
    objective, draw = CASES[name]
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(300, objective.num_outputs, generator=random).round(decimals=1)  # with ties
    targets = draw(300, random)
    probabilities = objective.probabilities(logits)
    expected = objective.evaluation_metrics()(probabilities, targets)
    found = statistics(predictions(probabilities, targets, objective.multi_label))
    assert found.keys() == {"loss", *expected}
    once = torch.ones(300, 1)
    assert {key: found[key](once).item() for key in expected} == pytest.approx(
        {key: value.item() for key, value in expected.items()}, abs=1e-5
    )


@pytest.mark.parametrize("few", [0, 1000], ids=["by sorting", "by pairs"])
def test_areas_count_a_sample_as_often_as_it_is_drawn(few, monkeypatch):
    monkeypatch.setattr(bootstrap, "MAX_POSITIVES_FOR_PAIRS", few)
    random = torch.Generator().manual_seed(2)
    scores = torch.rand(80, 3, generator=random).round(decimals=1)
    targets = torch.randint(0, 3, (80,), generator=random)
    counts = torch.randint(0, 4, (80, 5), generator=random).float()
    areas = statistics(predictions(scores, targets))["auroc_macro"](counts)
    for draw in range(5):
        expected = [roc_auc_score(targets == c, scores[:, c], sample_weight=counts[:, draw]) for c in range(3)]
        assert areas[draw].item() == pytest.approx(sum(expected) / 3, abs=1e-5)


def test_any_metric_has_an_interval_by_resampling_it():
    """Slowly: the fast functions give the same for the metrics that they know."""
    random = torch.Generator().manual_seed(4)
    probabilities = torch.rand(60, 3, generator=random).softmax(dim=1)
    targets = torch.randint(0, 3, (60,), generator=random)
    counts = torch.randint(0, 4, (60, 7), generator=random).float()
    known, metrics = statistics(predictions(probabilities, targets)), Softmax(3).evaluation_metrics()
    for name in ("acc_macro", "f1_macro", "auroc_macro", "ece"):
        slow = resampled_metric(metrics[name], probabilities, targets)(counts)
        assert slow.tolist() == pytest.approx(known[name](counts).tolist(), abs=1e-5), name


def test_draws_in_pieces_are_as_good_and_a_seed_repeats_them(monkeypatch):
    random = torch.Generator().manual_seed(3)
    found = statistics(predictions(torch.rand(100, 3, generator=random), torch.randint(0, 3, (100,), generator=random)))
    whole = bootstrap_intervals(found, 100, seed=5)
    assert bootstrap_intervals(found, 100, seed=5) == whole
    monkeypatch.setattr(bootstrap, "MAX_COUNTS_IN_MEMORY", 1500)
    pieces = bootstrap_intervals(found, 100, seed=5)
    for name in ("acc", "f1_macro", "auroc_macro"):
        assert pieces[name] == pytest.approx(whole[name], abs=0.03)


def test_a_single_sample_has_no_width_and_no_area():
    limits = bootstrap_intervals(statistics(predictions(torch.tensor([[0.3, 0.7]]), torch.tensor([1]))), 1)
    assert limits["acc"] == (1, 1)
    assert limits["ece"] == pytest.approx((0.3, 0.3))
    assert all(math.isnan(end) for end in limits["auroc_macro"])


@pytest.mark.parametrize("samples", [1, 120])
def test_what_no_mistake_proves(samples):
    exact = binomtest(samples, samples).proportion_ci(0.95, method="exact").low
    assert f"as low as {exact:.3f} " in describe_no_mistake(samples)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_interval_of_the_f1_of_a_class_is_that_of_samples_drawn_anew(multi_label):
    random = torch.Generator().manual_seed(0)
    probabilities = torch.rand(40, 3, generator=random)
    if multi_label:
        targets = (torch.rand(40, 3, generator=random) < torch.tensor([0.5, 0.2, 0.02])).long()
    else:
        probabilities /= probabilities.sum(dim=1, keepdim=True)
        targets = torch.randint(0, 3, (40,), generator=random)
    found = predictions(probabilities, targets, multi_label)
    answer = found.answer if multi_label else found.predicted
    drawn = []
    for counts in bootstrap._draws(40, 0):
        for places in (torch.arange(40).repeat_interleave(column.long()) for column in counts.T):
            drawn.append(f1_score(targets[places], answer[places], labels=range(3), average=None, zero_division=np.nan))
    expected = np.nanquantile(drawn, [0.025, 0.975], axis=0).T
    assert np.allclose(f1_intervals(found), expected, atol=1e-6)


def test_a_class_that_is_never_seen_has_no_interval():
    found = predictions(torch.tensor([[0.2, 0.7, 0.1]] * 4), torch.tensor([0, 0, 1, 1]))
    assert [math.isnan(low) for low, _ in f1_intervals(found)] == [False, False, True]
