"""The contract of an objective: the meaning of the outputs of a network.

The rest of Headstart asks an objective and never its class. Defaults are for classes.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torchmetrics import MetricCollection

from headstart.heads import logistic_regression
from headstart.heads.logistic_regression import Solution
from headstart.metrics.intervals import Statistic, statistics_of
from headstart.metrics.mistakes import Mistake, worst_mistakes
from headstart.metrics.number_predictions import NumberError, NumberPredictions
from headstart.metrics.predictions import Predictions
from headstart.tasks import pairs

# Bins of the expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2: 15 bins)
CALIBRATION_BINS = 15
AnyPredictions = Predictions | NumberPredictions


class Objective(nn.Module):
    """Loss, answers and metrics for the outputs (logits) of a network.

    Attributes:
        multi_label: whether a sample may have any number of labels instead of one class.
        numbers: whether the answers are numbers instead of probabilities of classes.
        num_outputs: number of logits per sample.
        thresholds: a label counts as present above this probability, for each label; None: above 0.5, or no labels.
        temperature: divides the logits before they become probabilities.
        main_score: the metric of `training_metrics` that says in a sentence how good the answers are, and its name.
        worst_name: the word for the worst answers; also the name of their files.
        answer_name: of the answers of a batch, such as the output of an export.
        activation: how logits become answers, in words.
    """

    multi_label: ClassVar[bool] = False
    numbers: ClassVar[bool] = False
    main_score: ClassVar[tuple[str, str]] = "acc", "accuracy"
    worst_name: ClassVar[str] = "mistakes"
    answer_name: ClassVar[str] = "probabilities"
    activation: ClassVar[str] = "sigmoid"
    num_outputs: int
    thresholds: list[float] | None = None
    temperature: float = 1.0

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of logits `(batch, num_outputs)`."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits -> the answers: probabilities `(batch, num_classes)`, or numbers in their units."""

    @abstractmethod
    def training_metrics(self) -> MetricCollection:
        """Metrics that are cheap enough for every training step, `main_score` among them."""

    @abstractmethod
    def evaluation_metrics(self) -> MetricCollection:
        """Metrics over answers and targets."""

    def pair_loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Contrastive loss of features `(batch, num_features)`, for one class per sample."""
        return pairs.pair_loss(features, targets)

    def batch_weight(self, targets: Tensor) -> Tensor | int:
        """Weight of this batch in the mean loss over batches: the number of its samples."""
        return len(targets)

    def hard_targets(self, targets: Tensor) -> Tensor:
        """The targets as metrics take them, also of mixed samples."""
        return targets

    def fit_to(self, targets: Tensor) -> None:
        """Takes from the targets of the training samples what it must know before training."""

    def answer_sizes(self) -> Tensor | None:
        """The size of a large difference of each answer `(num_outputs,)`; None: the answers are probabilities."""
        return None

    def closed_form_head(self, features: Tensor, targets: Tensor, num_outputs: int, seed: int) -> Solution:
        """The best linear layer for features `(samples, num_features)`."""
        return logistic_regression.solve(features, targets, self.loss, num_outputs, seed)

    def predictions(self, paths: Sequence[str], classes: list[str], targets: Tensor, logits: Tensor) -> AnyPredictions:
        """The answers for the samples of a split, in its order."""
        answers = self.probabilities(logits).cpu()
        return Predictions(paths, classes, targets, answers, self.multi_label, self.thresholds)

    def worst(self, predictions: AnyPredictions) -> list[Mistake] | list[NumberError]:
        """The worst answers, the worst first."""
        return worst_mistakes(predictions)

    def statistics(self, predictions: AnyPredictions, losses: Tensor, weights: Tensor) -> dict[str, Statistic]:
        """Metrics as functions of the counts of the samples, for intervals (`metrics/intervals.py`)."""
        return statistics_of(predictions, losses, weights, CALIBRATION_BINS)

    def steps_after(self) -> list[str]:
        """The steps from logits to answers, in words."""
        divide = [f"divide the logits by the temperature {self.temperature}"] if self.temperature != 1 else []
        return [*divide, self.activation]
