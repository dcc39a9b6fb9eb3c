import math

import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from headstart.errors import UsageError
from headstart.tasks.objectives import MultiLabel, OneSigmoid, Softmax


def test_softmax_loss_against_closed_form():
    logits, targets = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), torch.tensor([0, 0])
    expected = (math.log(2) - math.log(3 / 4)) / 2
    assert Softmax(2).loss(logits, targets).item() == pytest.approx(expected)


def test_class_weights_weigh_the_samples_of_a_class():
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    each = functional.cross_entropy(logits, targets, reduction="none")
    weight = torch.tensor([1.0, 2.0, 3.0])[targets]
    expected = (weight * each).sum() / weight.sum()
    assert Softmax(3, [1.0, 2.0, 3.0]).loss(logits, targets).item() == pytest.approx(expected.item())


def test_label_smoothing_spreads_the_target():
    logits, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    soft = functional.one_hot(targets, 4) * 0.9 + 0.1 / 4
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert Softmax(4, label_smoothing=0.1).loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(UsageError, match="label_smoothing=1"):
        Softmax(4, label_smoothing=1.0)


def test_one_sigmoid_unit_equals_two_softmax_units():
    """A logit z for the second class is the softmax over (0, z)."""
    logits, targets = torch.randn(8, 1), torch.tensor([0, 1] * 4)
    two = torch.cat([torch.zeros(8, 1), logits], dim=1)
    for weights in (None, [1.0, 5.0]):
        ours = OneSigmoid(2, weights).loss(logits, targets)
        assert ours.item() == pytest.approx(Softmax(2, weights).loss(two, targets).item(), rel=1e-5)
    torch.testing.assert_close(OneSigmoid(2).probabilities(logits), two.softmax(1))


def test_one_sigmoid_unit_survives_a_batch_of_one():
    assert OneSigmoid(2).loss(torch.zeros(1, 1), torch.tensor([1])).item() == pytest.approx(math.log(2))


def test_one_sigmoid_unit_needs_two_classes():
    with pytest.raises(UsageError, match="the data has 10: use task=classification"):
        OneSigmoid(10)


def test_multi_label_is_a_sigmoid_each():
    logits, targets = torch.randn(8, 3), torch.randint(0, 2, (8, 3))
    expected = functional.binary_cross_entropy(logits.sigmoid(), targets.float())
    assert MultiLabel(3).loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-5)
    assert MultiLabel(3).num_outputs == 3


def test_averages_are_what_their_names_say():
    """Nine of class 0, one of class 1, everything called 0: micro 0.9, macro 0.5."""
    probabilities = torch.tensor([[0.9, 0.1]] * 10)
    targets = torch.tensor([0] * 9 + [1])
    metrics = Softmax(2).evaluation_metrics()
    metrics.update(probabilities, targets)
    result = {name: value.item() for name, value in metrics.compute().items()}
    assert result["acc"] == pytest.approx(0.9)
    assert result["acc_macro"] == pytest.approx(0.5)
    assert result["f1_macro"] == pytest.approx((18 / 19 + 0) / 2)
    assert result["auroc_macro"] == pytest.approx(0.5)
    assert result["ece"] == pytest.approx(0.0, abs=1e-6)  # sure to 0.9, right in 0.9


@pytest.mark.parametrize("objective", [Softmax(2), MultiLabel(2)])
def test_an_area_that_is_not_defined_is_no_number(objective):
    metrics = objective.evaluation_metrics()
    targets = torch.zeros(4, dtype=torch.long) if isinstance(objective, Softmax) else torch.zeros(4, 2).long()
    metrics.update(torch.tensor([[0.8, 0.2]] * 4), targets)
    assert math.isnan(metrics.compute()["auroc_macro"])


def test_calibration_error_by_hand():
    """Sure to 0.8 and always right: off by 0.2."""
    metrics = Softmax(2).evaluation_metrics()
    metrics.update(torch.tensor([[0.8, 0.2]] * 4), torch.zeros(4, dtype=torch.long))
    assert metrics.compute()["ece"].item() == pytest.approx(0.2, abs=1e-6)


def test_multi_label_metrics():
    metrics = MultiLabel(2).evaluation_metrics()
    metrics.update(torch.tensor([[0.9, 0.9], [0.1, 0.1]]), torch.tensor([[1, 0], [0, 0]]))
    result = {name: value.item() for name, value in metrics.compute().items()}
    assert result["acc"] == pytest.approx(0.75)
    assert result["acc_exact"] == pytest.approx(0.5)
    assert result["map"] == pytest.approx(1)


