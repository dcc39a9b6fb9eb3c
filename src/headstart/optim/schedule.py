"""How the rates of the layer groups move over a run: schedulers, and the one object that steps them.

All layer groups are in the optimizer from the first step. `Optimizer.add_param_group` in the middle of a run, the usual
way to unfreeze, breaks torch's schedulers: they read what they need of every group (`initial_lr`, `max_lr`, one lambda
each) once, when they are built. Afterwards LambdaLR and OneCycleLR raise, and the recursive ones (StepLR,
CosineAnnealingLR, ...) go on from whatever rate the new group came with.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from headstart.errors import UsageError

# Constructor arguments by which schedulers are told how many steps a run has
HORIZONS = ("total_steps", "T_max", "total_iters")
# When an inner scheduler moves on: after every optimizer step, every epoch, or every validation
STEP, EPOCH, VALIDATION = "step", "epoch", "validation"
# The step at which a group woke that was awake before the first one: its ramp is over
FROM_THE_START = -math.inf


class Schedule:
    """The scheduler a trainer gets: steps an inner one at its own interval, and lets groups that wake later ramp up.

    A group is an optimizer group; it sleeps while none of its parameters requires a gradient. When it wakes after the
    first step, the k-th step since (k = 0, 1, ...) uses its scheduled rate times
    `min(1, (k + 1) / (wake_up_steps + 1))`; asleep, its rate is held at the ramp's first value, so that the step after
    waking already uses it. Each time it sleeps and wakes, it ramps again. Groups awake at the first step have no ramp:
    a warm-up of the inner scheduler is for them.

    The task calls it from its own hooks, because of when Lightning calls schedulers itself: those that watch a metric
    after the checkpoints of the epoch are written and not at all when a run goes on from one, so that a resumed run
    would miss a reduction. Here everything has happened before anything is saved.

    Args:
        optimizer: its groups' rates are what the inner scheduler left when it was built.
        inner: a torch scheduler on this optimizer, or None for constant rates.
        interval: when the inner one moves on: `step`, `epoch` or `validation`.
        wake_up_steps: optimizer steps of the ramp; 0: at once.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        inner: LRScheduler | None = None,
        interval: str = STEP,
        wake_up_steps: int = 0,
    ):
        assert interval in (STEP, EPOCH, VALIDATION), interval
        self.optimizer, self.inner, self.interval = optimizer, inner, interval
        self.wake_up_steps = wake_up_steps
        self.steps = 0
        self.steps_at_epoch_end = 0
        # What the inner scheduler made of each group's rate, without the ramps
        self.scheduled = [group["lr"] for group in optimizer.param_groups]
        # The step at which each group woke, None while it sleeps; nothing is known before `begin`
        self.woke: list[float | None] | None = None

    def begin(self) -> None:
        """Notes which groups are awake before the first step; in a run that goes on, all is known and nothing happens.

        To be called once the strategy has frozen what the first step must not touch, which is after construction.
        While every group sleeps, as when the head is computed, it has not begun.
        """
        if self.woke is None and any(map(_awake, self.optimizer.param_groups)):
            self.woke = [FROM_THE_START if _awake(group) else None for group in self.optimizer.param_groups]
            self._write_rates()

    def step(self) -> None:
        """Sets the rates of the next optimizer step; to be called after each one."""
        self.begin()
        if self.woke is None:
            return
        self._note_sleepers()
        self.steps += 1
        if self.interval == STEP:
            self._move_on()
        self._write_rates()

    def epoch_ended(self) -> None:
        """Moves on what counts epochs.

        Nothing happens without a step since the last call: Lightning ends the epoch of an epoch-end checkpoint a second
        time when a run with `max_steps` goes on from it.
        """
        if self.steps == self.steps_at_epoch_end:
            return
        self.steps_at_epoch_end = self.steps
        if self.interval == EPOCH:
            self._move_on()
            self._write_rates()

    def validated(self, score: float) -> None:
        """Moves on what watches the validation score."""
        if self.interval == VALIDATION and self.woke is not None:
            self._move_on(score)
            self._write_rates()

    def state_dict(self) -> dict[str, Any]:
        """Plain data: all that a run needs to go on with the same rates, beside the optimizer's own state."""
        return {
            "plan": self._plan(),
            "steps": self.steps,
            "steps_at_epoch_end": self.steps_at_epoch_end,
            "scheduled": list(self.scheduled),
            "woke": None if self.woke is None else list(self.woke),
            "inner": None if self.inner is None else self.inner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
            UsageError: the state is another scheduler's, or one's that was planned for a run of another length.
        """
        if state["plan"] != self._plan():
            raise UsageError(
                f"the checkpoint's rates follow {_in_words(state['plan'])}, this run's {_in_words(self._plan())}: "
                "resume with the scheduler and the length (trainer.max_epochs) that the run began with"
            )
        self.steps, self.steps_at_epoch_end = state["steps"], state["steps_at_epoch_end"]
        self.scheduled = list(state["scheduled"])
        self.woke = None if state["woke"] is None else list(state["woke"])
        if self.inner is not None:
            self.inner.load_state_dict(state["inner"])
        self._write_rates()

    def _plan(self) -> dict[str, Any]:
        """The inner scheduler's class and horizon, which its own state would silently bring along."""
        horizons = {name: getattr(self.inner, name) for name in HORIZONS if hasattr(self.inner, name)}
        name = getattr(self.inner, "name", type(self.inner).__name__)
        return {"scheduler": None if self.inner is None else name, **horizons}

    def _note_sleepers(self) -> None:
        """Notes which groups slept, and which woke, in the optimizer step just made, whose number is `steps`."""
        for place, group in enumerate(self.optimizer.param_groups):
            if not _awake(group):
                self.woke[place] = None
            elif self.woke[place] is None:
                self.woke[place] = self.steps

    def _move_on(self, *score: float) -> None:
        """Steps the inner scheduler, which never sees a ramp: most go on from the rates they find in the optimizer."""
        if self.inner is None:
            return
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self.scheduled, strict=True):
            group["lr"] = rate
        self.inner.step(*score)
        self.scheduled = [group["lr"] for group in groups]

    def _write_rates(self) -> None:
        """Writes scheduled rate times ramp into every group of the optimizer."""
        woke = [FROM_THE_START] * len(self.scheduled) if self.woke is None else self.woke
        for group, rate, since in zip(self.optimizer.param_groups, self.scheduled, woke, strict=True):
            group["lr"] = rate * self._ramp(since)

    def _ramp(self, woke: float | None) -> float:
        """Factor from above 0 to 1 for a group that woke at a step, or sleeps (None)."""
        k = 0 if woke is None else self.steps - woke
        return min(1.0, (k + 1) / (self.wake_up_steps + 1))


