"""A head with hidden layers, such as VGG's classifier."""

from collections.abc import Sequence

from torch import nn

from headstart.errors import UsageError

NORMS = {"none": None, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MLPHead(nn.Sequential):
    """Features `(batch, in_features)` -> logits `(batch, num_outputs)` through hidden layers.

    Each hidden layer has a linear layer, norm, activation and dropout. `hidden_sizes=[4096, 4096]` with dropout 0.5 on
    the flattened 7x7x512 map is VGG's classifier (Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, 2.1).

    Args:
        in_features: size of the backbone's feature vector.
        num_outputs: number of logits.
        hidden_sizes: width of each hidden layer, input to output; a number: one hidden layer.
        dropout: share of each hidden layer's activations that is dropped in training.
        norm: `none`, `batch` or `layer`.
        activation: `relu`, `gelu`, `silu` or `tanh`.
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        hidden_sizes: int | Sequence[int],
        dropout: float = 0.0,
        norm: str = "none",
        activation: str = "relu",
    ):
        if norm not in NORMS:
            raise UsageError(f"head.norm={norm}: choose one of {', '.join(NORMS)}")
        if activation not in ACTIVATIONS:
            raise UsageError(f"head.activation={activation}: choose one of {', '.join(ACTIVATIONS)}")
        layers: list[nn.Module] = []
        for size in [hidden_sizes] if isinstance(hidden_sizes, int) else hidden_sizes:
            layers.append(nn.Linear(in_features, size))
            if NORMS[norm]:
                layers.append(NORMS[norm](size))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = size
        super().__init__(*layers, nn.Linear(in_features, num_outputs))
