"""Objectives, which define loss, probabilities and metrics: softmax, one sigmoid unit, or one sigmoid per label.

Each can be trained with the focal loss instead of the cross-entropy (Lin et al. 2017, https://arxiv.org/abs/1708.02002,
equation 4): the loss of a sample is multiplied by (1 - p) ** focal_gamma, where p is the probability of its true class.
The mean divides by the same number of samples as without it, so it is smaller. Class weights do here what alpha does in
that paper.

For probabilities, logits are divided by `temperature`. It is 1 until the trained model is calibrated
(`evaluate.py calibrate=true`); the loss does not use it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics import classification as metrics
from torchmetrics.utilities import dim_zero_cat
from torchvision.ops import sigmoid_focal_loss

from headstart.errors import UsageError
from headstart.metrics.macro import MacroAccuracy, MacroF1
from headstart.tasks.objective import CALIBRATION_BINS, Objective

MOST_CLASSES_WITH_AUROC = 1000
"""With more classes there is no area under the ROC curve: it keeps the probability of every class for every sample."""
# torchmetrics would look through the targets of every batch, for which the CPU waits for the GPU;
# `data/samples.py` has checked them before
UNCHECKED = {"validate_args": False}


class Softmax(Objective):
    """One of N classes: N logits, cross-entropy.

    Args:
        num_classes: N.
        class_weights: weight of each class in the loss.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016,
            https://arxiv.org/abs/1512.00567, section 7).
        focal_gamma: 0: cross-entropy; 1 or more: focal loss.
    """

    activation = "softmax"

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"task.objective.label_smoothing={label_smoothing}: give a number from 0 to below 1")
        self.num_classes = self.num_outputs = num_classes
        self.temperature = 1.0
        self.label_smoothing, self.focal_gamma = label_smoothing, _checked(focal_gamma)
        self.register_buffer("weight", _as_tensor(class_weights), persistent=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, N)` against class indices `(batch,)` or the classes' shares `(batch, N)`."""
        if targets.ndim == 1 and not self.focal_gamma:
            return functional.cross_entropy(logits, targets, self.weight, label_smoothing=self.label_smoothing)
        log_p = logits.float().log_softmax(dim=1)
        losses = -log_p * (1 - log_p.exp()) ** self.focal_gamma
        even = self.label_smoothing / self.num_classes
        shares = even + (1 - self.label_smoothing) * _shares(targets, self.num_classes)
        return _weighted_sum(losses, shares, self.weight) / self.batch_weight(targets)

    def batch_weight(self, targets: Tensor) -> Tensor | int:
        """Weight of this batch in the mean loss over batches: the sum of the class weights of its samples."""
        return _total_weight(targets, self.weight)

    def hard_targets(self, targets: Tensor) -> Tensor:
        """Class indices `(batch,)` for metrics; for a mixed sample, the class with the larger share."""
        return _strongest(targets)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, N)` -> probabilities `(batch, N)`."""
        return (logits.float() / self.temperature).softmax(dim=1)

    def training_metrics(self) -> MetricCollection:
        """Metrics that are cheap enough for every training step."""
        return MetricCollection({"acc": metrics.MulticlassAccuracy(self.num_classes, average="micro", **UNCHECKED)})

    def evaluation_metrics(self) -> MetricCollection:
        """Metrics over probabilities `(batch, N)` and class indices `(batch,)`."""
        return _single_label_metrics(self.num_classes)


class OneSigmoid(Objective):
    """One of two classes: a single logit for the second class, binary cross-entropy.

    Args:
        num_classes: must be 2.
        class_weights: weight of each of the two classes in the loss.
        focal_gamma: 0: cross-entropy; 1 or more: focal loss.
    """

    num_outputs = 1

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None, focal_gamma: float = 0.0):
        super().__init__()
        if num_classes != 2:
            raise UsageError(
                f"task=binary has one sigmoid unit and needs 2 classes, the data has {num_classes}: "
                "use task=classification"
            )
        self.temperature = 1.0
        self.focal_gamma = _checked(focal_gamma)
        self.register_buffer("weight", _as_tensor(class_weights), persistent=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, 1)` against class indices `(batch,)` or both classes' shares `(batch, 2)`."""
        if targets.ndim == 2 or self.focal_gamma:
            losses = torch.cat(_focal_losses(logits, self.focal_gamma), dim=1)
            return _weighted_sum(losses, _shares(targets, 2), self.weight) / self.batch_weight(targets)
        weight = None if self.weight is None else self.weight[targets]
        losses = functional.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits), weight, reduction="none")
        return losses.mean() if weight is None else losses.sum() / weight.sum()

    def batch_weight(self, targets: Tensor) -> Tensor | int:
        """Weight of this batch in the mean loss over batches: the sum of the class weights of its samples."""
        return _total_weight(targets, self.weight)

    def hard_targets(self, targets: Tensor) -> Tensor:
        """Class indices `(batch,)` for metrics; for a mixed sample, the class with the larger share."""
        return _strongest(targets)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, 1)` -> probabilities of both classes `(batch, 2)`."""
        second = (logits.float() / self.temperature).sigmoid()
        return torch.cat([1 - second, second], dim=1)

    def training_metrics(self) -> MetricCollection:
        """Metrics that are cheap enough for every training step."""
        return MetricCollection({"acc": metrics.MulticlassAccuracy(2, average="micro", **UNCHECKED)})

    def evaluation_metrics(self) -> MetricCollection:
        """Metrics over probabilities `(batch, 2)` and class indices `(batch,)`, the same as for two softmax units."""
        return _single_label_metrics(2)


class MultiLabel(Objective):
    """Any number of N labels: one sigmoid and binary cross-entropy per label.

    Args:
        num_classes: N.
        class_weights: weight of the samples that have the label, for each label in the loss.
        focal_gamma: 0: cross-entropy; 1 or more: focal loss.

    Attributes:
        thresholds: a label counts as present above this probability, for each label; None: above 0.5. They are chosen
            when the training has ended (`evaluation/thresholds.py`), and kept in the checkpoint.
    """

    multi_label = True

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None, focal_gamma: float = 0.0):
        super().__init__()
        self.num_classes = self.num_outputs = num_classes
        self.temperature = 1.0
        self.focal_gamma = _checked(focal_gamma)
        self.register_buffer("weight", _as_tensor(class_weights), persistent=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, N)` against zeros and ones, or shares between 0 and 1, `(batch, N)`."""
        if self.focal_gamma:
            absent, present = _focal_losses(logits, self.focal_gamma)
            present = present if self.weight is None else present * self.weight
            return ((1 - targets) * absent + targets * present).mean()
        return functional.binary_cross_entropy_with_logits(logits, targets.to(logits), pos_weight=self.weight)

    def batch_weight(self, targets: Tensor) -> int:
        """Weight of this batch in the mean loss over batches: the number of its samples."""
        return len(targets)

    def hard_targets(self, targets: Tensor) -> Tensor:
        """Zeros and ones `(batch, N)` for metrics; for a mixed sample, the labels with a share above 0.5."""
        return (targets > 0.5).long()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, N)` -> probability of each label `(batch, N)`, which need not sum to 1."""
        return (logits.float() / self.temperature).sigmoid()

    def training_metrics(self) -> MetricCollection:
        """Metrics that are cheap enough for every training step."""
        return MetricCollection({"acc": metrics.MultilabelAccuracy(self.num_classes, average="micro", **UNCHECKED)})

    def evaluation_metrics(self) -> MetricCollection:
        """Metrics over probabilities and 0 or 1, each `(batch, N)`.

        `acc` counts labels, `acc_exact` whole samples; `map` is the mean average precision.
        """
        n = self.num_classes
        return MetricCollection(
            {
                "acc": metrics.MultilabelAccuracy(n, average="micro", **UNCHECKED),
                "acc_exact": metrics.MultilabelExactMatch(n, **UNCHECKED),
                "f1_macro": metrics.MultilabelF1Score(n, average="macro", **UNCHECKED),
                "auroc_macro": PresentLabelsAUROC(n, average="none", **UNCHECKED),
                "map": PresentLabelsAP(n, average="none", **UNCHECKED),
            }
        )


