"""The rate of every group at every step, across an unfreeze and across an interruption.

A run here is 4 epochs of 3 steps. `head` learns all along, `stem` from epoch 2 on; `stem/no_decay` never, like
BatchNorms that stay frozen in a layer group that learns.
"""

import io
import math
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR, OneCycleLR, PolynomialLR, StepLR

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.optim.learning_rates import Schedule, build_scheduler, open_horizon
from headstart.optim.schedulers import slanted_triangular, warmup_cosine

EPOCHS, PER_EPOCH, UNFROZEN = 4, 3, 6
TOTAL = EPOCHS * PER_EPOCH
RATES = {"stem": 0.01, "stem/no_decay": 0.01, "head": 0.1, "head/no_decay": 0.1}
SCORES = (1.0, 2.0, 0.5, 3.0)  # lower is better: with no patience the rate falls after epochs 1 and 3
OPTIMIZERS = {"sgd": partial(SGD, lr=0.1, momentum=0.9), "adamw": partial(AdamW, lr=0.1, weight_decay=0.1)}


def half_cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


def onecycle_factor(t):
    """From 1/25 up to 1 in steps 0 to 2, down to 1/25/10000 in step 11."""
    return 1 - (1 - 1 / 25) * half_cosine(t / 2) if t <= 2 else 4e-6 + (1 - 4e-6) * half_cosine((t - 2) / 9)


