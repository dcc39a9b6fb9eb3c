"""The task drives its schedule: rates under Lightning, across an unfreeze, an interruption and a validation.

A run here is 4 epochs of 3 steps whose validation losses are fixed, so that rates depend on nothing that is learned.
"""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from families import exhaustive_unless
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from headstart.backbones.tiny_resnet import TinyResNet
from headstart.callbacks.learning_rate import LearningRates
from headstart.errors import UsageError
from headstart.heads.linear import LinearHead
from headstart.metrics.mean_loss import MeanLoss
from headstart.optim.learning_rates import Schedule
from headstart.optim.schedulers import warmup_cosine
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objectives import Softmax

LOSSES = (1.0, 2.0, 0.5, 3.0)  # with no patience the rate falls after epochs 1 and 3
SCHEDULERS = {
    "none": None,
    "plateau": partial(ReduceLROnPlateau, mode="min", patience=0),
    "step": partial(StepLR, step_size=1, gamma=0.5),
    "cosine": partial(CosineAnnealingLR, T_max=None),
    "warmup_cosine": partial(warmup_cosine, total_steps=None),
    "onecycle": partial(OneCycleLR, max_lr=None, total_steps=None),
}


class Scripted(ClassificationTask):
    """A task whose validation loss is a fixed sequence by epoch."""

    def validation_step(self, batch, index):
        super().validation_step(batch, index)
        self.val_loss.reset()
        self.val_loss.update(torch.tensor(LOSSES[self.current_epoch]))


class Unfreeze(Callback):
    """The head alone, then from an epoch on the backbone's last group too; what a strategy does."""

    def __init__(self, epoch=2):
        self.epoch = epoch

    def apply(self, trainer, task):
        for group in task.layer_groups:
            group.set_trainable(group.name == "stage3" and trainer.current_epoch >= self.epoch)

    def on_fit_start(self, trainer, task):
        self.apply(trainer, task)

    def on_train_start(self, trainer, task):  # Lightning starts no epoch when it resumes in the middle of one
        self.apply(trainer, task)

    def on_train_epoch_start(self, trainer, task):
        self.apply(trainer, task)


class PowerCutError(Exception):
    pass


class Watch(Callback):
    """Keeps the rates each step used, and ends the run before a step as a power cut would."""

    def __init__(self, interrupt=None):
        self.rates, self.interrupt = {}, interrupt

    def on_train_batch_start(self, trainer, task, batch, index):
        if trainer.global_step == self.interrupt:
            raise PowerCutError
        self.rates[trainer.global_step] = {g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups}


def make_task(scheduler=None, kind=Scripted, **settings):
    backbone = TinyResNet(weights=None, image_size=8)
    backbone.pretrained = True
    make = partial(kind, backbone=backbone, head=LinearHead, objective=Softmax, classes=["a", "b"])
    return make(optimizer=partial(SGD, lr=0.1, momentum=0.9), scheduler=scheduler, **settings)


def loader():
    pictures = torch.arange(6 * 3 * 64, dtype=torch.float32).remainder(256).to(torch.uint8).view(6, 3, 8, 8)
    return DataLoader(TensorDataset(pictures, torch.tensor([0, 1] * 3)), batch_size=2)


def make_trainer(*callbacks, **settings):
    limits = {"max_epochs": 4, "num_sanity_val_steps": 0} | settings
    return pl.Trainer(
        accelerator="cpu", callbacks=list(callbacks), logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **limits,
    )  # fmt: skip


def rates_of(scheduler, *callbacks, ckpt_path=None, interrupt=None, trainer=(), **settings):
    """The rates of every step of a fit, by step and group."""
    watch = Watch(interrupt)
    fit = partial(make_trainer(Unfreeze(), watch, *callbacks, **dict(trainer)).fit, ckpt_path=ckpt_path)
    task = make_task(scheduler, unfreeze_warmup_steps=3, **settings)
    if interrupt is None:
        fit(task, loader(), loader())
    else:
        with pytest.raises(PowerCutError):
            fit(task, loader(), loader())
    return watch.rates


def test_rates_under_lightning():
    """Plateau falls after epoch 1; `stage3` is unfrozen with epoch 2, at step 6, and rises in 3 steps."""
    rates = rates_of(SCHEDULERS["plateau"])
    assert sorted(rates) == list(range(12))
    factor = [1.0] * 6 + [0.1] * 6
    rise = [1 / 4] * 6 + [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]
    for t, by_group in rates.items():
        assert by_group["head"] == pytest.approx(0.1 * factor[t]), t
        assert by_group["stage3"] == pytest.approx(0.01 * factor[t] * rise[t]), t
        assert by_group["stem/no_decay"] == pytest.approx(0.01 * factor[t] / 4), t


model_checkpoint = partial(ModelCheckpoint, filename="last", enable_version_counter=False)
# who writes the checkpoint to go on from, the limits of the run, and the step before which it ends
MOMENTS = {
    "epoch end": (model_checkpoint, {}, 7),
    "epoch end, limited by steps": (model_checkpoint, {"max_epochs": -1, "max_steps": 12}, 7),
    "validation end": (partial(model_checkpoint, save_on_train_epoch_end=False), {}, 7),
    "in an epoch": (partial(model_checkpoint, every_n_train_steps=4), {}, 5),
    "in the ramp": (partial(model_checkpoint, every_n_train_steps=8), {}, 11),
}