def test_weights_of_labels_weigh_the_samples_that_have_them():
    """One positive among four samples with a weight of 3 has as much influence as the three negatives."""
    logits = torch.zeros(4, 1, requires_grad=True)
    MultiLabel(1, [3.0]).loss(logits, torch.tensor([[1], [0], [0], [0]])).backward()
    assert logits.grad.sum().item() == pytest.approx(0)
    focal = MultiLabel(1, [3.0], focal_gamma=2).loss(torch.zeros(4, 1), torch.tensor([[1], [0], [0], [0]]))
    assert focal.item() == pytest.approx(6 / 4 * 0.25 * 0.6931, rel=1e-3)


def every_objective(**options):
    """Each objective with and without class weights: it, logits and hard targets for it, and the targets as shares."""
    generator = torch.Generator().manual_seed(0)
    for weights in (None, [1.0, 2.0, 5.0]):
        logits, targets = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 2, 2, 1, 1])
        yield Softmax(3, weights, **options), logits, targets, functional.one_hot(targets, 3).float()
        yield MultiLabel(3, weights, **options), logits, functional.one_hot(targets, 3), functional.one_hot(targets, 3)
        two = targets.clamp_max(1)
        yield OneSigmoid(2, weights and weights[:2], **options), logits[:, :1], two, functional.one_hot(two, 2).float()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_shares_of_one_are_hard_targets(gamma):
    for objective, logits, hard, shares in every_objective(focal_gamma=gamma):
        torch.testing.assert_close(objective.loss(logits, shares), objective.loss(logits, hard))
        assert float(objective.batch_weight(shares)) == float(objective.batch_weight(hard))
        assert torch.equal(objective.hard_targets(shares), hard)
        assert torch.equal(objective.hard_targets(hard), hard)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_mixed_batch_loses_and_weighs_what_its_two_halves_do(gamma):
    for objective, logits, hard, shares in every_objective(focal_gamma=gamma):
        other, total = shares.roll(1, 0), 0.0
        for share, targets in ((0.7, hard), (0.3, hard.roll(1, 0))):
            total += share * objective.loss(logits, targets) * objective.batch_weight(targets)
        mixed = 0.7 * shares + 0.3 * other
        torch.testing.assert_close(objective.loss(logits, mixed) * objective.batch_weight(mixed), total)
        assert torch.equal(objective.hard_targets(mixed), hard)  # against the larger share


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_batches_add_up(gamma):
    for objective, logits, hard, shares in every_objective(focal_gamma=gamma):
        for targets in (hard, 0.7 * shares + 0.3 * shares.roll(1, 0)):
            parts = [(logits[:2], targets[:2]), (logits[2:], targets[2:])]
            total = sum(objective.loss(*part) * objective.batch_weight(part[1]) for part in parts)
            torch.testing.assert_close(total, objective.loss(logits, targets) * objective.batch_weight(targets))


def test_smoothing_of_shares_is_that_of_hard_targets():
    for objective, logits, hard, shares in every_objective():
        if isinstance(objective, Softmax):
            objective.label_smoothing = 0.2
            torch.testing.assert_close(objective.loss(logits, shares), objective.loss(logits, hard))


def test_focal_loss_of_sigmoids_is_that_of_torchvision():
    logits, targets = torch.randn(8, 3), torch.randint(0, 2, (8, 3))
    expected = sigmoid_focal_loss(logits, targets.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(MultiLabel(3, focal_gamma=2).loss(logits, targets), expected)
    expected = sigmoid_focal_loss(logits[:, 0], targets[:, 0].float(), alpha=-1, gamma=1.5, reduction="mean")
    torch.testing.assert_close(OneSigmoid(2, focal_gamma=1.5).loss(logits[:, :1], targets[:, 0]), expected)


def test_focal_loss_of_two_softmax_units_is_that_of_one_sigmoid():
    logits, targets = torch.randn(8, 1), torch.tensor([0, 1] * 4)
    two = torch.cat([torch.zeros(8, 1), logits], dim=1)
    for weights in (None, [1.0, 5.0]):
        expected = OneSigmoid(2, weights, focal_gamma=2).loss(logits, targets)
        torch.testing.assert_close(Softmax(2, weights, focal_gamma=2).loss(two, targets), expected)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_focal_loss_has_a_gradient_where_the_network_is_sure(gamma):
    logits = torch.tensor([[300.0, 0.0], [-300.0, 0.0]], requires_grad=True)
    Softmax(2, focal_gamma=gamma).loss(logits, torch.tensor([0, 0])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-0.5, 0.5]]))


@pytest.mark.parametrize("objective", [Softmax, OneSigmoid, MultiLabel])
@pytest.mark.parametrize("gamma", [-1.0, 0.5, float("nan"), float("inf")])
def test_focal_gamma_out_of_range(objective, gamma):
    with pytest.raises(UsageError, match=f"task.objective.focal_gamma={gamma}: give 0 for no focal loss"):
        objective(2, focal_gamma=gamma)
