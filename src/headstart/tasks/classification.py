"""The LightningModule: a pretrained backbone, a new head, and what they are trained for."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, MetricCollection

from headstart.backbones.base import Backbone
from headstart.data.activations import Activations
from headstart.errors import UsageError, nearest
from headstart.optim.parameter_groups import lr_ratios, parameter_groups
from headstart.optim.schedule import VALIDATION, Schedule, build_scheduler, open_horizon


class ClassificationTask(pl.LightningModule):
    """Inputs -> logits `(batch, num_outputs)`; trained, validated and tested on `(inputs, targets)` batches.

    Nothing here knows what an input is: a picture batch, or a dict of token tensors.

    Args:
        backbone: inputs -> features `(batch, num_features)`.
        head: called with `in_features` and `num_outputs`, gives the new last layers.
        objective: called with `num_classes` and `class_weights`, says what the logits mean.
        optimizer: a partial of a torch optimizer; its `lr` is the head's rate.
        scheduler: a partial of a torch scheduler, or None for constant rates.
        classes: class names in the order of the outputs.
        class_weights: weight of each class in the loss.
        backbone_lr_ratio: rate of the last block relative to the head. A backbone without pretrained weights
            learns at the head's rate.
        layer_lr_decay: rate of each layer group relative to the one above it.
        wake_up_steps: optimizer steps over which the rate of a layer group that wakes later than the first step rises
            to its scheduled value; 0: at once.
        mixing: called with `num_classes`, gives a function that mixes a training batch `(inputs, targets)` and its
            targets (`mixing=` in the config). Training metrics then compare each mixed sample with the class that has
            the larger share. None: no mixing.
        test_time: a batch of inputs -> several versions of it (`test_time=` in the config); in tests and predictions
            the logits are their mean. None: the batch alone.
        monitor: the metric that schedulers watching one (ReduceLROnPlateau) look at.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: Callable[..., nn.Module],
        objective: Callable[..., nn.Module],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None,
        classes: Sequence[str],
        class_weights: Sequence[float] | None = None,
        backbone_lr_ratio: float = 0.1,
        layer_lr_decay: float = 1.0,
        wake_up_steps: int = 0,
        mixing: Callable[..., Callable[[Any, Tensor], tuple[Any, Tensor]]] | None = None,
        test_time: Callable[[Any], Sequence[Any]] | None = None,
        monitor: str = "val/loss",
    ):
        super().__init__()
        self.go_on_with(None)
        self.classes, self.monitor = list(classes), monitor
        self.class_weights = None if class_weights is None else list(class_weights)
        self.objective = objective(num_classes=len(self.classes), class_weights=class_weights)
        self.mixing = None if mixing is None else mixing(num_classes=len(self.classes))
        self.test_time = test_time
        self.backbone = backbone
        self.head = head(in_features=backbone.num_features, num_outputs=self.objective.num_outputs)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.layer_groups = backbone.layer_groups()
        pretrained = backbone.pretrained
        self.lr_ratios = lr_ratios(
            self.layer_groups, backbone_lr_ratio if pretrained else 1.0, layer_lr_decay if pretrained else 1.0
        )
        # Modules that stay in eval mode whatever train() is told; a strategy says which
        self.kept_in_eval: list[nn.Module] = []
        # Lightning's own mean over processes rounds the number of samples down: 9 on two processes count as 8
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.train_metrics = self.objective.training_metrics().clone(prefix="train/")
        self.val_metrics = self.objective.evaluation_metrics().clone(prefix="val/")
        self.test_metrics = self.objective.evaluation_metrics().clone(prefix="test/")
        self._check_monitor()
        if wake_up_steps < 0:
            raise UsageError(f"task.wake_up_steps={wake_up_steps}: give a number of optimizer steps, 0 or more")
        self.wake_up_steps = wake_up_steps
        # Epochs in which a strategy lets nothing learn: the schedule does not count them
        self.epochs_without_steps = 0

    def _check_monitor(self) -> None:
        known = ["val/loss", *self.val_metrics.keys()]
        if self.monitor not in known:
            raise UsageError(
                f"monitor={self.monitor} is no metric of this task{nearest(self.monitor, known)}: "
                f"choose one of {', '.join(known)}"
            )

    def forward(self, inputs: Any) -> Tensor:
        """Inputs as the data set yields them, or activations of frozen groups -> logits `(batch, num_outputs)`."""
        if isinstance(inputs, Activations):
            assert self.rest is not None, "nobody said which part of the backbone these activations are from"
            return self.head(self.rest(inputs.values))
        return self.head(self.backbone(inputs))

    def go_on_with(self, rest: nn.Module | None) -> None:
        """Sets `rest`, by which activations become features; made of the backbone's own modules, or None for none."""
        # not as a submodule: its modules have their place and their names in the backbone
        object.__setattr__(self, "rest", rest)

    def train(self, mode: bool = True) -> "ClassificationTask":
        """Like `nn.Module.train`, but what a strategy froze stays in eval mode.

        A frozen BatchNorm in train mode would normalise with the batch's statistics and move its own; a frozen
        dropout or stochastic depth would still be random.
        """
        super().train(mode)
        for module in self.kept_in_eval:
            module.training = False
        return self

    def training_step(self, batch: tuple[Any, Tensor], _: int) -> Tensor:
        """Loss of one batch; what is counted, a callback logs (`callbacks/training_metrics.py`)."""
        inputs, targets = batch
        # where nothing learns, the head is computed from plain samples, perhaps from activations of them
        if self.mixing and self._learns():
            inputs, targets = self.mixing(inputs, targets)
        logits = self(inputs)
        loss = self.objective.loss(logits, targets)
        counted = self.objective.hard_targets(targets)
        self.train_metrics.update(self.objective.probabilities(logits.detach()), counted)
        self.train_loss.update(loss.detach(), self.objective.batch_weight(targets))
        return loss.requires_grad_()  # where nothing learns, Lightning still calls backward

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Lightning's; where nothing learns only the closure, since a scaler of gradients would miss them."""
        if self._learns():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        else:
            optimizer_closure()

    def _learns(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())

    def validation_step(self, batch: tuple[Any, Tensor], _: int) -> Tensor:
        """Adds one batch to the validation metrics; its logits `(batch, num_outputs)` are for callbacks."""
        logits = self(batch[0])
        self._evaluate(batch, logits, "val", self.val_metrics, self.val_loss)
        return logits

    def test_step(self, batch: tuple[Any, Tensor], _: int) -> Tensor:
        """Adds one batch to the test metrics; its logits `(batch, num_outputs)` are for callbacks."""
        logits = self.tested_logits(batch[0])
        self._evaluate(batch, logits, "test", self.test_metrics, self.test_loss)
        return logits

    def _evaluate(
        self, batch: tuple[Any, Tensor], logits: Tensor, split: str, metrics: MetricCollection, mean_loss: MeanMetric
    ) -> None:
        _, targets = batch
        metrics.update(self.objective.probabilities(logits), targets)
        mean_loss.update(self.objective.loss(logits, targets), self.objective.batch_weight(targets))
        self.log(f"{split}/loss", mean_loss, on_epoch=True, prog_bar=split == "val")
        self.log_dict(metrics, on_epoch=True)

    def predict_step(self, batch: Any, _: int) -> Tensor:
        """Probabilities `(batch, num_classes)` of a batch of inputs, with or without targets."""
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        return self.objective.probabilities(self.tested_logits(inputs))

    def tested_logits(self, inputs: Any) -> Tensor:
        """Logits `(batch, num_outputs)` of a network in use: the mean over the versions that `test_time` makes."""
        return mean_logits(self, self.test_time, inputs)

    def configure_optimizers(self) -> Any:
        """One named optimizer group a layer group, all of them from the first step on."""
        groups = parameter_groups(self.layer_groups, self.head, self.make_optimizer, self.lr_ratios)
        optimizer = self.make_optimizer(groups)
        schedule = Schedule(optimizer, *self._build_scheduler(optimizer), wake_up_steps=self.wake_up_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def _build_scheduler(self, optimizer: Optimizer) -> tuple[Any, ...]:
        """The scheduler and its interval, or nothing for constant rates; refuses what this run cannot give it."""
        if self.make_scheduler is None:
            return ()
        total_steps = self._total_steps() if open_horizon(self.make_scheduler) else None
        scheduler, interval = build_scheduler(self.make_scheduler, optimizer, total_steps)
        if interval == VALIDATION and not self.trainer.enable_validation:
            raise UsageError(
                f"the scheduler watches {self.monitor}, but this run validates nothing: "
                "give trainer.limit_val_batches a number above 0, or choose another scheduler"
            )
        return scheduler, interval

    def _total_steps(self) -> int:
        """Optimizer steps of the run."""
        steps = self.trainer.estimated_stepping_batches
        if not 0 <= steps < float("inf"):  # -1: Lightning's answer for data without a length
            raise UsageError(
                "this scheduler must know the length of the run: give trainer.max_epochs (or trainer.max_steps where "
                "the data have no length), or scheduler=step, plateau or none"
            )
        if self.epochs_without_steps:
            self.trainer.fit_loop.setup_data()  # a run limited by steps alone does not know the length of an epoch yet
            per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
            steps -= self.epochs_without_steps * per_epoch
        return max(int(steps), 0)

    def lr_scheduler_step(self, scheduler: Schedule, metric: Any) -> None:
        """After every optimizer step. Epochs and validations are told by the hooks below; `Schedule` says why."""
        scheduler.step()

    def on_train_start(self) -> None:
        """The strategy has frozen what sleeps at the first step."""
        self.lr_schedulers().begin()

    def on_train_epoch_end(self) -> None:
        """Before the checkpoints of the epoch are written. A stop in the middle ends no epoch."""
        if self.trainer.is_last_batch:
            self.lr_schedulers().epoch_ended()

    def on_validation_epoch_end(self) -> None:
        """Tells the schedule the score; not after a sanity check, nor when somebody only validates."""
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.lr_schedulers().validated(self._score())

    def _score(self) -> float:
        """The monitored metric, the same on every process; Lightning has computed it, and torchmetrics keeps it."""
        metrics = {"val/loss": self.val_loss, **dict(self.val_metrics.items(copy_state=False))}
        return metrics[self.monitor].compute().item()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the metrics of the saved weights beside them, as plain numbers."""
        metrics = self.trainer.callback_metrics
        checkpoint["metrics"] = {name: torch.as_tensor(value).item() for name, value in metrics.items()}


def mean_logits(
    network: Callable[[Any], Tensor], test_time: Callable[[Any], Sequence[Any]] | None, inputs: Any
) -> Tensor:
    """The logits of a network for a batch, averaged over its versions at test time."""
    if test_time is None:
        return network(inputs)
    first, *others = (network(version) for version in test_time(inputs))
    return sum(others, start=first) / (1 + len(others))