def build_scheduler(
    factory: Callable[..., LRScheduler], optimizer: Optimizer, total_steps: int | None
) -> tuple[LRScheduler, str]:
    """Builds a torch scheduler from a partial, filling in what only the run knows.

    A horizon (`total_steps`, `T_max`, `total_iters`) left null becomes the number of optimizer steps of the run.
    Schedulers told a horizon so, and all that take `total_steps`, step with the optimizer; ReduceLROnPlateau watches
    validations; every other one counts epochs. A null `max_lr` becomes the groups' own rates.

    Args:
        factory: a partial of a scheduler's class or function.
        optimizer: whose rates it is to move.
        total_steps: optimizer steps of the run; None will do where `open_horizon` finds none.

    Returns:
        the scheduler, and the interval it moves on at: `step`, `epoch` or `validation`.
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
    """The horizon a partial leaves null for the run to fill in; None if it needs no run length."""
    given = _given(factory)
    return next((name for name in HORIZONS if name in given and given[name] is None), None)


def _given(factory: Callable[..., LRScheduler]) -> dict[str, Any]:
    """The arguments a partial carries."""
    return factory.keywords if isinstance(factory, partial) else {}


def _awake(group: dict[str, Any]) -> bool:
    return any(parameter.requires_grad for parameter in group["params"])


def _in_words(plan: dict[str, Any]) -> str:
    """`CosineAnnealingLR (T_max=20)`, or `no scheduler`."""
    horizons = ", ".join(f"{name}={value}" for name, value in plan.items() if name != "scheduler")
    return (plan["scheduler"] or "no scheduler") + (f" ({horizons})" if horizons else "")
