"""The temperature, where it is known."""

import pytest
import torch

from headstart.metrics.calibration import cross_entropy, fit_temperature


def drawn(samples, classes, seed=0):
    """Logits, and targets drawn from the very probabilities they mean."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=random)
    if classes == 1:
        return logits, (torch.rand(samples, generator=random) < logits[:, 0].sigmoid()).long()
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=random)[:, 0]


@pytest.mark.parametrize("factor", [0.3, 1, 4])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_a_factor_on_honest_logits_is_found(factor, classes):
    logits, targets = drawn(5000, classes)
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor, rel=0.08)


def test_of_labels_too():
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(3000, 4, generator=random)
    targets = (torch.rand(3000, 4, generator=random) < logits.sigmoid()).long()
    assert fit_temperature(2.5 * logits, targets) == pytest.approx(2.5, rel=0.08)


def test_no_other_temperature_is_better():
    logits, targets = drawn(300, 5)
    found = fit_temperature(3 * logits, targets)
    best = cross_entropy(3 * logits / found, targets)
    assert all(cross_entropy(3 * logits / (found * f), targets) > best for f in (0.5, 0.97, 1.03, 2))


def test_without_a_mistake_there_is_none():
    targets = torch.arange(3).repeat(10)
    assert fit_temperature(torch.nn.functional.one_hot(targets).float(), targets) is None
    assert fit_temperature(torch.tensor([[-1.0], [2.0]]), torch.tensor([0, 1])) is None
    labels = torch.tensor([[0, 1], [1, 1]])
    assert fit_temperature(labels - 0.5, labels) is None


def test_guesses_have_no_temperature():
    logits, targets = drawn(2000, 4)
    assert fit_temperature(logits, targets.roll(1)) is None
