"""The learning rate of each layer group at each optimizer step.

All layer groups are in the optimizer from the first step. The usual way to unfreeze, `Optimizer.add_param_group` in the
middle of a run, breaks torch's schedulers: they read the settings of all groups (`initial_lr`, `max_lr`, one lambda per
group) only once, when they are built. Later LambdaLR and OneCycleLR raise an error, and the recursive ones (StepLR,
CosineAnnealingLR, ...) continue from the learning rate with which the group was added.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from headstart.backbones.base import LayerGroup
from headstart.errors import UsageError

# Constructor arguments of schedulers for the number of steps of a run
HORIZONS = ("total_steps", "T_max", "total_iters")
# When the inner scheduler is stepped: after every optimizer step, every epoch, or every validation
STEP, EPOCH, VALIDATION = "step", "epoch", "validation"
# Stands for the step of the unfreezing of a group that was never frozen: its ramp is over
FROM_THE_START = -math.inf


def lr_ratios(groups: Sequence[LayerGroup], backbone_lr_ratio: float, layer_lr_decay: float) -> dict[str, float]:
    """The learning rate of each layer group relative to the head's.

    The last block has the ratio `backbone_lr_ratio`. Each group before it has `layer_lr_decay` times the ratio of the
    next one (discriminative fine-tuning, Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, 3.1: 1/2.6).

    Args:
        groups: layer groups of the backbone, from the stem to the last block.
        backbone_lr_ratio: above 0.
        layer_lr_decay: above 0 and at most 1; 1 gives all groups the same learning rate.

    Returns:
        group name -> ratio, in the given order.

    Raises:
        UsageError: a number out of its range.
    """
    if not backbone_lr_ratio > 0:
        raise UsageError(
            f"task.backbone_lr_ratio={backbone_lr_ratio}: give a number above 0; "
            "to keep the backbone unchanged, use finetuning=feature_extraction"
        )
    if not 0 < layer_lr_decay <= 1:
        raise UsageError(f"task.layer_lr_decay={layer_lr_decay}: give a number above 0 and up to 1, e.g. 0.7")
    last = len(groups) - 1
    return {group.name: backbone_lr_ratio * layer_lr_decay ** (last - place) for place, group in enumerate(groups)}


def parameter_groups(
    layers: Sequence[LayerGroup], head: nn.Module, optimizer: Callable[..., Optimizer], ratios: dict[str, float]
) -> list[dict[str, Any]]:
    """Puts every parameter into exactly one named optimizer group, the head's last.

    Parameters of one dimension (norms and biases) are in groups of their own, without weight decay. Frozen parameters
    are in the groups, too: without a gradient no optimizer changes them, and every scheduler sees the same groups from
    the first step to the last.

    Args:
        layers: layer groups of the backbone.
        head: the new head.
        optimizer: a partial of a torch optimizer; its `lr` is the learning rate of the head.
        ratios: as `lr_ratios` returns them.

    Returns:
        optimizer groups with `name`, `params`, `lr`, and `weight_decay` 0 for norms and biases.
    """
    base = _argument_of(optimizer, "lr")
    named = [(group.name, list(group.named_parameters()), base * ratios[group.name]) for group in layers]
    named.append(("head", list(head.named_parameters()), base))
    decays = "weight_decay" in inspect.signature(optimizer).parameters
    groups = []
    for name, parameters, lr in named:
        flat = [p for _, p in parameters if p.ndim <= 1]
        if shaped := [p for _, p in parameters if p.ndim > 1]:
            groups.append({"name": name, "params": shaped, "lr": lr})
        if flat:
            no_decay = {"weight_decay": 0.0} if decays else {}
            groups.append({"name": f"{name}/no_decay", "params": flat, "lr": lr, **no_decay})
    return groups


class Schedule:
    """The scheduler of a trainer: steps an inner scheduler, and ramps up the learning rates of unfrozen groups.

    An optimizer group is frozen while none of its parameters requires a gradient. When it is unfrozen after the first
    step, the k-th step since then (k = 0, 1, ...) uses its scheduled learning rate times
    `min(1, (k + 1) / (unfreeze_warmup_steps + 1))`. While it is frozen, its learning rate has the first value of the
    ramp, so that the first step after unfreezing uses it. Each unfreezing starts a new ramp. Groups that are not frozen
    at the first step have no ramp; the warm-up of the inner scheduler is for them.

    The task calls this object from its hooks, because Lightning steps schedulers that watch a metric too late: after
    the checkpoints of the epoch are written, and not at all when a run resumes from one. A resumed run would miss a
    reduction. Here all steps are done before a checkpoint is written.

    Args:
        optimizer: with the learning rates that the inner scheduler set when it was built.
        inner: a torch scheduler on this optimizer; None for constant learning rates.
        interval: when the inner scheduler is stepped: `step`, `epoch` or `validation`.
        unfreeze_warmup_steps: optimizer steps of the ramp after an unfreezing; 0: no ramp.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        inner: LRScheduler | None = None,
        interval: str = STEP,
        unfreeze_warmup_steps: int = 0,
    ):
        assert interval in (STEP, EPOCH, VALIDATION), interval
        self.optimizer, self.inner, self.interval = optimizer, inner, interval
        self.unfreeze_warmup_steps = unfreeze_warmup_steps
        self.steps = 0
        self.steps_at_epoch_end = 0
        # learning rate of each group from the inner scheduler, without the ramp
        self.scheduled = [group["lr"] for group in optimizer.param_groups]
        # step at which each group was unfrozen, None while it is frozen; unknown before `begin`
        self.unfrozen_at: list[float | None] | None = None

    def begin(self) -> None:
        """Notes which groups are frozen before the first step. Does nothing in a resumed run, which knows it.

        Call it after the strategy has frozen its groups, which happens after construction. The schedule does not begin
        while all groups are frozen, as during a closed-form head.
        """
        if self.unfrozen_at is None and any(map(_is_trainable, self.optimizer.param_groups)):
            self.unfrozen_at = [
                FROM_THE_START if _is_trainable(group) else None for group in self.optimizer.param_groups
            ]
            self._write_lrs()

    def step(self) -> None:
        """Sets the learning rates of the next optimizer step. Call it after each step."""
        self.begin()
        if self.unfrozen_at is None:
            return
        self._note_frozen_groups()
        self.steps += 1
        if self.interval == STEP:
            self._step_inner()
        self._write_lrs()

    def epoch_ended(self) -> None:
        """Steps an inner scheduler that counts epochs.

        Does nothing if there was no optimizer step since the last call: when a run with `max_steps` resumes from a
        checkpoint of an epoch's end, Lightning ends that epoch a second time.
        """
        if self.steps == self.steps_at_epoch_end:
            return
        self.steps_at_epoch_end = self.steps
        if self.interval == EPOCH:
            self._step_inner()
            self._write_lrs()

    def validated(self, score: float) -> None:
        """Steps an inner scheduler that watches the validation score."""
        if self.interval == VALIDATION and self.unfrozen_at is not None:
            self._step_inner(score)
            self._write_lrs()

    def state_dict(self) -> dict[str, Any]:
        """Plain data with which a resumed run has the same learning rates, together with the optimizer's state."""
        return {  # `woke` is the name of `unfrozen_at` in the checkpoints of earlier versions
            "plan": self._plan(),
            "steps": self.steps,
            "steps_at_epoch_end": self.steps_at_epoch_end,
            "scheduled": list(self.scheduled),
            "woke": None if self.unfrozen_at is None else list(self.unfrozen_at),
            "inner": None if self.inner is None else self.inner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            UsageError: the state is of another scheduler, or of a run with another length.
        """
        if state["plan"] != self._plan():
            before, now = plan_in_words(state["plan"]), plan_in_words(self._plan())
            raise UsageError(
                f"the checkpoint was trained with {before}, this run with {now}: resume with the same "
                "scheduler and the same length (trainer.max_epochs)"
            )
        self.steps, self.steps_at_epoch_end = state["steps"], state["steps_at_epoch_end"]
        self.scheduled = list(state["scheduled"])
        self.unfrozen_at = None if state["woke"] is None else list(state["woke"])
        if self.inner is not None:
            self.inner.load_state_dict(state["inner"])
        self._write_lrs()

    def _plan(self) -> dict[str, Any]:
        """Class and length of the inner scheduler. Loading its state would change the length without a message."""
        horizons = {name: getattr(self.inner, name) for name in HORIZONS if hasattr(self.inner, name)}
        name = getattr(self.inner, "name", type(self.inner).__name__)
        return {"scheduler": None if self.inner is None else name, **horizons}

    def _note_frozen_groups(self) -> None:
        """Notes which groups were frozen and which unfrozen in the optimizer step just made; its number is `steps`."""
        for place, group in enumerate(self.optimizer.param_groups):
            if not _is_trainable(group):
                self.unfrozen_at[place] = None
            elif self.unfrozen_at[place] is None:
                self.unfrozen_at[place] = self.steps

    def _step_inner(self, *score: float) -> None:
        """Steps the inner scheduler on learning rates without ramps: most compute the next from those they find."""
        if self.inner is None:
            return
        groups = self.optimizer.param_groups
        for group, lr in zip(groups, self.scheduled, strict=True):
            group["lr"] = lr
        self.inner.step(*score)
        self.scheduled = [group["lr"] for group in groups]

    def _write_lrs(self) -> None:
        """Writes the scheduled learning rate times the ramp into every group of the optimizer."""
        unfrozen_at = [FROM_THE_START] * len(self.scheduled) if self.unfrozen_at is None else self.unfrozen_at
        for group, lr, step in zip(self.optimizer.param_groups, self.scheduled, unfrozen_at, strict=True):
            group["lr"] = lr * self._ramp(step)

    def _ramp(self, unfrozen_at: float | None) -> float:
        """Factor from above 0 to 1 for a group that was unfrozen at a step, or is frozen (None)."""
        k = 0 if unfrozen_at is None else self.steps - unfrozen_at
        return min(1.0, (k + 1) / (self.unfreeze_warmup_steps + 1))


def build_scheduler(
    factory: Callable[..., LRScheduler], optimizer: Optimizer, total_steps: int | None
) -> tuple[LRScheduler, str]:
    """Builds a torch scheduler from a partial and fills in values that only the run knows.

    A horizon (`total_steps`, `T_max`, `total_iters`) of null becomes the number of optimizer steps of the run. A
    scheduler with such a horizon, or with an argument `total_steps`, is stepped with the optimizer; ReduceLROnPlateau
    after validations; every other one after epochs. A `max_lr` of null becomes the learning rates of the groups.

    Args:
        factory: a partial of a scheduler's class or function.
        optimizer: the scheduler changes its learning rates.
        total_steps: optimizer steps of the run; may be None if `open_horizon` finds none.

    Returns:
        the scheduler, and the interval at which it is stepped: `step`, `epoch` or `validation`.
    """
    filled: dict[str, Any] = {}
    horizon = open_horizon(factory)
    if horizon:
        assert total_steps is not None, f"{horizon} must be known"
        filled[horizon] = max(total_steps, 1)
    given = _given(factory)
    if "max_lr" in given and given["max_lr"] is None:
        filled["max_lr"] = [group["lr"] for group in optimizer.param_groups]
    scheduler = factory(optimizer, **filled)
    if isinstance(scheduler, ReduceLROnPlateau):
        return scheduler, VALIDATION
    counts_steps = horizon or "total_steps" in inspect.signature(factory).parameters
    return scheduler, STEP if counts_steps else EPOCH


def open_horizon(factory: Callable[..., LRScheduler]) -> str | None:
    """The argument of a partial for the number of steps that is null, to be filled in; None if there is none."""
    given = _given(factory)
    return next((name for name in HORIZONS if name in given and given[name] is None), None)


def _given(factory: Callable[..., LRScheduler]) -> dict[str, Any]:
    """The keyword arguments of a partial."""
    return factory.keywords if isinstance(factory, partial) else {}


def _is_trainable(group: dict[str, Any]) -> bool:
    return any(parameter.requires_grad for parameter in group["params"])


def plan_in_words(plan: dict[str, Any]) -> str:
    """`CosineAnnealingLR (T_max=20)`, or `no scheduler`."""
    horizons = ", ".join(f"{name}={value}" for name, value in plan.items() if name != "scheduler")
    return (plan["scheduler"] or "no scheduler") + (f" ({horizons})" if horizons else "")


def _argument_of(factory: Callable[..., Any], argument: str) -> Any:
    """The value of an argument with which a partial calls its function, given or default."""
    return inspect.signature(factory).parameters[argument].default
