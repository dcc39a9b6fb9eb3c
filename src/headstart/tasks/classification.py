"""The task with labels: one of N classes, several labels, or numbers for each sample, as the objective says."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.data.activations import Activations
from headstart.errors import as_usage_error
from headstart.metrics.thresholds import moved
from headstart.tasks.base import Task
from headstart.tasks.objective import Objective


class ClassificationTask(Task):
    """Inputs -> logits `(batch, num_outputs)`; trained, validated and tested on `(inputs, targets)` batches.

    Nothing here knows what an input is: a picture batch, or a dict of token tensors.

    Args:
        backbone: inputs -> features `(batch, num_features)`.
        head: called with `in_features` and `num_outputs`, gives the new last layers.
        objective: called with `num_classes` and `class_weights`; defines the meaning of the logits.
        classes: names of the classes, labels or numbers, in the order of the outputs.
        class_weights: weight of each class in the loss.
        mixing: called with `num_classes`; returns a function that mixes the samples and targets of a training batch
            (`mixing=` in the config). Training metrics compare each mixed sample with the class that has the larger
            share. None: no mixing.
        test_time: a batch of inputs -> several versions of it (`test_time=` in the config). In tests and predictions
            the logits are the mean over the versions. None: the batch alone.
        options: other arguments of `Task`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: Callable[..., nn.Module],
        objective: Callable[..., Objective],
        classes: Sequence[str],
        class_weights: Sequence[float] | None = None,
        mixing: Callable[..., Callable[[Any, Tensor], tuple[Any, Tensor]]] | None = None,
        test_time: Callable[[Any], Sequence[Any]] | None = None,
        **options: Any,
    ):
        with as_usage_error("task.objective"):
            meaning = objective(num_classes=len(classes), class_weights=class_weights)
        mix = None if mixing is None else mixing(num_classes=len(classes))
        with as_usage_error("head"):
            new = head(in_features=backbone.num_features, num_outputs=meaning.num_outputs)
        super().__init__(
            backbone=backbone, head=new, objective=meaning, classes=classes, class_weights=class_weights, **options
        )
        self.mixing, self.test_time = mix, test_time

    def forward(self, inputs: Any) -> Tensor:
        """Inputs as the data set yields them, or activations of frozen groups -> logits `(batch, num_outputs)`."""
        return self.head(self.features(inputs))

    def features(self, inputs: Any) -> Tensor:
        """The same inputs -> features `(batch, num_features)`."""
        if isinstance(inputs, Activations):
            assert self.rest is not None, "forward_from() must be called before activations are given"
            return self.rest(inputs.values)
        return self.backbone(inputs)

    def training_step(self, batch: tuple[Any, Tensor], index: int) -> Tensor:
        """The loss of one batch: of its outputs, or of the pairs of its samples. Pairs have no metrics but the loss."""
        if not self.contrastive:
            return super().training_step(batch, index)
        inputs, targets = batch
        loss = self.objective.pair_loss(self.features(inputs), targets)
        self.train_loss.update(loss.detach(), len(targets))
        return loss

    def outputs(self, batch: tuple[Any, Tensor]) -> tuple[Tensor, Tensor]:
        """The logits of a batch, and its targets."""
        inputs, targets = batch
        return self(inputs), targets

    def training_outputs(self, batch: tuple[Any, Tensor]) -> tuple[Tensor, Tensor]:
        """The same, of mixed samples if the run mixes them."""
        # a closed-form head is computed from samples that are not mixed, or from cached activations of them
        return self.outputs(self.mixing(*batch) if self.mixing and self._is_trained() else batch)

    def tested_outputs(self, batch: tuple[Any, Tensor]) -> tuple[Tensor, Tensor]:
        """The same, averaged over the versions of `test_time`."""
        inputs, targets = batch
        return self.tested_logits(inputs), targets

    def scores(self, logits: Tensor) -> Tensor:
        """The probabilities; with thresholds, moved so that each threshold is at 0.5, where metrics expect it."""
        found = super().scores(logits)
        if self.objective.thresholds is None:
            return found
        return moved(found, found.new_tensor(self.objective.thresholds))

    def predict_step(self, batch: Any, _: int) -> Tensor:
        """The answers, such as probabilities `(batch, num_classes)`, for a batch of inputs, with or without targets."""
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        return self.objective.probabilities(self.tested_logits(inputs))

    def tested_logits(self, inputs: Any) -> Tensor:
        """Logits `(batch, num_outputs)` for tests and predictions: the mean over the versions of `test_time`."""
        return mean_logits(self, self.test_time, inputs)


def mean_logits(
    network: Callable[[Any], Tensor], test_time: Callable[[Any], Sequence[Any]] | None, inputs: Any
) -> Tensor:
    """The logits of a network for a batch, averaged over its versions at test time."""
    if test_time is None:
        return network(inputs)
    first, *others = (network(version) for version in test_time(inputs))
    return sum(others, start=first) / (1 + len(others))
