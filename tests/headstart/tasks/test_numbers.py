import pytest
import torch

from headstart.errors import UsageError
from headstart.tasks.numbers import Numbers

TARGETS = torch.tensor([[1.0, 100.0], [3.0, 300.0], [5.0, 500.0]])


def fitted(loss="mse") -> Numbers:
    objective = Numbers(2, loss=loss)
    objective.fit_to(TARGETS)
    return objective


def test_logits_are_standardised_numbers():
    objective = fitted()
    assert objective.probabilities(torch.zeros(1, 2)).tolist() == [[3.0, 300.0]]
    torch.testing.assert_close(
        objective.probabilities(torch.ones(1, 2)), (TARGETS.mean(0) + TARGETS.std(0, correction=0))[None]
    )
    logits = (TARGETS - TARGETS.mean(0)) / TARGETS.std(0, correction=0)
    assert objective.loss(logits, TARGETS).item() == pytest.approx(0, abs=1e-10)


def test_the_loss_of_the_mean_is_one_squared_deviation():
    assert fitted().loss(torch.zeros(3, 2), TARGETS).item() == pytest.approx(1)


def test_the_other_losses_follow_an_outlier_less():
    logits, outlier = torch.zeros(3, 2), TARGETS + torch.tensor([[0, 0], [0, 0], [0, 1e4]])
    shares = {}
    for loss in ("mse", "mae", "huber"):
        objective = fitted(loss)
        shares[loss] = (objective.loss(logits, outlier) / objective.loss(logits, TARGETS)).item()
    assert shares["mse"] > 20 * shares["mae"]
    assert shares["mse"] > 20 * shares["huber"]


def test_mean_and_deviation_are_in_the_state():
    again = Numbers(2)
    again.load_state_dict(fitted().state_dict())
    assert again.probabilities(torch.zeros(1, 2)).tolist() == [[3.0, 300.0]]


def test_a_number_that_does_not_vary_is_not_divided_by_zero():
    objective = Numbers(1)
    objective.fit_to(torch.full((4, 1), 7.0))
    assert objective.loss(torch.zeros(4, 1), torch.full((4, 1), 7.0)).item() == 0


def test_what_it_refuses():
    with pytest.raises(UsageError, match=r"task\.objective\.loss=l2: choose one of mse, mae, huber"):
        Numbers(1, loss="l2")
    with pytest.raises(UsageError, match=r"data\.class_weights is for classes"):
        Numbers(2, class_weights=[1.0, 2.0])
