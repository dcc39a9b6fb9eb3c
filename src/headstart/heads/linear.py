"""A head of one linear layer."""

from torch import nn


class LinearHead(nn.Sequential):
    """Features `(batch, in_features)` -> logits `(batch, num_outputs)` by one linear layer.

    Args:
        in_features: size of the backbone's feature vector.
        num_outputs: number of logits.
        dropout: share of features that is dropped in training.
    """

    def __init__(self, in_features: int, num_outputs: int, dropout: float = 0.0):
        super().__init__(*([nn.Dropout(dropout)] if dropout else []), nn.Linear(in_features, num_outputs))
