import logging

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from headstart.data.activations import Activations
from headstart.errors import UsageError
from headstart.inputs.images.mixing import Mixing
from headstart.seeds import reseed
from headstart.tasks.classification import ClassificationTask
from headstart.training.run import train

BOTH = {"mixup": 1.0, "cutmix": 1.0}


def one_colour_each(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample i has class i and all pixels 60 * i, so a mixed picture shows its weights."""
    targets = torch.arange(n)
    return (60 * targets).to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, 8, 8).contiguous(), targets


@pytest.mark.parametrize("seed", range(5))
def test_mixup_mixes_pictures_and_targets_in_the_same_shares(seed):
    pictures, targets = one_colour_each()
    reseed(seed)
    mixed, shares = Mixing(4, mixup=1.0)(pictures, targets)
    assert mixed.dtype == torch.float32
    expected = shares @ (60 * targets / 255)
    torch.testing.assert_close(mixed, expected.view(4, 1, 1, 1).expand(4, 3, 8, 8))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    assert ((shares > 0).sum(dim=1) == 2).all()


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_counts_the_pixels(seed):
    pictures, targets = one_colour_each()
    reseed(seed)
    mixed, shares = Mixing(4, cutmix=1.0)(pictures, targets)
    assert mixed.dtype == torch.uint8
    counted = (mixed[:, :1] == 60 * targets.view(1, 4, 1, 1)).float().mean(dim=(2, 3))
    torch.testing.assert_close(shares, counted)


def test_zeros_and_ones_are_mixed_too():
    pictures, _ = one_colour_each()
    labels = torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0]])
    mixed, shares = Mixing(2, mixup=1.0)(pictures, labels)
    share = shares[0, 1]  # of sample 0, whose neighbour is the last one, in what became of it
    torch.testing.assert_close(shares, share * labels + (1 - share) * labels.roll(1, 0))
    torch.testing.assert_close(mixed[1].mean(), share * 60 / 255)


def test_of_two_ways_each_batch_has_one_and_the_seed_decides():
    pictures, targets = one_colour_each()
    mixing = Mixing(4, **BOTH)

    def draw(seed):
        reseed(seed)
        return mixing(pictures, targets)

    kinds = [draw(seed)[0].dtype for seed in range(20)]
    assert 4 < kinds.count(torch.uint8) < 16
    for seed in range(5):
        (one, shares), (other, again) = draw(seed), draw(seed)
        assert torch.equal(one, other)
        assert torch.equal(shares, again)
    assert torch.equal(pictures, one_colour_each()[0]), "the batch itself stays as it was"


def test_nothing_is_mixed_until_asked():
    with pytest.raises(UsageError, match=r"mixing.mixup=0 mixing.cutmix=0: give one of them a positive number"):
        Mixing(4)


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_alpha_out_of_range(alpha):
    for key in BOTH:
        with pytest.raises(UsageError, match=f"mixing.{key}={alpha}: give 0 to turn it off"):
            Mixing(4, **{key: alpha})


@pytest.mark.parametrize("inputs", [{"tokens": torch.ones(4, 7)}, torch.ones(4, 7)], ids=["dict", "rows"])
def test_what_is_no_picture_is_refused(inputs):
    with pytest.raises(UsageError, match=r"mixing works on batches of pictures .* leave mixing out"):
        Mixing(4, mixup=1.0)(inputs, torch.arange(4))


class Steps(Callback):
    """Records the targets of the objective in training and evaluation, and which batches hold activations."""

    def __init__(self):
        self.targets = {True: [], False: []}
        self.activations = {"train": set(), "val": set()}

    def setup(self, trainer, pl_module, stage):
        loss = pl_module.objective.loss

        def noted(logits, targets):
            self.targets[pl_module.trainer.training].append(targets)
            return loss(logits, targets)

        pl_module.objective.loss = noted

    def teardown(self, trainer, pl_module, stage):
        del pl_module.objective.loss

    def on_train_batch_start(self, trainer, pl_module, batch, index):
        self.activations["train"].add(isinstance(batch[0], Activations))

    def on_validation_batch_start(self, trainer, pl_module, batch, index, loader=0):
        self.activations["val"].add(isinstance(batch[0], Activations))


@pytest.fixture
def noted(quick, monkeypatch):
    """Trains, and returns the recorded arguments of the steps."""

    def run(*overrides) -> Steps:
        steps = Steps()
        monkeypatch.setattr(ClassificationTask, "configure_callbacks", lambda self: [steps])
        train(quick("mixing=mixup_or_cutmix", "mixing.mixup=1", *overrides))
        return steps

    return run


@pytest.mark.parametrize(
    "overrides", [[], ["task=binary"], ["task=multilabel", "data.multi_label=true"]], ids=["softmax", "one", "many"]
)
def test_training_alone_is_mixed(overrides, noted):
    steps = noted(*overrides)
    between = [((targets > 0) & (targets < 1)).any() for targets in steps.targets[True]]
    assert sum(between) > len(between) / 2
    assert all(((targets == 0) | (targets == 1)).all() for targets in steps.targets[False])


def test_frozen_layers_see_mixed_pictures(noted, caplog):
    with caplog.at_level(logging.DEBUG, "headstart"):
        steps = noted("finetuning=feature_extraction")
    assert "train is not cached: mixing makes new samples" in caplog.text
    assert steps.activations == {"train": {False}, "val": {True}}


@pytest.mark.parametrize("cache", ["default", "off"])
def test_a_head_is_computed_from_plain_samples(cache, noted):
    steps = noted("finetuning=probe", f"cache={cache}")
    assert steps.activations["train"] == {cache == "default"}
    assert all(targets.ndim == 1 for targets in steps.targets[True])