@pytest.mark.parametrize("name", exhaustive_unless(["onecycle", "plateau", "warmup_cosine"], SCHEDULERS))
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint")
def test_a_resumed_run_has_the_same_rates(name, moment, tmp_path):
    """Lightning by itself loses a reduction of ReduceLROnPlateau: it comes after the epoch's checkpoint."""
    saver, limits, interrupt = MOMENTS[moment]
    whole = rates_of(SCHEDULERS[name], trainer=limits)
    before = rates_of(SCHEDULERS[name], saver(tmp_path), interrupt=interrupt, trainer=limits)
    after = rates_of(SCHEDULERS[name], ckpt_path=tmp_path / "last.ckpt", trainer=limits)
    assert before == {t: whole[t] for t in before}
    assert after == {t: whole[t] for t in after}
    assert list(after) == list(range(min(after), 12))
    assert min(after) <= interrupt


def test_no_callback_adds_groups():
    watch, task = Watch(), make_task()
    trainer = make_trainer(Unfreeze(), watch)
    trainer.fit(task, loader(), loader())
    names = list(watch.rates[0])
    assert all(list(rates) == names for rates in watch.rates.values())
    assert {name.removesuffix("/no_decay") for name in names} == {"stem", "stage1", "stage2", "stage3", "head"}


class Scores(Callback):
    """Keeps what the schedule was told, and what Lightning logs of the same validation."""

    def __init__(self, monkeypatch):
        self.told, self.logged = [], []
        monkeypatch.setattr(Schedule, "validated", lambda _, score: self.told.append(score))

    def on_validation_end(self, trainer, task):
        if not trainer.sanity_checking:
            self.logged.append(trainer.callback_metrics[task.monitor].item())


@pytest.mark.parametrize("monitor", ["val/loss", "val/acc", "val/auroc_macro"])
def test_the_schedule_is_told_what_lightning_logs(monitor, monkeypatch):
    """Once a validation of a fit: not after a sanity check, and not when somebody only validates."""
    scores = Scores(monkeypatch)
    task = make_task(kind=ClassificationTask, monitor=monitor)
    trainer = make_trainer(scores, max_epochs=3, num_sanity_val_steps=1, val_check_interval=2)
    trainer.fit(task, loader(), loader())
    assert scores.told == scores.logged
    assert len(scores.told) == 3
    trainer.validate(task, loader(), verbose=False)
    assert len(scores.told) == 3


def test_computing_the_score_costs_nothing_more(monkeypatch):
    """Lightning and the schedule both ask for it, and torchmetrics keeps the result."""
    computed, compute = [], MeanLoss.compute
    monkeypatch.setattr(MeanLoss, "compute", lambda metric: computed.append(metric) or compute(metric))
    task = make_task(kind=ClassificationTask)
    make_trainer(max_epochs=2).fit(task, loader(), loader())
    assert [metric is task.val_loss for metric in computed].count(True) == 2


def test_an_epoch_cut_short_does_not_count():
    class Cut(Callback):
        def on_train_batch_end(self, trainer, task, outputs, batch, index):
            trainer.should_stop = trainer.global_step == 4

    task = make_task(SCHEDULERS["step"])
    trainer = make_trainer(Cut())
    trainer.fit(task, loader(), loader())
    assert trainer.global_step == 4
    assert task.lr_schedulers().inner.last_epoch == 1


def test_only_a_schedule_over_the_whole_run_must_know_its_length():
    """`max_epochs=-1` runs until something stops it."""
    endless = {"max_epochs": -1}
    for name in ("none", "step", "plateau"):
        assert len(rates_of(SCHEDULERS[name], interrupt=4, trainer=endless)) == 4
    with pytest.raises(UsageError, match=r"scheduler must know the length of the run: give trainer.max_epochs"):
        rates_of(SCHEDULERS["cosine"], trainer=endless)
    assert len(rates_of(SCHEDULERS["cosine"], trainer={"max_epochs": -1, "max_steps": 5})) == 5


def test_a_plateau_without_validation_is_refused():
    with pytest.raises(UsageError, match="watches val/loss, but this run validates nothing"):
        rates_of(SCHEDULERS["plateau"], trainer={"limit_val_batches": 0})


def test_negative_unfreeze_warmup_steps_are_refused():
    with pytest.raises(UsageError, match=r"task.unfreeze_warmup_steps=-1: give a number of optimizer steps, 0 or more"):
        make_task(unfreeze_warmup_steps=-1)


class Curves(pl.loggers.Logger):
    """Keeps the rates of every step."""

    name, version = "curves", 0

    def __init__(self):
        super().__init__()
        self.rates = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        rates = {name: value for name, value in metrics.items() if name.startswith("lr/")}
        if rates:
            self.rates[step] = rates


@pytest.mark.parametrize("learning", [(1, 2), (1,), (2,)], ids=["all", "biases", "weights"])
def test_a_frozen_group_is_drawn_at_zero(learning):
    """Of a layer group whose biases or weights alone learn, the curve is theirs."""
    curves, task = Curves(), make_task()
    for parameter in task.head.parameters():
        parameter.requires_grad_(parameter.ndim in learning)
    trainer = make_trainer(Unfreeze(epoch=1), LearningRates(), max_epochs=2, log_every_n_steps=1)
    trainer.loggers = [curves]
    trainer.fit(task, loader(), loader())
    frozen = {f"lr/{name}": 0.0 for name in ("stem", "stage1", "stage2", "stage3")}
    assert curves.rates[2] == pytest.approx(frozen | {"lr/head": 0.1})
    assert curves.rates[3] == pytest.approx(frozen | {"lr/stage3": 0.01, "lr/head": 0.1})
