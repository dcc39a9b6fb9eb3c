"""The LightningModule that every task extends: a pretrained backbone, a head, and how both are trained."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.parsing import AttributeDict
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection

from headstart.backbones.base import Backbone
from headstart.errors import UsageError, as_usage_error, nearest
from headstart.inputs.base import Preprocess
from headstart.inputs.transforms import Transform
from headstart.metrics.mean_loss import MeanLoss
from headstart.optim.learning_rates import (
    VALIDATION,
    Schedule,
    build_scheduler,
    lr_ratios,
    open_horizon,
    parameter_groups,
)
from headstart.optim.without_compiler import step_without_compiler
from headstart.tasks.objective import Objective


class Task(pl.LightningModule):
    """Trains, validates and tests a backbone with a head; subclasses say which outputs are compared with which targets.

    Args:
        backbone: inputs -> features `(batch, num_features)`.
        head: the new last layers.
        objective: defines the meaning of the outputs: loss, answers and metrics (`tasks/objective.py`).
        optimizer: a partial of a torch optimizer; its `lr` is the learning rate of the head.
        scheduler: a partial of a torch scheduler; None for constant learning rates.
        classes: class names in the order of the data.
        class_weights: weight of each class in the loss.
        backbone_lr_ratio: learning rate of the last block, relative to the head. A backbone without pretrained
            weights has the learning rate of the head.
        layer_lr_decay: learning rate of each layer group, relative to the group above it.
        unfreeze_warmup_steps: if a layer group is unfrozen after the first step, its learning rate rises to its
            scheduled value over this number of optimizer steps; 0: no rise.
        monitor: the metric that ReduceLROnPlateau watches.

    Attributes:
        needs_labels: whether the task can be trained only on data with labels.
        recipe: the experiment for this task, if the settings of `finetuning=auto` do not suit it; None: they do.
        afterwards: the use of a trained run, as a sentence in which `{run}` stands for the run.
        takes_activations: whether `outputs` also takes activations of frozen layer groups in place of inputs.
    """

    needs_labels: ClassVar[bool] = True
    recipe: ClassVar[str | None] = None
    afterwards: ClassVar[str] = "evaluate again with: python src/evaluate.py run={run}"
    takes_activations: ClassVar[bool] = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None,
        classes: Sequence[str],
        class_weights: Sequence[float] | None = None,
        backbone_lr_ratio: float = 0.1,
        layer_lr_decay: float = 1.0,
        unfreeze_warmup_steps: int = 0,
        monitor: str = "val/loss",
    ):
        super().__init__()
        self.forward_from(None)
        self.classes, self.monitor = list(classes), monitor
        self.class_weights = None if class_weights is None else list(class_weights)
        self.objective, self.backbone, self.head = objective, backbone, head
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.layer_groups = backbone.layer_groups()
        pretrained = backbone.pretrained
        self.lr_ratios = lr_ratios(
            self.layer_groups, backbone_lr_ratio if pretrained else 1.0, layer_lr_decay if pretrained else 1.0
        )
        # Modules that train() leaves in eval mode; the strategy sets them
        self.kept_in_eval: list[nn.Module] = []
        # Whether training compares the features of pairs instead of the outputs with the targets; the strategy sets it
        self.contrastive = False
        # Lightning's own mean over processes rounds the number of samples down: 9 on two processes count as 8
        self.train_loss, self.val_loss, self.test_loss = MeanLoss(), MeanLoss(), MeanLoss()
        self.train_metrics = self.objective.training_metrics().clone(prefix="train/")
        self.val_metrics = self.objective.evaluation_metrics().clone(prefix="val/")
        self.test_metrics = self.objective.evaluation_metrics().clone(prefix="test/")
        self._check_monitor()
        if unfreeze_warmup_steps < 0:
            raise UsageError(
                f"task.unfreeze_warmup_steps={unfreeze_warmup_steps}: give a number of optimizer steps, 0 or more"
            )
        self.unfreeze_warmup_steps = unfreeze_warmup_steps
        # Epochs in which nothing is trained, such as those of a closed-form head; the schedule does not count them
        self.epochs_without_steps = 0

    @property
    def hparams_initial(self) -> AttributeDict:
        """What Lightning gives to the loggers: no files of the input, such as a tokenizer of hundreds of kilobytes."""
        found, files = super().hparams_initial, self.backbone.preprocess.files_beside().values()
        found["preprocess"] = {key: value for key, value in found.get("preprocess", {}).items() if value not in files}
        return found

    def _check_monitor(self) -> None:
        known = ["val/loss", *self.val_metrics.keys()]
        if self.monitor not in known:
            raise UsageError(
                f"monitor={self.monitor} is no metric of this task{nearest(self.monitor, known)}: "
                f"choose one of {', '.join(known)}"
            )

    @abstractmethod
    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The outputs of the head for a batch, and the targets that the objective compares them with."""

    def training_outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The same for a training step."""
        return self.outputs(batch)

    def tested_outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The same for a test."""
        return self.outputs(batch)

    def transforms(
        self, augmentation: Callable[[Preprocess], Transform] | None, seed: int
    ) -> tuple[Transform, Preprocess]:
        """The transforms of raw samples into inputs, one for training and one for evaluation.

        Args:
            augmentation: preprocessing -> transform with random changes; None: no augmentation.
            seed: of the data, for an evaluation that draws random numbers but is the same every time.
        """
        preprocess = self.backbone.preprocess
        return (augmentation(preprocess) if augmentation else preprocess), preprocess

    def forward_from(self, rest: nn.Module | None) -> None:
        """Sets the layers that turn cached activations into features; None if there are no cached activations."""
        # not as a submodule: its layers already have a name in the backbone
        object.__setattr__(self, "rest", rest)

    def train(self, mode: bool = True) -> "Task":
        """Like `nn.Module.train`, but frozen modules stay in eval mode.

        In train mode, a frozen BatchNorm would normalise with the statistics of the batch and change its own. A frozen
        dropout or stochastic depth would be random.
        """
        super().train(mode)
        for module in self.kept_in_eval:
            module.training = False
        return self

    def training_step(self, batch: Any, _: int) -> Tensor:
        """The loss of one batch. A callback logs the metrics (`callbacks/training_metrics.py`)."""
        logits, targets = self.training_outputs(batch)
        loss = self.objective.loss(logits, targets)
        counted = self.objective.hard_targets(targets)
        self.train_metrics.update(self.objective.probabilities(logits.detach()), counted)
        self.train_loss.update(loss.detach(), self.objective.batch_weight(targets))
        return loss.requires_grad_()  # Lightning calls backward even if nothing is trained

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Lightning's hook. If nothing is trained, only the closure runs: a gradient scaler would find no gradients."""
        if self._is_trained():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        else:
            optimizer_closure()

    def _is_trained(self) -> bool:
        # the head first: it is trained in most cases, so that the search ends there
        return any(parameter.requires_grad for part in (self.head, self.backbone) for parameter in part.parameters())

    def validation_step(self, batch: Any, _: int) -> Tensor:
        """Adds one batch to the validation metrics; its logits `(batch, num_outputs)` are for callbacks."""
        return self._evaluate(self.outputs(batch), self.val_metrics, self.val_loss)

    def test_step(self, batch: Any, _: int) -> Tensor:
        """Adds one batch to the test metrics; its logits `(batch, num_outputs)` are for callbacks."""
        return self._evaluate(self.tested_outputs(batch), self.test_metrics, self.test_loss)

    def _evaluate(self, outputs: tuple[Tensor, Tensor], metrics: MetricCollection, mean_loss: MeanLoss) -> Tensor:
        logits, targets = outputs
        metrics.update(self.scores(logits), targets)
        mean_loss.update(self.objective.loss(logits, targets), self.objective.batch_weight(targets))
        return logits

    def scores(self, logits: Tensor) -> Tensor:
        """The probabilities that the metrics of evaluation get."""
        return self.objective.probabilities(logits)

    def configure_optimizers(self) -> Any:
        """Named optimizer groups for all layer groups, also for those that are frozen now."""
        step_without_compiler()
        groups = parameter_groups(self.layer_groups, self.head, self.make_optimizer, self.lr_ratios)
        with as_usage_error("optimizer"):
            optimizer = self.make_optimizer(groups)
        schedule = Schedule(
            optimizer, *self._build_scheduler(optimizer), unfreeze_warmup_steps=self.unfreeze_warmup_steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def _build_scheduler(self, optimizer: Optimizer) -> tuple[Any, ...]:
        """The scheduler and its interval; nothing for constant learning rates.

        Raises:
            UsageError: the scheduler needs validations, and this run has none.
        """
        if self.make_scheduler is None:
            return ()
        total_steps = self._total_steps() if open_horizon(self.make_scheduler) else None
        with as_usage_error("scheduler"):
            scheduler, interval = build_scheduler(self.make_scheduler, optimizer, total_steps)
        if interval == VALIDATION and not self.trainer.enable_validation:
            raise UsageError(
                f"the scheduler watches {self.monitor}, but this run validates nothing: "
                "choose another scheduler, or validate (data.val_fraction=0.15, without trainer.limit_val_batches=0)"
            )
        return scheduler, interval

    def _total_steps(self) -> int:
        """Optimizer steps of the run."""
        steps = self.trainer.estimated_stepping_batches
        if not 0 <= steps < float("inf"):  # -1: Lightning's answer for data without a length
            raise UsageError(
                "this scheduler must know the length of the run: give trainer.max_epochs (trainer.max_steps if the "
                "data have no length), or choose scheduler=step, plateau or none"
            )
        if self.epochs_without_steps:
            self.trainer.fit_loop.setup_data()  # with trainer.max_steps the length of an epoch is not known before
            per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
            steps -= self.epochs_without_steps * per_epoch
        return max(int(steps), 0)

    def lr_scheduler_step(self, scheduler: Schedule, metric: Any) -> None:
        """After every optimizer step. The hooks below report epochs and validations; `Schedule` explains why."""
        scheduler.step()

    def on_train_start(self) -> None:
        """Starts the schedule: the strategy has frozen its layer groups by now."""
        self.lr_schedulers().begin()

    def on_train_epoch_end(self) -> None:
        """Reports the end of an epoch to the schedule, before checkpoints are written; not after an interruption."""
        if self.trainer.is_last_batch:
            self.lr_schedulers().epoch_ended()

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics, and reports the score to the schedule, except in a run that only validates."""
        # here and not in each step, because Lightning takes a millisecond for each logged metric
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log_dict(self.val_metrics)
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.lr_schedulers().validated(self._score())

    def on_test_epoch_end(self) -> None:
        """Logs the metrics."""
        self.log("test/loss", self.test_loss)
        self.log_dict(self.test_metrics)

    def _score(self) -> float:
        """The monitored metric, the same in every process.

        torchmetrics keeps the result, so Lightning does not compute it again.
        """
        metrics = {"val/loss": self.val_loss, **dict(self.val_metrics.items(copy_state=False))}
        return metrics[self.monitor].compute().item()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the metrics of the saved weights, as plain numbers."""
        metrics = self.trainer.callback_metrics
        checkpoint["metrics"] = {name: torch.as_tensor(value).item() for name, value in metrics.items()}
