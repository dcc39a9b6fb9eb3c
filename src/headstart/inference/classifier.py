"""A trained task in use: inputs in, probabilities out."""

from typing import Any

from torch import Tensor, nn

from headstart.backbones.low_rank import merge
from headstart.tasks.classification import ClassificationTask, mean_logits


class Classifier(nn.Module):
    """Backbone, head and the meaning of the logits; neither loss nor metrics nor optimizer.

    Args:
        task: the trained one, in eval mode; its modules are used, not copied, and low-rank updates are added to their
            matrices.
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

        With one class per sample they sum to 1, also with a single sigmoid unit; several labels are independent.
        """
        return self.objective.probabilities(mean_logits(self._logits, self.test_time, inputs))

    def _logits(self, inputs: Any) -> Tensor:
        return self.head(self.backbone(inputs))