# file of conf/scheduler -> what is changed in it, and the factor on the rate of step t of 12 in closed form
CLOSED_FORMS = {
    "none": ({}, lambda t: 1.0),
    "warmup_cosine": (
        {"warmup": 0.25, "final": 0.1},
        lambda t: (t + 1) / 4 if t < 3 else 0.1 + 0.9 * half_cosine((t - 3) / 9),
    ),
    "slanted_triangular": (
        {"cut_fraction": 0.25},
        lambda t: (1 + 31 * (t / 3 if t < 3 else 1 - (t - 3) / (3 * (1 / 0.25 - 1)))) / 32,
    ),
    "cosine": ({}, lambda t: half_cosine(t / 12)),
    "linear": ({}, lambda t: 1 - t / 12),
    "onecycle": ({"pct_start": 0.25}, onecycle_factor),
    "step": ({"step_size": 1, "gamma": 0.5}, lambda t: 0.5 ** (t // 3)),
    "plateau": ({"mode": "min", "patience": 0}, lambda t: 1.0 if t < 6 else 0.1),
}
EVERY_SCHEDULER = pytest.mark.parametrize("name", CLOSED_FORMS)
EVERY_OPTIMIZER = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def scheduler_of(name):
    """The partial that conf/scheduler/<name>.yaml describes, on the scale of these tests."""
    node = OmegaConf.load(CONF / "scheduler" / f"{name}.yaml")
    return instantiate(OmegaConf.merge(node, CLOSED_FORMS[name][0])) if "_target_" in node else None


class Run:
    """What Lightning, a strategy and the task do with a schedule, by hand."""

    def __init__(self, name, optimizer, unfreeze_warmup_steps):
        self.layers = {group: nn.Parameter(torch.ones(2)) for group in RATES}
        groups = [{"name": group, "params": [self.layers[group]], "lr": rate} for group, rate in RATES.items()]
        self.optimizer = OPTIMIZERS[optimizer](groups)
        factory = scheduler_of(name)
        built = () if factory is None else build_scheduler(factory, self.optimizer, TOTAL)
        self.schedule = Schedule(self.optimizer, *built, unfreeze_warmup_steps=unfreeze_warmup_steps)
        self.freeze(0)

    def freeze(self, t):
        self.layers["stem/no_decay"].requires_grad_(False)
        self.layers["stem"].requires_grad_(t >= UNFROZEN).grad = None

    def rates(self):
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def go(self, start, stop):
        """Rates of the steps from `start` to before `stop`."""
        trace = []
        self.schedule.begin()
        for t in range(start, stop):
            if t % PER_EPOCH == 0 or t == start:
                self.freeze(t)
            trace.append(self.rates())
            self.optimizer.zero_grad()
            sum((layer**2).sum() for layer in self.layers.values()).backward()
            self.optimizer.step()
            self.schedule.step()
            if (t + 1) % PER_EPOCH == 0:
                self.schedule.validated(SCORES[t // PER_EPOCH])
                self.schedule.epoch_ended()
        return trace

    def saved(self):
        """What a checkpoint keeps of it, read as safely as a checkpoint is read."""
        file = io.BytesIO()
        torch.save([self.optimizer.state_dict(), self.schedule.state_dict(), self.layers], file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    def load(self, saved):
        """In Lightning's order: a fresh run of which epoch 0 was frozen, optimizer first."""
        self.optimizer.load_state_dict(saved[0])
        self.schedule.load_state_dict(saved[1])
        for group, layer in saved[2].items():
            self.layers[group].data.copy_(layer.data)


def ramp(group, t, unfreeze_warmup_steps):
    if group.startswith("head"):
        return 1.0
    since = max(t - UNFROZEN, 0) if group == "stem" else 0
    return min(1.0, (since + 1) / (unfreeze_warmup_steps + 1))


def test_every_scheduler_has_a_closed_form_here():
    assert {path.stem for path in (CONF / "scheduler").glob("*.yaml")} == set(CLOSED_FORMS)


@EVERY_SCHEDULER
@EVERY_OPTIMIZER
@pytest.mark.parametrize("unfreeze_warmup_steps", [0, 1, 4])
def test_rates_of_every_group_across_an_unfreeze(name, optimizer, unfreeze_warmup_steps):
    """Frozen or trained, a group keeps to its own curve; unfreezing it moves no other group."""
    run = Run(name, optimizer, unfreeze_warmup_steps)
    trace = run.go(0, TOTAL)
    _, factor = CLOSED_FORMS[name]
    for t, rates in enumerate(trace):
        expected = {group: rate * factor(t) * ramp(group, t, unfreeze_warmup_steps) for group, rate in RATES.items()}
        assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15), t
    assert [group["name"] for group in run.optimizer.param_groups] == list(RATES)


@EVERY_SCHEDULER
@EVERY_OPTIMIZER
@pytest.mark.parametrize("stopped_after", [0, 1, 3, 5, 6, 7, 9, 11])
def test_a_resumed_run_goes_on_to_the_bit(name, optimizer, stopped_after):
    """Wherever it stopped: before the first step, frozen, at the unfreeze, in the ramp, between epochs and within."""
    whole = Run(name, optimizer, unfreeze_warmup_steps=3)
    whole.go(0, stopped_after)
    saved = whole.saved()
    expected = whole.go(stopped_after, TOTAL)
    resumed = Run(name, optimizer, unfreeze_warmup_steps=3)
    resumed.load(saved)
    assert resumed.go(stopped_after, TOTAL) == expected
    assert resumed.rates() == whole.rates()
    assert all(torch.equal(resumed.layers[group], whole.layers[group]) for group in RATES)


def test_a_group_that_is_frozen_again_ramps_again():
    layer = nn.Parameter(torch.ones(1))
    optimizer = SGD([layer], lr=1.0)
    schedule = Schedule(optimizer, unfreeze_warmup_steps=1)
    trace = []
    schedule.begin()
    for trained in (True, True, False, False, True, True, False, True, True):
        layer.requires_grad_(trained)
        trace.append((trained, optimizer.param_groups[0]["lr"]))
        schedule.step()
    assert [rate for trained, rate in trace if trained] == [1.0, 1.0, 0.5, 1.0, 0.5, 1.0]


def test_beginning_again_changes_nothing():
    """A resumed run begins too, frozen as in epoch 0: what it knows from before counts."""
    run = Run("cosine", "sgd", unfreeze_warmup_steps=3)
    run.go(0, 8)
    before, state = run.rates(), run.schedule.state_dict()
    run.freeze(0)
    run.schedule.begin()
    assert run.rates() == before
    assert run.schedule.state_dict() == state


def test_an_epoch_ends_once():
    """Lightning ends it again when it resumes a run with max_steps."""
    optimizer = SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = Schedule(optimizer, StepLR(optimizer, step_size=1, gamma=0.5), "epoch")
    schedule.epoch_ended()
    assert optimizer.param_groups[0]["lr"] == 1.0
    for _ in range(2):
        optimizer.step()
        schedule.step()
        schedule.epoch_ended()
        schedule.epoch_ended()
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("saved", "resumed", "message"),
    [
        (
            ("cosine", 12),
            ("cosine", 24),
            r"CosineAnnealingLR \(T_max=12\), this run with CosineAnnealingLR \(T_max=24",
        ),
        (("onecycle", 12), ("onecycle", 6), r"OneCycleLR \(total_steps=12\)"),
        (("step", 12), ("none", 12), r"StepLR, this run with no scheduler"),
        (
            ("none", 12),
            ("plateau", 12),
            r"no scheduler, this run with ReduceLROnPlateau: resume with the same",
        ),
    ],
)
def test_another_schedule_is_not_gone_on_with(saved, resumed, message):
    """torch would take the saved horizon silently: a cosine rises again after it, OneCycleLR raises there."""

    def schedule(name, total_steps):
        optimizer = SGD([nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        factory = scheduler_of(name)
        return Schedule(optimizer, *(build_scheduler(factory, optimizer, total_steps) if factory else ()))

    with pytest.raises(UsageError, match=message):
        schedule(*resumed).load_state_dict(schedule(*saved).state_dict())


def test_other_schedulers_of_torch_save_plain_data_too():
    optimizer = SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = Schedule(optimizer, MultiStepLR(optimizer, milestones=[1, 2]), "epoch")
    file = io.BytesIO()
    torch.save(schedule.state_dict(), file)
    file.seek(0)
    schedule.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize(
    "build",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
        lambda optimizer: OneCycleLR(optimizer, max_lr=1.0, total_steps=12),
        lambda optimizer: StepLR(optimizer, step_size=1, gamma=0.5),
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=12),
        lambda optimizer: PolynomialLR(optimizer, total_iters=12),
    ],
    ids=["lambda", "onecycle", "step", "cosine", "linear"],
)
def test_the_trap_of_adding_groups_in_the_middle(build):
    """Why all groups are in the optimizer from the first step: added later, they break the scheduler or escape it."""
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = SGD([first], lr=1.0, momentum=0.9)
    scheduler = build(optimizer)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    optimizer.add_param_group({"params": [second], "lr": 1.0})
    try:
        optimizer.step()
        scheduler.step()
    except (ValueError, KeyError):  # by scheduler and version of torch
        return
    right, added = (group["lr"] for group in optimizer.param_groups)
    assert added != pytest.approx(right, rel=0.3)


def run_schedule(factory, steps, total):
    optimizer = SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "name": str(lr)} for lr in (0.1, 1.0)], lr=1)
    scheduler, interval = build_scheduler(factory, optimizer, total)
    trace = []
    for _ in range(steps):
        trace.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return torch.tensor(trace, dtype=torch.float64), interval