class PresentClassesAUROC(metrics.MulticlassAUROC):
    """Mean area under the ROC curve over the classes that have both positive and negative samples.

    torchmetrics would count the other classes as 0, so a split that lacks a class would look worse than it is.
    """

    def compute(self) -> Tensor:
        """The mean; NaN if there is no such class."""
        targets = dim_zero_cat(self.target)
        return _mean_of_present(super().compute(), functional.one_hot(targets, self.num_classes))


class PresentLabelsAUROC(metrics.MultilabelAUROC):
    """The same for several labels per sample."""

    def compute(self) -> Tensor:
        """The mean; NaN if there is no such label."""
        return _mean_of_present(super().compute(), dim_zero_cat(self.target))


class PresentLabelsAP(metrics.MultilabelAveragePrecision):
    """Mean average precision over the labels that have both positive and negative samples."""

    def compute(self) -> Tensor:
        """The mean; NaN if there is no such label."""
        return _mean_of_present(super().compute(), dim_zero_cat(self.target))


def _mean_of_present(areas: Tensor, truth: Tensor) -> Tensor:
    number = truth.sum(dim=0)
    present = (number > 0) & (number < len(truth))
    return areas[present].mean() if present.any() else areas.new_full((), float("nan"))


def _single_label_metrics(n: int) -> MetricCollection:
    found = {
        "acc": metrics.MulticlassAccuracy(n, average="micro", **UNCHECKED),
        "acc_macro": MacroAccuracy(n),
        "f1_macro": MacroF1(n),
        "ece": metrics.MulticlassCalibrationError(n, n_bins=CALIBRATION_BINS, norm="l1", **UNCHECKED),
    }
    if n <= MOST_CLASSES_WITH_AUROC:
        found["auroc_macro"] = PresentClassesAUROC(n, average="none", **UNCHECKED)
    return MetricCollection(found)


