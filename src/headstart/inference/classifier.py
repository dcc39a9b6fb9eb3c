"""A trained model for prediction: inputs -> probabilities, or numbers."""

from typing import Any

from torch import Tensor, nn

from headstart.backbones.low_rank import merge
from headstart.metrics.thresholds import present
from headstart.tasks.classification import ClassificationTask, mean_logits


class Classifier(nn.Module):
    """Backbone, head, and the step from logits to probabilities; no loss, metrics or optimizer.

    Args:
        task: the trained task, in eval mode; its modules are used without a copy, and low-rank updates are merged into
            their weights.
    """

    def __init__(self, task: ClassificationTask):
        super().__init__()
        self.backbone, self.head, self.objective = task.backbone, task.head, task.objective
        self.test_time = task.test_time
        merge(self.backbone)
        self.classes, self.preprocess = task.classes, task.backbone.preprocess
        self.eval()

    def forward(self, inputs: Any) -> Tensor:
        """A batch of inputs -> float32 `(batch, num_classes)` in [0, 1].

        With one class per sample they sum to 1, also with a single sigmoid unit. Several labels are independent.
        A model of numbers gives these in their units.
        """
        return self.objective.probabilities(mean_logits(self._logits, self.test_time, inputs))

    def labels(self, probabilities: Tensor) -> list[list[str] | None]:
        """The names of the labels above their threshold, for each sample; None: the model gives one class.

        Args:
            probabilities: `(samples, num_classes)`.
        """
        if not self.objective.multi_label:
            return [None] * len(probabilities)
        answers = present(probabilities, self.objective.thresholds).tolist()
        return [[name for name, on in zip(self.classes, row, strict=True) if on] for row in answers]

    def _logits(self, inputs: Any) -> Tensor:
        return self.head(self.backbone(inputs))
