"""Metrics of a language model, over probabilities and true tokens."""

import torch
from torch import Tensor

from headstart.metrics.mean_loss import MeanLoss


class Perplexity(MeanLoss):
    """The exponential of the mean cross-entropy: the model is as unsure as between this number of equal choices."""

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Adds probabilities `(tokens, vocabulary)` and the true tokens `(tokens,)`."""
        true = probabilities.gather(1, targets[:, None]).clamp_min(torch.finfo(probabilities.dtype).tiny)
        super().update(-true.log().sum() / max(len(targets), 1), len(targets))

    def compute(self) -> Tensor:
        """The perplexity, a scalar; NaN if nothing was added."""
        return super().compute().exp()


class TokenAccuracy(MeanLoss):
    """The share of tokens whose most probable choice is the true one."""

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """As in `Perplexity`."""
        right = probabilities.argmax(dim=1) == targets
        super().update(right.float().sum() / max(len(targets), 1), len(targets))
