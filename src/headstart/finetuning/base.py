"""When each layer group learns. How fast it learns is `optim.py`'s business."""

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
from headstart.errors import UsageError, nearest
from headstart.finetuning.stages import Progress, Stage
from headstart.metrics.scores import goodness

log = logging.getLogger(__name__)
BATCH_NORM = ("frozen", "affine", "adapt_stats", "train")


class StagedFinetuning(BaseFinetuning):
    """Freezes and unfreezes layer groups in stages; a strategy lists the stages and nothing else.

    What is frozen is in eval mode, has no gradient and is bit for bit left alone. Lightning's own `freeze` and
    `unfreeze_and_add_param_group` are not used: the first leaves BatchNorm normalising with batch statistics, the
    second breaks schedulers and resumption; here every group is in the optimizer from the first step.

    Args:
        batch_norm: what BatchNorm does in groups that learn: `frozen` (statistics and affine parameters stay),
            `affine` (only these learn), `adapt_stats` (only the statistics follow the data) or `train` (both); or a
            list, one for each stage, whose last one holds on. In frozen groups it is always frozen, in a backbone
            without pretrained weights it always trains.
        patience: validations without improvement, counted in the last stage, that end the run; None: never.
        goal: score of the monitored metric that ends the run once it is reached, in whatever stage; None: none does.

    Attributes:
        trains_backbone: whether any group of the backbone learns in any stage.
        random_weights: whether the model's pretrained weights are left out.
    """

    trains_backbone = True
    random_weights = False

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

    @abstractmethod
    def stages(self, groups: Sequence[str]) -> list[Stage]:
        """What learns when, given the names of the backbone's groups, stem first. The last stage lasts to the end."""

    def learns(self, parameter: nn.Parameter) -> bool:
        """Whether a parameter of a learning group learns."""
        return True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Plans the stages and refuses what cannot work.

        Nothing is frozen here: DDP must first see every parameter, and `trainer.test()` must not freeze anything.
        """
        refuse_sharding(type(trainer.strategy).__name__)
        if stage == "fit":
            if trainer.global_step == 0:  # a new run; one that goes on loads its progress after this
                self.progress = Progress()
            self.make_plan(pl_module)
            self._check_length(trainer)

    def make_plan(self, task: pl.LightningModule) -> None:
        """Asks the strategy for its stages; a backbone without pretrained weights has nothing worth freezing."""
        names = [group.name for group in task.layer_groups]
        self.plan = self.stages(names) if task.backbone.pretrained else [Stage(frozenset(names))]
        task.epochs_without_steps = sum(stage.solved for stage in self.plan)

    def _check_length(self, trainer: pl.Trainer) -> None:
        *before, last = self.plan
        assert last.epochs is None, "the last stage lasts to the end"
        if any(stage.epochs is None and not stage.solved for stage in before) and not trainer.limit_val_batches:
            raise UsageError("a stage ends when validation stops improving, but trainer.limit_val_batches=0")
        for number, begins in enumerate(self.begins()[1:], start=2):
            if trainer.max_epochs is not None and 0 < trainer.max_epochs <= begins and not trainer.fast_dev_run:
                log.warning(
                    "stage %d of %d would begin with epoch %d, but trainer.max_epochs=%d: it never does",
                    *(number, len(self.plan), begins, trainer.max_epochs),
                )
                return

    def begins(self) -> list[int]:
        """The epoch in which each stage of the plan begins; one that ends when it will counts as no epoch."""
        lengths = [1 if stage.solved else stage.epochs or 0 for stage in self.plan[:-1]]
        return [0, *accumulate(lengths)]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freezes, and lets DDP wrap the model again: it never synchronises what was frozen when it wrapped."""
        if not pl_module.backbone.pretrained:
            log.info("the backbone has no pretrained weights: nothing is frozen, everything learns at the head's rate")
        # trainer.sync_batchnorm has put other modules in the place of each BatchNorm since the task was built
        pl_module.layer_groups = pl_module.backbone.layer_groups()
        self._enter(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets a run that had already stopped by itself stop again when it is resumed."""
        self._stop_when_done(trainer, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on to the next stage when the present one is over."""
        stage = self.plan[self.progress.stage]
        last = self.progress.stage == len(self.plan) - 1
        reason = None if last else self.progress.end_of(stage, trainer.current_epoch)
        if reason:
            self.progress = Progress(stage=self.progress.stage + 1, began=trainer.current_epoch)
            log.info("stage %d of %d: %s", self.progress.stage + 1, len(self.plan), reason)
            self._enter(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets all processes validate with the first one's BatchNorm statistics, which are what a checkpoint keeps.

        DDP sends them around in the next forward by itself, but not amid accumulated batches.
        """
        if isinstance(trainer.model, DistributedDataParallel):
            trainer.model.require_forward_param_sync = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Counts validations without improvement, before any checkpoint of this validation is written."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = float(trainer.callback_metrics[pl_module.monitor])
        self.progress.count(score, pl_module.monitor)
        self._stop_when_done(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends a run whose last stage computes the head: it has no second epoch."""
        self._stop_when_done(trainer, trainer.current_epoch + 1)

    def _stop_when_done(self, trainer: pl.Trainer, epoch: int) -> None:
        """`epoch`: the one about to go on or to begin."""
        if trainer.should_stop:  # told already
            return
        last = self.progress.stage == len(self.plan) - 1
        if last and self.plan[-1].solved and epoch > self.progress.began:
            log.info("the head is solved, nothing else learns: the run ends")
            trainer.should_stop = True
        monitor, best = trainer.lightning_module.monitor, self.progress.best
        goals = (self.goal, self.plan[self.progress.stage].goal)
        # metrics are of single precision: 95 of 100 are 0.94999999
        reached = [g for g in goals if g is not None and goodness(best, monitor) >= goodness(g, monitor) - 1e-6]
        if reached:
            log.info("%s is %.4f: the run ends (its goal was %g)", monitor, best, reached[0])
            trainer.should_stop = True
        elif last and self.patience is not None and self.progress.waited >= self.patience:
            log.info("no improvement in %d validations: the run ends (finetuning.patience)", self.progress.waited)
            trainer.should_stop = True

    def _enter(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        before = [parameter.requires_grad for parameter in task.parameters()]
        self.apply(task)
        _check_optimizers(trainer, task)
        if before != [parameter.requires_grad for parameter in task.parameters()]:
            _wrap_again(trainer)

    def apply(self, task: pl.LightningModule) -> None:
        """Sets gradients and modes of every group as the present stage wants them; doing so again changes nothing."""
        from_scratch = not task.backbone.pretrained
        stage = self.plan[self.progress.stage]
        policy = self.batch_norm[min(self.progress.stage, len(self.batch_norm) - 1)]
        kept: list[nn.Module] = []
        for group in task.layer_groups:
            if group.name not in stage.learning:
                group.set_trainable(False)
                kept += group.modules.values()
            elif from_scratch:
                group.set_trainable(True)
            else:
                group.set_trainable(True, self.learns)
                kept += _hold_batch_norm(group, policy)
        task.head.requires_grad_(not stage.solved)
        task.kept_in_eval = kept
        task.train()

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, as plain data."""
        return asdict(self.progress)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint stood; `on_fit_start` then applies it."""
        self.progress = Progress(**state_dict)

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        """Not used; see `on_fit_start`."""

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: Any) -> None:
        """Not used; see `on_train_epoch_start`."""


def strategy_of(trainer: pl.Trainer) -> StagedFinetuning:
    """The strategy of a run: each has one."""
    (strategy,) = (callback for callback in trainer.callbacks if isinstance(callback, StagedFinetuning))
    return strategy


def refuse_sharding(strategy: str) -> None:
    """Raises a UsageError where Lightning's strategy of this name cannot change what learns in the middle of a run."""
    if any(word in strategy.lower() for word in ("deepspeed", "fsdp", "modelparallel")):
        raise UsageError(
            f"finetuning in stages does not run under {strategy}, which cuts parameters into pieces of its own: "
            "use trainer=ddp or a single device"
        )


def frozen_prefix(groups: Sequence[LayerGroup]) -> int:
    """How many groups, counted from the stem, do not learn before the first one that does."""
    return next((place for place, group in enumerate(groups) if not group.frozen), len(groups))


def at_least_one(key: str, given: int | None) -> int | None:
    """`given` when it is None or at least 1; otherwise a UsageError naming `finetuning.<key>`."""
    if given is not None and given < 1:
        raise UsageError(f"finetuning.{key}={given}: give a whole number of at least 1")
    return given


def _hold_batch_norm(group: LayerGroup, policy: str) -> list[nn.Module]:
    """Applies the policy to the BatchNorms of a learning group; returns those that stay in eval mode."""
    norms: Iterable[nn.Module] = [module for module in group.modules.values() if isinstance(module, _BatchNorm)]
    if policy in ("frozen", "adapt_stats"):
        for norm in norms:
            LayerGroup(group.name, {"": norm}).set_trainable(False)
    return list(norms) if policy in ("frozen", "affine") else []


def _check_optimizers(trainer: pl.Trainer, task: pl.LightningModule) -> None:
    """What learns must be in exactly one optimizer group, or it would not learn, or learn twice."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    placed = Counter(id(parameter) for group in groups for parameter in group["params"])
    stray = [
        f"{name} ({placed[id(p)]})" for name, p in task.named_parameters() if p.requires_grad and placed[id(p)] != 1
    ]
    assert not stray, f"parameters that learn must be in one optimizer group, these are in (n): {', '.join(stray)}"


def _wrap_again(trainer: pl.Trainer) -> None:
    """Lets DDP look anew at what learns, which it does only when it wraps a model; where nothing does, it refuses.

    It also sends all parameters and buffers of the first process to the others. The alternative, to freeze after the
    wrap with `find_unused_parameters=True`, walks the graph in every step and still sends every frozen parameter's
    zeros around; `scripts/bench_ddp.py` measures both.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = strategy.lightning_module
        if any(parameter.requires_grad for parameter in strategy.model.parameters()):
            strategy.configure_ddp()
