"""The computed head against scikit-learn's, and how it chooses."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from headstart.heads.logistic_regression import (
    DEFAULT_PENALTY,
    MAX_SAMPLES_FOR_ALL_FOLDS,
    PENALTIES,
    _effective_samples,
    _folds,
    out_of_fold,
    solve,
)
from headstart.tasks.objectives import MultiLabel, OneSigmoid, Softmax


def blobs(samples, features, classes, noise=1.0, seed=0):
    """Features around a centre a class, `(samples, features)`, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, features, generator=generator)
    targets = torch.arange(samples) % classes
    return 5 + 3 * (centres[targets] + noise * torch.randn(samples, features, generator=generator)), targets


@pytest.mark.parametrize(("samples", "features"), [(90, 12), (40, 100)])
def test_the_optimum_is_scikit_learns(samples, features):
    inputs, targets = blobs(samples, features, 3, noise=2.0)
    solution = solve(inputs, targets, functional.cross_entropy, 3)
    centred = inputs - inputs.mean(dim=0)
    scaled = (centred / centred.square().sum(dim=1).mean().sqrt()).double().numpy()
    reference = LogisticRegression(C=1 / (samples * solution.penalty), tol=1e-10, max_iter=10_000).fit(scaled, targets)
    expected = torch.from_numpy(reference.decision_function(scaled))
    ours = (inputs @ solution.weight.T + solution.bias).double()
    ours, expected = (logits - logits.mean(dim=1, keepdim=True) for logits in (ours, expected))
    factor = (ours * expected).sum() / expected.square().sum()  # the temperature
    assert (ours - factor * expected).norm() < 1e-2 * ours.norm()  # of fp32, near a flat optimum


def test_the_penalty_is_the_one_that_held_out_samples_like():
    inputs, targets = blobs(200, 50, 4, noise=4.0)
    solution = solve(inputs, targets, functional.cross_entropy, 4)
    assert solution.losses[solution.penalty] == min(solution.losses.values())
    assert len(solution.losses) < len(PENALTIES), "weak penalties that are worse and worse were tried"


def test_the_logits_have_the_right_temperature():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(4000, 20, generator=generator)
    targets = (inputs[:, 0] * 1.5 + torch.randn(4000, generator=generator) > 0).long()
    solution = solve(inputs[:400], targets[:400], functional.cross_entropy, 2)
    logits = inputs[400:] @ solution.weight.T + solution.bias
    losses = [functional.cross_entropy(factor * logits, targets[400:]) for factor in (0.5, 1.0, 2.0)]
    assert losses[1] < min(losses[0], losses[2])


@pytest.mark.parametrize("samples", [4, 10, 100])
def test_few_samples_without_a_mistake_leave_a_doubt(samples):
    """Of n right ones the next is right with probability (n + 1) / (n + 2); a head that is sure could not learn on."""
    inputs, targets = blobs(samples, 100, 2, noise=0.1)
    solution = solve(inputs, targets, functional.cross_entropy, 2)
    logits, truth = solution.held_out
    assert (logits.argmax(dim=1) == truth).all()
    expected = 1 - 1 / (samples + 2)
    assert logits.softmax(dim=1).amax(dim=1).mean().item() == pytest.approx(expected, abs=0.6 * (1 - expected))


def test_every_objective():
    inputs, targets = blobs(120, 8, 2)
    solution = solve(inputs, targets, OneSigmoid(2).loss, 1)
    right = ((inputs @ solution.weight.T + solution.bias)[:, 0] > 0) == (targets == 1)
    assert solution.weight.shape == (1, 8)
    assert right.float().mean() > 0.9
    labels = torch.stack([targets, 1 - targets, (inputs[:, 0] > 5).long()], dim=1)
    solution = solve(inputs, labels, MultiLabel(3).loss, 3)
    right = ((inputs @ solution.weight.T + solution.bias) > 0) == (labels == 1)
    assert right.float().mean() > 0.9


def test_class_weights_move_the_border():
    inputs, targets = blobs(300, 4, 2, noise=3.0)
    kept = (targets == 0) | (torch.arange(300) % 20 == 1)
    inputs, targets = inputs[kept], targets[kept]
    plain = solve(inputs, targets, Softmax(2).loss, 2)
    weighted = solve(inputs, targets, Softmax(2, class_weights=[0.2, 4.0]).loss, 2)
    rare = [((inputs @ s.weight.T + s.bias).argmax(dim=1) == 1).sum() for s in (plain, weighted)]
    assert rare[1] > rare[0]


