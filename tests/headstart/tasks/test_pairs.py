"""The contrastive loss."""

import pytest
import torch

from headstart.tasks.pairs import pair_loss

CLASSES = torch.tensor([0, 0, 0, 1, 1])


def slow(features, classes):
    """The definition, pair by pair."""
    same, different = [], []
    for i, one in enumerate(features):
        for j, other in enumerate(features):
            cosine = torch.nn.functional.cosine_similarity(one, other, dim=0)
            if i != j and classes[i] == classes[j]:
                same.append((1 - cosine) ** 2)
            elif i != j:
                different.append(cosine**2)
    return (torch.stack(same).mean() + torch.stack(different).mean()) / 2


def test_both_kinds_of_pairs_have_the_same_weight():
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert pair_loss(features, CLASSES).item() == pytest.approx(slow(features, CLASSES).item(), abs=1e-6)
    assert pair_loss(3 * features, CLASSES).item() == pytest.approx(pair_loss(features, CLASSES).item(), abs=1e-6)


def test_one_direction_per_class_has_no_loss():
    features = torch.eye(7)[CLASSES] * torch.tensor([1.0, 2, 3, 4, 5])[:, None]
    assert pair_loss(features, CLASSES).item() == pytest.approx(0, abs=1e-6)
    assert pair_loss(features, torch.tensor([0, 0, 0, 0, 0])).item() == pytest.approx(12 / 20)


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2], [1]], ids=str)
def test_a_batch_with_one_kind_of_pairs_has_a_finite_gradient(classes):
    features = torch.randn(len(classes), 4, requires_grad=True)
    loss = pair_loss(features, torch.tensor(classes))
    loss.backward()
    assert torch.isfinite(features.grad).all()
    assert (loss > 0) == (len(classes) > 1)
