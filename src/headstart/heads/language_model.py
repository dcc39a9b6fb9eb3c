"""The head of a language model: one vector per token -> a score for each token of the vocabulary."""

import torch
from torch import Tensor, nn
from torch.nn import functional

DEVIATION = 0.02
"""Standard deviation of new weights, as in BERT."""


class LanguageModelHead(nn.Module):
    """A dense layer, an activation and a norm; the last layer is the word embeddings of the encoder, with a new bias.

    As in BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, in its published code).

    Args:
        in_features: length of a token's vector.
        width: length of a word embedding.
        vocabulary: number of word embeddings.
        activation: between the dense layer and the norm.
    """

    def __init__(self, in_features: int, width: int, vocabulary: int, activation: nn.Module):
        super().__init__()
        self.dense, self.activation, self.norm = nn.Linear(in_features, width), activation, nn.LayerNorm(width, 1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.dense.weight, std=DEVIATION)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Vectors `(tokens, in_features)` and word embeddings `(vocabulary, width)` -> `(tokens, vocabulary)`.

        The embeddings are no part of this module, because they are parameters of the encoder.
        """
        return functional.linear(self.norm(self.activation(self.dense(hidden))), embeddings, self.bias)
