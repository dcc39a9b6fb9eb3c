"""What the logits mean: softmax over N classes, one sigmoid unit for two, or a sigmoid a label."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics import classification as metrics

from headstart.errors import UsageError

# Bins of the expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2: 15 bins)
CALIBRATION_BINS = 15


class Softmax(nn.Module):
    """One of N classes: N logits, cross-entropy.

    Args:
        num_classes: N.
        class_weights: weight of each class in the loss.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016,
            https://arxiv.org/abs/1512.00567, section 7).
    """

    multi_label = False

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"task.objective.label_smoothing={label_smoothing}: give a number from 0 to below 1")
        self.num_classes = self.num_outputs = num_classes
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", _as_tensor(class_weights), persistent=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, N)` against class indices `(batch,)`."""
        return functional.cross_entropy(logits, targets, self.weight, label_smoothing=self.label_smoothing)

    def batch_weight(self, targets: Tensor) -> Tensor | int:
        """What the mean loss of a batch counts among others: its samples' class weights, so that batches add up."""
        return len(targets) if self.weight is None else self.weight[targets].sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, N)` -> probabilities `(batch, N)`."""
        return logits.float().softmax(dim=1)

    def training_metrics(self) -> MetricCollection:
        """Cheap enough for every training step."""
        return MetricCollection({"acc": metrics.MulticlassAccuracy(self.num_classes, average="micro")})

    def evaluation_metrics(self) -> MetricCollection:
        """Over probabilities `(batch, N)` and class indices."""
        return _single_label_metrics(self.num_classes)


class OneSigmoid(nn.Module):
    """One of two classes: a single logit for the second class, binary cross-entropy.

    Args:
        num_classes: must be 2.
        class_weights: weight of each of the two classes in the loss.
    """

    num_outputs = 1
    multi_label = False

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None):
        super().__init__()
        if num_classes != 2:
            raise UsageError(
                f"task=binary has one sigmoid unit and needs 2 classes, the data has {num_classes}: "
                "use task=classification"
            )
        self.register_buffer("weight", _as_tensor(class_weights), persistent=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, 1)` against class indices `(batch,)`."""
        weight = None if self.weight is None else self.weight[targets]
        losses = functional.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits), weight, reduction="none")
        return losses.mean() if weight is None else losses.sum() / weight.sum()

    def batch_weight(self, targets: Tensor) -> Tensor | int:
        """What the mean loss of a batch counts among others: its samples' class weights, so that batches add up."""
        return len(targets) if self.weight is None else self.weight[targets].sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, 1)` -> probabilities of both classes `(batch, 2)`."""
        second = logits.float().sigmoid()
        return torch.cat([1 - second, second], dim=1)

    def training_metrics(self) -> MetricCollection:
        """Cheap enough for every training step."""
        return MetricCollection({"acc": metrics.MulticlassAccuracy(2, average="micro")})

    def evaluation_metrics(self) -> MetricCollection:
        """Over probabilities `(batch, 2)` and class indices: the same measures as with two softmax units."""
        return _single_label_metrics(2)


class MultiLabel(nn.Module):
    """Any number of N labels: a sigmoid and a binary cross-entropy each.

    Args:
        num_classes: N.
        class_weights: weight of each label in the loss.
    """

    multi_label = True

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None):
        super().__init__()
        self.num_classes = self.num_outputs = num_classes
        self.register_buffer("weight", _as_tensor(class_weights), persistent=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, N)` against zeros and ones `(batch, N)`."""
        return functional.binary_cross_entropy_with_logits(logits, targets.to(logits), self.weight)

    def batch_weight(self, targets: Tensor) -> int:
        """What the mean loss of a batch counts among others: the number of its samples."""
        return len(targets)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, N)` -> probability of each label `(batch, N)`, which need not sum to 1."""
        return logits.float().sigmoid()

    def training_metrics(self) -> MetricCollection:
        """Cheap enough for every training step."""
        return MetricCollection({"acc": metrics.MultilabelAccuracy(self.num_classes, average="micro")})

    def evaluation_metrics(self) -> MetricCollection:
        """Over probabilities `(batch, N)` and zeros and ones; `acc` counts labels, `acc_exact` whole samples."""
        n = self.num_classes
        return MetricCollection(
            {
                "acc": metrics.MultilabelAccuracy(n, average="micro"),
                "acc_exact": metrics.MultilabelExactMatch(n),
                "f1_macro": metrics.MultilabelF1Score(n, average="macro"),
                "auroc_macro": metrics.MultilabelAUROC(n, average="macro"),
            }
        )


def _single_label_metrics(n: int) -> MetricCollection:
    return MetricCollection(
        {
            "acc": metrics.MulticlassAccuracy(n, average="micro"),
            "acc_macro": metrics.MulticlassAccuracy(n, average="macro"),
            "f1_macro": metrics.MulticlassF1Score(n, average="macro"),
            "auroc_macro": metrics.MulticlassAUROC(n, average="macro"),
            "ece": metrics.MulticlassCalibrationError(n, n_bins=CALIBRATION_BINS, norm="l1"),
        }
    )


def _as_tensor(weights: Sequence[float] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)
