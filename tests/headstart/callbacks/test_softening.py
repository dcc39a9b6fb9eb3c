"""The closed-form head before the fine-tuning, if it is softened."""

import pytest
import torch
from torch.nn import functional

from headstart.callbacks.closed_form_head import MOST_OF_CHANCE, softening
from headstart.tasks import checkpoint
from headstart.training.run import train

SOFT = (
    "finetuning=lp_ft", "finetuning.soften_head=true", "data.num_samples=60", "data.num_classes=6", "optimizer.lr=0",
    "optimizer.weight_decay=0", "scheduler=none", "test=false",
)  # fmt: skip


def test_the_loss_on_the_training_samples_becomes_the_wanted_one():
    logits, targets = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    logits[range(40), targets] += 5

    def loss(factor):
        return functional.cross_entropy(factor * logits, targets).item()

    assert loss(softening(loss, 0.6)) == pytest.approx(0.6, abs=1e-2)
    assert softening(loss, 0.0) == 1
    assert loss(softening(loss, 50.0)) == pytest.approx(MOST_OF_CHANCE * torch.tensor(3.0).log().item(), abs=1e-2)


def test_the_probe_stays_as_it_is_and_the_fine_tuning_begins_softer(quick, tmp_path, caplog):
    """Nothing is learned here, so that the last weights are those at the beginning of the fine-tuning."""
    caplog.set_level("INFO")
    train(quick(*SOFT, "callbacks=blend", "trainer.max_epochs=3"))
    assert "before the fine-tuning its outputs are multiplied by 0." in caplog.text
    probe, last = (
        checkpoint.read(tmp_path / f"run/checkpoints/{name}.ckpt")["state_dict"] for name in ("probe", "last")
    )
    weight, bias = sorted((name for name in probe if name.startswith("head.")), key=lambda name: -probe[name].ndim)
    ratios = last[weight] / probe[weight]
    assert ratios.max().item() == pytest.approx(ratios.min().item(), rel=1e-3)
    assert 0 < ratios.mean().item() < 0.95
    assert torch.allclose(last[bias], ratios.mean() * probe[bias], atol=1e-6)


def test_a_run_that_stops_between_the_two_ends_as_if_it_had_not(quick, tmp_path):
    train(quick(*SOFT, "trainer.max_epochs=3"))
    whole = checkpoint.read(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    (tmp_path / "run").rename(tmp_path / "whole")
    train(quick(*SOFT, "trainer.max_epochs=1"))
    train(quick(*SOFT, "trainer.max_epochs=3", f"resume={tmp_path / 'run'}"))
    resumed = checkpoint.read(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
