"""A trained task as what it is used for: pictures in, probabilities out."""

from torch import Tensor, nn

from headstart.backbones.low_rank import merge
from headstart.tasks.classification import ClassificationTask


class Classifier(nn.Module):
    """Backbone, head and what the logits mean; neither loss nor metrics nor optimizer.

    Args:
        task: the trained one, in eval mode; its modules are used, not copied, and low-rank updates become part of the
            matrices they belong to.
    """

    def __init__(self, task: ClassificationTask):
        super().__init__()
        self.backbone, self.head, self.objective = task.backbone, task.head, task.objective
        self.test_time_flip = task.test_time_flip
        merge(self.backbone)
        self.classes, self.preprocess = task.classes, task.backbone.preprocess
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 `(batch, 3, image_size, image_size)` -> float32 `(batch, num_classes)` in [0, 1].

        With one class a picture they sum to 1, also with a single sigmoid unit; of several labels each stands alone.
        """
        logits = self.head(self.backbone(pictures))
        if self.test_time_flip:
            logits = (logits + self.head(self.backbone(pictures.flip(-1)))) / 2
        return self.objective.probabilities(logits)