def _checked(focal_gamma: float) -> float:
    if focal_gamma == 0 or 1 <= focal_gamma < float("inf"):
        return focal_gamma
    raise UsageError(
        f"task.objective.focal_gamma={focal_gamma}: give 0 for no focal loss, or 1 or more, such as 2 "
        "(below 1, the gradient of confident predictions is unbounded)"
    )


def _focal_losses(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """The focal loss of each logit if its label is absent, and if it is present; gamma 0: cross-entropy."""
    logits = logits.float()
    truths = torch.zeros_like(logits), torch.ones_like(logits)
    absent, present = (sigmoid_focal_loss(logits, truth, alpha=-1, gamma=gamma) for truth in truths)
    return absent, present


def _shares(targets: Tensor, n: int) -> Tensor:
    """Class indices `(batch,)` or shares `(batch, n)` -> shares `(batch, n)`."""
    return functional.one_hot(targets, n) if targets.ndim == 1 else targets


def _strongest(targets: Tensor) -> Tensor:
    return targets if targets.ndim == 1 else targets.argmax(dim=1)


def _weighted_sum(losses: Tensor, shares: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over batch and classes of losses `(batch, n)`, weighted by shares and class weights.

    It is linear in the shares, so the loss of a mixed sample is the mean of both losses, weighted by the shares.
    """
    return (losses * shares if weight is None else losses * shares * weight).sum()


def _total_weight(targets: Tensor, weight: Tensor | None) -> Tensor | int:
    if weight is None:
        return len(targets)
    return (weight[targets] if targets.ndim == 1 else targets * weight).sum()


def _as_tensor(weights: Sequence[float] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)