def test_a_null_horizon_is_the_run_in_steps():
    trace, interval = run_schedule(partial(CosineAnnealingLR, T_max=None), 11, 10)
    expected = torch.tensor([half_cosine(t / 10) for t in range(11)], dtype=torch.float64)
    assert interval == "step"
    torch.testing.assert_close(trace[:, 1], expected)
    torch.testing.assert_close(trace[:, 0], expected * 0.1)


def test_a_given_horizon_counts_epochs_and_needs_no_run_length():
    assert run_schedule(partial(CosineAnnealingLR, T_max=3), 1, None)[1] == "epoch"
    assert run_schedule(partial(PolynomialLR, total_iters=3), 1, None)[1] == "epoch"
    trace, interval = run_schedule(partial(StepLR, step_size=2, gamma=0.1), 4, None)
    assert interval == "epoch"
    torch.testing.assert_close(trace[:, 1], torch.tensor([1, 1, 0.1, 0.1], dtype=torch.float64))


def test_total_steps_are_steps_also_when_given():
    trace, interval = run_schedule(partial(warmup_cosine, total_steps=4, warmup=0.0), 5, None)
    assert interval == "step"
    assert trace[-1, 1].item() == pytest.approx(0.0)


def test_onecycle_keeps_the_groups_ratio():
    trace, interval = run_schedule(partial(OneCycleLR, max_lr=None, total_steps=None), 10, 10)
    assert interval == "step"
    assert trace[:, 1].max().item() == pytest.approx(1.0)
    torch.testing.assert_close(trace[:, 0], trace[:, 1] * 0.1)


