"""Thresholds of labels."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from headstart.metrics.intervals import _average_precisions
from headstart.metrics.thresholds import FEWEST, best_thresholds, moved, rescaled


def drawn(samples: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that are too low for the labels that they should show, some of them equal."""
    random = np.random.default_rng(seed)
    truth = random.random((samples, 3)) < [0.5, 0.2, 0.1]
    noise = random.random((samples, 3))
    probabilities = np.round(0.3 * truth + 0.4 * noise, 2)
    return torch.from_numpy(probabilities).float(), torch.from_numpy(truth).long()


def test_no_other_threshold_has_a_higher_f1():
    probabilities, truth = drawn()
    for label, threshold in enumerate(best_thresholds(probabilities, truth)):
        p, t = probabilities[:, label].numpy(), truth[:, label].numpy()
        best = max(f1_score(t, p > other, zero_division=0) for other in np.arange(-0.005, 1, 0.01))
        assert f1_score(t, p > threshold) == pytest.approx(best)
        assert f1_score(t, p > threshold) > f1_score(t, p > 0.5) + 0.05


def test_few_samples_choose_nothing():
    probabilities, truth = drawn(60)
    truth[:, 1] = 0
    truth[: FEWEST - 1, 1] = 1
    truth[:, 2] = 1
    assert best_thresholds(probabilities, truth)[1:] == [0.5, 0.5]


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_counts():
    """Both cuts, below the first and below the second group of positives, have an F1 of 2/3."""
    values = [0.9] * 20 + [0.7] * 20 + [0.3] * 10 + [0.1] * 50
    truth = [1] * 10 + [0] * 10 + [0] * 10 + [1] * 10 + [0] * 10 + [0] * 50
    found = best_thresholds(torch.tensor(values)[:, None], torch.tensor(truth)[:, None])
    assert found == [pytest.approx(0.5)]


def test_moved_probabilities_have_the_threshold_at_one_half_and_keep_their_order():
    probabilities = torch.linspace(0, 1, 11)[:, None].repeat(1, 2)
    found = moved(probabilities, torch.tensor([0.25, 0.5]))
    assert ((found > 0.5) == (probabilities > torch.tensor([0.25, 0.5]))).all()
    assert (found.diff(dim=0) > 0).all()
    torch.testing.assert_close(found[:, 1], probabilities[:, 1])


def test_probabilities_that_differ_in_the_last_bit_are_told_apart():
    below = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    probabilities, truth = torch.tensor([[1.0]] * 20 + [[below]] * 20), torch.tensor([[1]] * 20 + [[0]] * 20)
    found = torch.tensor(best_thresholds(probabilities, truth))
    assert ((probabilities > found) == truth.bool()).all()
    assert ((moved(probabilities, found) > 0.5) == truth.bool()).all()
    assert moved(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0])).tolist() == [[0.0], [1.0]]


def test_rescaled_thresholds_decide_as_before():
    logits = torch.linspace(-4, 4, 81)
    decided = logits.sigmoid() > 0.2
    (moved_threshold,) = rescaled([0.2], 1 / 3)
    assert ((logits / 3).sigmoid().gt(moved_threshold) == decided).all()


def test_average_precisions_are_those_of_scikit_learn():
    probabilities, truth = drawn()
    counts = torch.randint(0, 3, (len(truth), 4), generator=torch.Generator().manual_seed(0)).float()
    found = _average_precisions(probabilities, truth, counts)
    for draw in range(4):
        times = counts[:, draw].long()
        for label in range(3):
            p, t = (x[:, label].repeat_interleave(times).numpy() for x in (probabilities, truth))
            assert found[label, draw].item() == pytest.approx(average_precision_score(t, p), abs=1e-6)
    assert _average_precisions(probabilities, torch.ones_like(truth), counts).isnan().all()
