"""The contrastive loss: features of the same class get the same direction, features of different classes do not."""

import torch
from torch import Tensor
from torch.nn import functional


def pair_loss(features: Tensor, classes: Tensor) -> Tensor:
    """Mean squared difference between the cosine of two samples and 1 (same class) or 0 (different classes).

    This is the loss of SetFit (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055, section 3.1), but over all pairs
    of the batch, as in supervised contrastive learning (Khosla et al. 2020, https://arxiv.org/abs/2004.11362). Both
    kinds of pairs have the same weight, although a batch has more pairs of different classes. With several processes,
    each process compares the samples of its own batch only.

    Args:
        features: `(batch, num_features)`.
        classes: class indices `(batch,)`.
    """
    directions = functional.normalize(features.float(), dim=1)
    cosines = directions @ directions.T
    equal = classes[:, None] == classes
    same, different = equal & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device), ~equal
    terms = torch.stack([_masked_mean((1 - cosines).square(), same), _masked_mean(cosines.square(), different)])
    kinds = torch.stack([same.any(), different.any()]).sum()
    return terms.sum() / kinds.clamp_min(1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values in the mask; 0 if there are none. No indexing: for it the CPU would wait for the GPU."""
    return (values * mask).sum() / mask.sum().clamp_min(1)
