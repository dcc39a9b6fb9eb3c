import math

import pytest
import torch

from headstart.export.parity import compare

PICTURES = [torch.full((3, 4, 5), value, dtype=torch.uint8) for value in (0, 100, 200, 250)]


def mirrored(picture):
    return picture.flip(2)


def answers(shift=0.0):
    def run(pictures):
        second = (torch.stack(pictures).float().mean(dim=(1, 2, 3)) / 255 + shift).clamp(0, 1)
        return torch.stack([1 - second, second], dim=1)

    return run


def test_the_largest_difference_the_agreement_and_both_accuracies():
    parity = compare(answers(), answers(0.2), PICTURES, mirrored, torch.tensor([0, 0, 1, 0]), multi_label=False)
    assert parity.largest == pytest.approx(0.2, abs=1e-6)
    assert parity.agreement == 0.75  # the second goes from 0.39 to 0.59
    assert parity.accuracy == {"checkpoint": 0.75, "export": 0.5}
    assert parity.samples == 4


def test_several_labels_agree_only_together():
    parity = compare(
        answers(), answers(0.2), PICTURES, mirrored, torch.tensor([[1, 0], [1, 1], [0, 1], [0, 1]]), multi_label=True
    )
    assert parity.agreement == 0.75
    assert parity.accuracy == {"checkpoint": 0.875, "export": 0.875}


def test_what_goes_wrong_in_batches_alone_is_found():
    def wrong(pictures):
        return answers(0.3 if len(pictures) > 1 else 0.0)(pictures)

    assert compare(answers(), wrong, PICTURES, mirrored, None, multi_label=False).largest == pytest.approx(
        0.3, abs=1e-6
    )


@pytest.mark.parametrize("least", [1, 2], ids=["always", "in batches alone"])
def test_a_nan_is_no_agreement(least):
    def broken(pictures):
        return answers()(pictures) * (float("nan") if len(pictures) >= least else 1)

    parity = compare(answers(), broken, PICTURES, mirrored, None, multi_label=False)
    assert not parity.largest <= 1
    assert math.isnan(parity.largest) or parity.largest == math.inf
    assert parity.accuracy is None