def test_one_sample_of_a_class_leaves_nothing_to_choose_by():
    inputs, _ = blobs(5, 30, 5)
    solution = solve(inputs, torch.arange(5), functional.cross_entropy, 5)
    assert (solution.penalty, solution.losses) == (DEFAULT_PENALTY, {})
    assert ((inputs @ solution.weight.T + solution.bias).argmax(dim=1) == torch.arange(5)).all()


def test_equal_features_give_equal_odds():
    solution = solve(torch.ones(6, 3), torch.tensor([0, 1] * 3), functional.cross_entropy, 2)
    logits = torch.ones(1, 3) @ solution.weight.T + solution.bias
    assert torch.allclose(logits.softmax(dim=1), torch.full((1, 2), 0.5), atol=1e-4)


def test_a_class_of_one_sample_takes_nothing_from_the_others():
    inputs, targets = blobs(200, 20, 5, noise=0.1)
    rare, _ = blobs(6, 20, 6)
    with_rare = solve(
        torch.cat([inputs, rare[5:]]), torch.cat([targets, torch.tensor([5])]), functional.cross_entropy, 6
    )
    assert len(with_rare.losses) > 1
    losses = []
    for solution in (solve(inputs, targets, functional.cross_entropy, 5), with_rare):
        losses.append(functional.cross_entropy(inputs @ solution.weight.T + solution.bias, targets).item())
    assert losses[1] < 3 * losses[0]
    cuts = _folds(torch.tensor([0] * 10 + [1] * 2 + [2] * 5 + [3] * 5 + [4]), seed=0)
    assert len(cuts) == 5
    assert all(22 in kept for kept, _ in cuts)
    assert sorted(torch.cat([held for _, held in cuts]).tolist()) == list(range(22))


@pytest.mark.parametrize("sizes", [[1, 20], [1, 1, 1, 5], [1] * 9 + [2], [1, 1, 10, 10]], ids=str)
def test_many_classes_of_one_sample_are_learned_all_the_same(sizes):
    inputs, targets = blobs(200 * len(sizes), 60, len(sizes), noise=0.5)
    kept = torch.cat([(targets == label).nonzero()[:size, 0] for label, size in enumerate(sizes)])
    solution = solve(inputs[kept], targets[kept], functional.cross_entropy, len(sizes))
    right = ((inputs @ solution.weight.T + solution.bias).argmax(dim=1) == targets).float().mean()
    assert right > 0.8


@pytest.mark.parametrize(("weights", "expected"), [(None, 205), ([0.001, 0.2], 20)])
def test_rare_classes_that_weigh_more_are_fewer_samples(weights, expected):
    targets = torch.tensor([0] * 200 + [1] * 5) if weights is None else torch.tensor([0] * 1000 + [1] * 5)
    loss = Softmax(2, class_weights=weights).loss
    assert _effective_samples(torch.zeros(len(targets), 2), targets, loss) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("samples", "folds"), [(20, 5), (6, 3), (2, 0), (MAX_SAMPLES_FOR_ALL_FOLDS + 2, 1)])
def test_folds(samples, folds):
    cuts = _folds(torch.arange(samples) % 2, seed=0)
    assert len(cuts) == folds
    for kept, held in cuts:
        assert sorted(torch.cat([kept, held]).tolist()) == list(range(samples))


@pytest.mark.parametrize("samples", [120, 5100], ids=["few", "many"])
def test_out_of_fold_logits_know_nothing_of_their_own_label(samples):
    """Labels at random, more features than they need to be learned by heart: whoever knows them is right."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(samples, 20, generator=random)
    targets = torch.randint(0, 2, (samples,), generator=random)
    features[:, 0] += targets * (samples > 1000)  # where there is something to learn, it is learned
    logits = out_of_fold(features, targets, functional.cross_entropy, 2)
    right = (logits.argmax(dim=1) == targets).float().mean()
    assert (right > 0.6) == (samples > 1000)
    assert logits.abs().sum(dim=1).min() > 0  # of every sample


def test_out_of_fold_needs_two_of_each_class():
    assert out_of_fold(torch.randn(3, 2), torch.tensor([0, 0, 1]), functional.cross_entropy, 2) is None
