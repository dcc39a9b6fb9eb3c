"""Freezes and unfreezes layer groups during a run. The learning rates are in `optim/learning_rates.py`."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from headstart.backbones.base import LayerGroup
from headstart.data.module import DataModule
from headstart.errors import UsageError, counted, nearest
from headstart.finetuning.stages import Progress, Stage
from headstart.metrics.scores import goodness

log = logging.getLogger(__name__)
BATCH_NORM = ("frozen", "affine", "adapt_stats", "train")


class StagedFinetuning(BaseFinetuning):
    """Freezes and unfreezes layer groups in stages; a strategy only lists the stages.

    A frozen group is in eval mode and has no gradient, so not one bit of it changes. Lightning's `freeze` and
    `unfreeze_and_add_param_group` are not used: with the first, BatchNorm still normalises with batch statistics; the
    second breaks schedulers and resuming. Here every group is in the optimizer from the first step.

    Args:
        batch_norm: BatchNorm in groups that are trained: `frozen` (statistics and affine parameters do not change),
            `affine` (only the affine parameters are trained), `adapt_stats` (only the statistics are updated) or
            `train` (both); or a list with one of these for each stage, the last one also for all later stages. In
            frozen groups it is always `frozen`, in a backbone without pretrained weights always `train`.
        patience: the run ends after this many validations without improvement in the last stage; None: it does not.
        goal: the run ends when the monitored metric reaches this score, in any stage; None: no goal.

    Attributes:
        trains_backbone: whether any group of the backbone is trained in any stage.
        random_weights: whether the backbone starts from random weights, even if the model names pretrained ones.
        contrastive: whether the backbone is trained on pairs of samples.
    """

    trains_backbone = True
    random_weights = False
    contrastive = False

    def __init__(
        self,
        batch_norm: str | Sequence[str] = "frozen",
        patience: int | None = None,
        goal: float | None = None,
    ):
        super().__init__()
        self.batch_norm = [batch_norm] if isinstance(batch_norm, str) else list(batch_norm)
        for policy in self.batch_norm or ["none"]:
            if policy not in BATCH_NORM:
                hint = nearest(str(policy), BATCH_NORM)
                raise UsageError(f"finetuning.batch_norm={policy}{hint}: choose one of {', '.join(BATCH_NORM)}")
        self.patience, self.goal = at_least_one("patience", patience), goal
        self.plan: list[Stage] = []
        self.progress = Progress()
        self.why_ended = ""

    @property
    def current_stage(self) -> Stage:
        """The current stage."""
        return self.plan[self.progress.stage]

    @abstractmethod
    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """The stages of the run; the last one has no end.

        Args:
            groups: names of the backbone's layer groups, stem first.
        """

    def is_trained(self, parameter: nn.Parameter) -> bool:
        """Whether a parameter of a trained group is trained."""
        return True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Plans the stages and refuses settings that cannot work.

        It freezes nothing: DDP must first see every parameter, and `trainer.test()` must not freeze anything.
        """
        refuse_sharding(type(trainer.strategy).__name__)
        if stage == "fit":
            if trainer.global_step == 0:  # a new run; a resumed one loads its progress later
                self.progress = Progress()
            self.make_plan(pl_module)
            self._check_length(trainer)

    def make_plan(self, task: pl.LightningModule) -> None:
        """Sets `plan`: the stages of the strategy, or for random weights one stage that trains all groups."""
        names = [group.name for group in task.layer_groups]
        whole = [Stage(frozenset(names), contrastive=self.contrastive)]
        self.plan = self.stages(names) if task.backbone.pretrained else whole
        task.epochs_without_steps = sum(stage.closed_form for stage in self.plan)

    def _check_length(self, trainer: pl.Trainer) -> None:
        *before, last = self.plan
        assert last.epochs is None, "the last stage must have no end"
        if any(stage.epochs is None and not stage.closed_form for stage in before) and not trainer.limit_val_batches:
            raise UsageError(
                "a stage ends when validation stops improving, but this run validates nothing: give the stage a length "
                "(finetuning.head_epochs=3), or validate (data.val_fraction=0.15, without trainer.limit_val_batches=0)"
            )
        for number, first in enumerate(self.first_epochs()[1:], start=2):
            if trainer.max_epochs is not None and 0 < trainer.max_epochs <= first and not trainer.fast_dev_run:
                log.warning(
                    "stage %d of %d would begin with epoch %d, but trainer.max_epochs=%d: the run ends before",
                    *(number, len(self.plan), first + 1, trainer.max_epochs),
                )
                return

    def first_epochs(self) -> list[int]:
        """The first epoch of each stage; a stage without a fixed length is counted as 0 epochs."""
        lengths = [1 if stage.closed_form else stage.epochs or 0 for stage in self.plan[:-1]]
        return [0, *accumulate(lengths)]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freezes the groups of the current stage, and wraps the model in DDP again.

        DDP only synchronises parameters that were not frozen when it wrapped the model.
        """
        if not pl_module.backbone.pretrained:
            log.info("the backbone has no pretrained weights: all layers have the learning rate of the head")
        # trainer.sync_batchnorm has replaced all BatchNorm modules since the task was built
        pl_module.layer_groups = pl_module.backbone.layer_groups()
        self._enter(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops a resumed run that had already ended by patience or goal."""
        self._stop_if_done(trainer, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the next stage when the current one is over."""
        last = self.progress.stage == len(self.plan) - 1
        reason = None if last else self.progress.end_of(self.current_stage, trainer.current_epoch)
        if reason:
            self.progress = Progress(stage=self.progress.stage + 1, began=trainer.current_epoch)
            log.info("stage %d of %d: %s", self.progress.stage + 1, len(self.plan), reason)
            self._enter(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets all processes validate with the BatchNorm statistics of the first process, which a checkpoint saves.

        DDP sends them to the others in the next forward pass, but not between accumulated batches.
        """
        if isinstance(trainer.model, DistributedDataParallel):
            trainer.model.require_forward_param_sync = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Counts validations without improvement, before any checkpoint of this validation is written."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = float(trainer.callback_metrics[pl_module.monitor])
        self.progress.count(score, pl_module.monitor)
        self._stop_if_done(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends a run whose last stage computes the closed-form head: one epoch is enough."""
        self._stop_if_done(trainer, trainer.current_epoch + 1)

    def _stop_if_done(self, trainer: pl.Trainer, epoch: int) -> None:
        """Ends the run if its last stage is over; `epoch` is the current one or the next one to begin."""
        if trainer.should_stop:  # already decided
            return
        last = self.progress.stage == len(self.plan) - 1
        if last and self.plan[-1].closed_form and epoch > self.progress.began:
            self._end(trainer, "the closed-form head is computed, nothing else is trained: the run ends")
        monitor, best = trainer.lightning_module.monitor, self.progress.best
        goals = (self.goal, self.current_stage.goal)
        # metrics have single precision: 95 of 100 give 0.94999999
        reached = [g for g in goals if g is not None and goodness(best, monitor) >= goodness(g, monitor) - 1e-6]
        if reached:
            self._end(trainer, f"{monitor} is {best:.4f}: the run ends (its goal was {reached[0]:g})")
        elif last and self.patience is not None and self.progress.waited >= self.patience:
            waited = counted(self.progress.waited, "validation")
            self._end(trainer, f"no improvement in {waited}: the run ends (finetuning.patience)")

    def _end(self, trainer: pl.Trainer, why: str) -> None:
        trainer.should_stop, self.why_ended = True, why

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says why the run ended before its last epoch; here, because the line of the epoch comes first."""
        if self.why_ended:
            log.info(self.why_ended)

    def replace_stages_by_one(self, trained: frozenset[str]) -> None:
        """Trains these groups in one stage without an end, a patience or a goal, for a rehearsal."""
        self.plan = [Stage(trained)]
        self.patience = self.goal = None

    def _enter(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        before = [parameter.requires_grad for parameter in task.parameters()]
        self.apply(task)
        if isinstance(trainer.datamodule, DataModule):
            trainer.datamodule.balanced_batches = task.contrastive
        _check_optimizers(trainer, task)
        if before != [parameter.requires_grad for parameter in task.parameters()]:
            _wrap_again(trainer)

    def apply(self, task: pl.LightningModule) -> None:
        """Sets requires_grad and the mode of every group for the current stage; a second call changes nothing."""
        from_scratch = not task.backbone.pretrained
        stage = self.current_stage
        policy = self.batch_norm[min(self.progress.stage, len(self.batch_norm) - 1)]
        kept: list[nn.Module] = []
        for group in task.layer_groups:
            if group.name not in stage.trained:
                group.set_trainable(False)
                kept += group.modules.values()
            elif from_scratch:
                group.set_trainable(True)
            else:
                group.set_trainable(True, self.is_trained)
                kept += _hold_batch_norm(group, policy)
        task.head.requires_grad_(not stage.closed_form and not stage.contrastive)
        task.contrastive = stage.contrastive
        task.kept_in_eval = kept
        task.train()

    def state_dict(self) -> dict[str, Any]:
        """The progress of the run, as plain data."""
        return asdict(self.progress)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the progress of a checkpoint; `on_fit_start` then applies it."""
        self.progress = Progress(**state_dict)

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        """Not used; see `on_fit_start`."""

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: Any) -> None:
        """Not used; see `on_train_epoch_start`."""


def strategy_of(trainer: pl.Trainer) -> StagedFinetuning:
    """The strategy of a run; every run has exactly one."""
    (strategy,) = (callback for callback in trainer.callbacks if isinstance(callback, StagedFinetuning))
    return strategy


def refuse_sharding(strategy: str) -> None:
    """Raises a UsageError for strategies of Lightning that shard parameters: layers could not be unfrozen in a run."""
    if any(word in strategy.lower() for word in ("deepspeed", "fsdp", "modelparallel")):
        raise UsageError(
            f"finetuning in stages does not run under {strategy}, which splits parameters among devices: "
            "use trainer=ddp or a single device"
        )


def frozen_prefix(groups: Sequence[LayerGroup]) -> int:
    """Number of groups, counted from the stem, before the first group that is trained."""
    return next((place for place, group in enumerate(groups) if not group.frozen), len(groups))


def at_least_one(key: str, given: int | None) -> int | None:
    """`given` when it is None or at least 1; otherwise a UsageError naming `finetuning.<key>`."""
    if given is not None and given < 1:
        raise UsageError(f"finetuning.{key}={given}: give a whole number of at least 1")
    return given


def _hold_batch_norm(group: LayerGroup, policy: str) -> list[nn.Module]:
    """Applies the policy to the BatchNorms of a trained group; returns the ones that stay in eval mode."""
    norms: Iterable[nn.Module] = [module for module in group.modules.values() if isinstance(module, _BatchNorm)]
    if policy in ("frozen", "adapt_stats"):
        for norm in norms:
            LayerGroup(group.name, {"": norm}).set_trainable(False)
    return list(norms) if policy in ("frozen", "affine") else []


def _check_optimizers(trainer: pl.Trainer, task: pl.LightningModule) -> None:
    """Every trained parameter must be in exactly one optimizer group: in none it would stay, in two it moves twice."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    placed = Counter(id(parameter) for group in groups for parameter in group["params"])
    stray = [
        f"{name} ({placed[id(p)]})" for name, p in task.named_parameters() if p.requires_grad and placed[id(p)] != 1
    ]
    assert not stray, f"trained parameters must be in one optimizer group, these are in (n): {', '.join(stray)}"


def _wrap_again(trainer: pl.Trainer) -> None:
    """Wraps the model in DDP again, because DDP finds the trained parameters only when it wraps a model.

    DDP refuses a model in which nothing is trained. Wrapping also sends all parameters and buffers of the first process
    to the others. The alternative, `find_unused_parameters=True`, searches the graph in every step and still sends
    zeros for every frozen parameter; `scripts/bench_ddp.py` measures both.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = strategy.lightning_module
        if any(parameter.requires_grad for parameter in strategy.model.parameters()):
            strategy.configure_ddp()
