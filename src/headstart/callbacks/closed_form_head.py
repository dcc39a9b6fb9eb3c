"""Computes the closed-form head: the best linear layer for the features, without training steps."""

import copy
import logging
import time
from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor, nn

from headstart.backbones.parts import InferenceCopy
from headstart.data.module import DataModule
from headstart.errors import UsageError, counted
from headstart.finetuning.base import strategy_of
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.objective import Objective

log = logging.getLogger(__name__)
ROWS_PER_READ = 1024
FEWEST_WITH_PAIRS = 4  # samples in a batch: two of each of two classes
MOST_OF_CHANCE = 0.9
"""Highest loss of a softened head, relative to a head that knows nothing: above it, the head would be lost."""


class ClosedFormHead(Callback):
    """Sets the head to the best linear layer on the features of the plain (not augmented) training samples.

    The objective chooses the method: logistic regression for classes, ridge regression for numbers.

    The features come from the activation cache if it serves the stage; otherwise they are computed here. All processes
    get the solution of the first one.

    In a contrastive stage the features change: the head is fitted again before each validation and at the end of each
    epoch, so that it always belongs to the weights that are validated and saved.

    Place it behind the activation cache.

    Attributes:
        factor: of the head's outputs, when the next stage begins; 1 if its stage does not soften it.
        fitted_at: optimizer steps before the last fit.
    """

    def __init__(self) -> None:
        self.factor = 1.0
        self.fitted_at = -1

    def state_dict(self) -> dict[str, float]:
        """The factor that is not applied yet."""
        return {"factor": self.factor}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restores it; older checkpoints have none."""
        self.factor = state_dict.get("factor", 1.0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises a UsageError before the training if head or loss have no closed-form head."""
        plan = strategy_of(trainer).plan if stage == "fit" else []
        if any(planned.closed_form or planned.contrastive for planned in plan):
            if not isinstance(pl_module, ClassificationTask):
                raise UsageError(
                    "this task has no closed-form head: use another strategy, such as finetuning=unfreeze_at or "
                    "finetuning=full (for lp_ft: finetuning.solve_head=false)"
                )
            last_layer(pl_module.head)
            _refuse_focal(pl_module.objective)
        if any(planned.contrastive for planned in plan):
            _refuse_without_pairs(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Computes the head when its stage begins; a run that resumes later has the head already."""
        strategy = strategy_of(trainer)
        if strategy.current_stage.closed_form and strategy.progress.began == trainer.current_epoch:
            self._solve(trainer, pl_module)
        elif self.factor != 1 and not strategy.current_stage.closed_form:
            layer = last_layer(pl_module.head)
            with torch.no_grad():
                layer.weight.mul_(self.factor)
                layer.bias.mul_(self.factor)
            self.factor = 1.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fits the head to the features of a contrastive stage."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._fit_again(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Does so in an epoch without validation."""
        self._fit_again(trainer, pl_module)

    def _fit_again(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if task.contrastive and self.fitted_at != trainer.global_step:
            with torch.inference_mode(False), torch.enable_grad():  # a validation has no gradients
                self._solve(trainer, task)
            self.fitted_at = trainer.global_step

    def _solve(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        data, layer = trainer.datamodule, last_layer(task.head)
        start = time.monotonic()
        positions = _positions(trainer, data)
        if not task.contrastive:  # there it is fitted before each validation
            log.info("closed-form head: fitting it to the features of %s", counted(len(positions), "sample"))
        mode = task.training
        task.eval()
        features = _features(task, data, positions)
        task.train(mode)
        targets = data.targets("train", positions).to(task.device)
        objective = copy.deepcopy(task.objective)
        if data.sampler == "balanced":  # class weights have the same effect as drawing rare classes more often
            objective.weight = torch.tensor(data.weights_by_class("balanced"), device=task.device)
        solution = objective.closed_form_head(features, targets, layer.out_features, data.seed)
        with torch.no_grad():
            layer.weight.copy_(trainer.strategy.broadcast(solution.weight))
            layer.bias.copy_(trainer.strategy.broadcast(solution.bias))
        if task.contrastive:  # no estimate: the features have learned from the samples that the folds hold out
            return
        held_out = ""
        if solution.held_out:  # with few samples, a better estimate than a small validation split
            score = _score(task.objective, *solution.held_out)
            loss = objective.loss(*solution.held_out).item()
            held_out = f", held-out loss {loss:.3f}, {task.objective.main_score[1]} {score:.3f}"
            strategy = strategy_of(trainer)
            if strategy.current_stage.softened and not objective.numbers:
                logits = layer(features.to(layer.weight)).detach()
                factor = softening(lambda each: objective.loss(each * logits, targets).item(), loss)
                self.factor = trainer.strategy.broadcast(factor)
                held_out += f", before the fine-tuning its outputs are multiplied by {self.factor:.2g}"
        log.info(
            "closed-form head: %s on %d x %d features, penalty %.0e%s (%.1f s)",
            *(solution.method, *features.shape, solution.penalty, held_out, time.monotonic() - start),
        )


def softening(loss: Callable[[float], float], wanted: float) -> float:
    """The factor of the logits, from 0 to 1, at which their loss is as wanted; 1 if it is as high already.

    Args:
        loss: factor -> mean loss on the training samples; it falls up to the factor 1, because the head was fitted.
        wanted: the loss on held-out samples; at most `MOST_OF_CHANCE` times the loss of a head that knows nothing.
    """
    from scipy.optimize import brentq  # imported here, because most runs need no such factor

    wanted = min(wanted, MOST_OF_CHANCE * loss(0.0))
    if loss(1.0) >= wanted:
        return 1.0
    return brentq(lambda factor: loss(factor) - wanted, 0, 1, xtol=1e-4)


def _positions(trainer: pl.Trainer, data: DataModule) -> list[int]:
    """The positions of all training samples; if the run uses only a few batches, as many random ones."""
    total = data.num_samples["train"]
    seen = trainer.num_training_batches * data.batch_size * trainer.world_size
    if seen >= total - trainer.world_size:  # a last batch of one sample may have been left out
        return list(range(total))
    generator = torch.Generator().manual_seed(data.seed)
    return torch.randperm(total, generator=generator)[:seen].tolist()


def _features(task: pl.LightningModule, data: DataModule, positions: Sequence[int]) -> Tensor:
    """Features of plain samples, `(len(positions), num_features)` in fp32; every process computes all of them."""
    rows = data.cached_activations.get("train")
    if rows is None:
        copy_ = InferenceCopy(task.backbone)
        batches = (copy_(move_data_to_device(inputs, task.device)) for inputs in data.inputs("train", positions))
    else:
        chunks = (positions[start : start + ROWS_PER_READ] for start in range(0, len(positions), ROWS_PER_READ))
        batches = (task.rest(rows(chunk).to(task.device)) for chunk in chunks)
    with torch.no_grad():
        return torch.cat([batch.float() for batch in batches])


def _score(objective: Objective, logits: Tensor, targets: Tensor) -> float:
    metrics = objective.training_metrics().to(logits.device)
    metrics.update(objective.probabilities(logits), targets)
    return metrics[objective.main_score[0]].compute().item()


def _refuse_without_pairs(trainer: pl.Trainer, task: ClassificationTask) -> None:
    """Raises a UsageError for settings with which samples cannot be compared in pairs."""
    other = "use another strategy, such as finetuning=lp_ft"
    if task.objective.numbers or task.objective.multi_label:
        have = "numbers" if task.objective.numbers else "any number of labels"
        raise UsageError(f"finetuning=contrastive needs one class per sample, but the samples have {have}: {other}")
    if task.mixing is not None:
        raise UsageError("finetuning=contrastive needs one class per sample, and mixing gives two: use mixing=none")
    if trainer.datamodule.batch_size < FEWEST_WITH_PAIRS:
        raise UsageError(
            f"data.batch_size={trainer.datamodule.batch_size}: finetuning=contrastive compares the samples of a batch, "
            f"so give at least {FEWEST_WITH_PAIRS}"
        )
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):
        raise UsageError(f"callbacks=ema would average heads of different features: leave it out, or {other}")


def _refuse_focal(objective: Objective) -> None:
    """Raises a UsageError for the focal loss: it is not convex, so there is no single best head."""
    if gamma := getattr(objective, "focal_gamma", 0):
        raise UsageError(
            f"task.objective.focal_gamma={gamma}: a closed-form head needs the cross-entropy. Use "
            "task.objective.focal_gamma=0, or train the head with finetuning=feature_extraction "
            "(for lp_ft: finetuning.solve_head=false)"
        )


def last_layer(head: nn.Module) -> nn.Linear:
    """The linear layer of a head that has no other layers except dropout.

    Raises:
        UsageError: the head has other layers, such as hidden layers.
    """
    layers = [module for module in head.modules() if not list(module.children()) and not isinstance(module, nn.Dropout)]
    if len(layers) == 1 and isinstance(layers[0], nn.Linear) and layers[0].bias is not None:
        return layers[0]
    raise UsageError(
        f"a closed-form head must be one linear layer, but this {type(head).__name__} has "
        f"{', '.join(type(layer).__name__ for layer in layers)}: use head=linear, or train the head with "
        "finetuning=feature_extraction (for lp_ft: finetuning.solve_head=false)"
    )