@pytest.mark.parametrize(
    ("name", "interval", "horizon"),
    [
        ("warmup_cosine", "step", "total_steps"),
        ("slanted_triangular", "step", "total_steps"),
        ("cosine", "step", "T_max"),
        ("linear", "step", "total_iters"),
        ("onecycle", "step", "total_steps"),
        ("step", "epoch", None),
        ("plateau", "validation", None),
    ],
)
def test_when_each_moves_on(name, interval, horizon):
    factory, optimizer = scheduler_of(name), SGD([nn.Parameter(torch.zeros(1))], lr=1, momentum=0.9)
    assert open_horizon(factory) == horizon
    assert build_scheduler(factory, optimizer, 10 if horizon else None)[1] == interval


def test_warmup_cosine_against_closed_form():
    trace, _ = run_schedule(partial(warmup_cosine, total_steps=None, warmup=0.2, final=0.1), 12, 10)
    rise = [1 / 3, 2 / 3]
    fall = [0.1 + 0.9 * half_cosine(t / 8) for t in range(9)]
    torch.testing.assert_close(trace[:, 1], torch.tensor([*rise, *fall, 0.1], dtype=torch.float64))


@pytest.mark.parametrize(("total", "cut_fraction", "cut"), [(100, 0.1, 10), (19, 0.1, 1), (7, 0.3, 2), (10, 0.9, 9)])
def test_slanted_triangular_against_the_paper(total, cut_fraction, cut):
    """Equation 3 with the paper's names; where rounding lets p fall below 0, the lowest rate stays."""
    trace, _ = run_schedule(partial(slanted_triangular, total_steps=None, cut_fraction=cut_fraction), total, total)
    for t, rate in enumerate(trace[:, 1].tolist()):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
        assert rate == pytest.approx((1 + max(p, 0) * (32 - 1)) / 32), t
    assert trace[:, 1].argmax() == cut
    assert trace[:, 1].max().item() == 1.0


@pytest.mark.parametrize("total", [1, 2, 3, 5])
@pytest.mark.parametrize("cut_fraction", [0.01, 0.1, 0.99])
def test_slanted_triangular_of_a_tiny_run(total, cut_fraction):
    trace, _ = run_schedule(partial(slanted_triangular, total_steps=None, cut_fraction=cut_fraction), total + 1, total)
    assert (trace[:, 1] > 0).all()
    assert (trace[:, 1] <= 1).all()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (partial(warmup_cosine, warmup=1.0), r"scheduler.warmup=1.0: give a share of the run from 0 to below 1"),
        (partial(warmup_cosine, warmup=-0.1), r"scheduler.warmup=-0.1"),
        (partial(warmup_cosine, final=-1), r"scheduler.final=-1"),
        (partial(slanted_triangular, ratio=0.5), r"scheduler.ratio=0.5: .*give 1 or more"),
        (partial(slanted_triangular, cut_fraction=0.0), r"scheduler.cut_fraction=0.0: give a share"),
        (partial(slanted_triangular, cut_fraction=1.0), r"scheduler.cut_fraction=1.0"),
    ],
)
def test_impossible_shapes_are_refused(factory, message):
    with pytest.raises(UsageError, match=message):
        run_schedule(partial(factory, total_steps=None), 1, 10)
