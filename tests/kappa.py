"""An objective with a metric of its own, as somebody who adds one would write it."""

from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassCohenKappa

from headstart.tasks.objectives import Softmax


class WithKappa(Softmax):
    """Softmax, and Cohen's kappa beside the usual metrics."""

    def evaluation_metrics(self) -> MetricCollection:
        """The usual ones and `kappa`."""
        metrics = super().evaluation_metrics()
        metrics.add_metrics({"kappa": MulticlassCohenKappa(self.num_classes)})
        return metrics
