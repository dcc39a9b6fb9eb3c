"""The network of BERT and its relatives (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3).

MiniLM, BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and ELECTRA are this network with other sizes and other names
of their tensors. By hand, because the layers of `transformers` get the mask of the padding in a second argument:
torch.fx cannot cut them, so nothing could be cached behind a layer. Here each layer receives one tensor that is zero at
the padding, so it finds the mask in its own input. The outputs agree with `transformers` (`test_text_encoder.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.errors import printable

ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
}
KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""`model_type` of the networks that are built here."""
RENAMED_SETTINGS = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size", "activation": "hidden_act", "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}  # fmt: skip
"""DistilBERT's names of the settings."""
RENAMED_TENSORS = {
    "transformer.layer.": "encoder.layer.", ".attention.q_lin.": ".attention.self.query.",
    ".attention.k_lin.": ".attention.self.key.", ".attention.v_lin.": ".attention.self.value.",
    ".attention.out_lin.": ".attention.output.dense.", ".sa_layer_norm.": ".attention.output.LayerNorm.",
    ".ffn.lin1.": ".intermediate.dense.", ".ffn.lin2.": ".output.dense.", ".output_layer_norm.": ".output.LayerNorm.",
    "LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias",
}  # fmt: skip
"""Parts of names in DistilBERT and in old files of BERT, and their names here."""
PREFIXES = tuple(f"{kind}." for kind in ("bert", "roberta", "electra", "distilbert"))
LARGEST = {
    "vocab_size": 2_000_000, "hidden_size": 16_384, "num_hidden_layers": 200, "num_attention_heads": 1000,
    "intermediate_size": 65_536, "max_position_embeddings": 1_000_000, "type_vocab_size": 1000,
    "embedding_size": 16_384,
}  # fmt: skip
"""Largest values of the sizes; public networks have at most half of them."""
MOST_PARAMETERS = 3 * 10**9
"""In the network; the largest public ones have a fifth."""
MAY_BE_ZERO = ("type_vocab_size", "embedding_size")
NOT_IN_THE_ENCODER = (
    *("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", "embeddings.position_ids", "vocab_"),
    *("discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "pre_classifier."),
)
"""Prefixes of tensors that only the pretraining or another task uses."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network, with the names of `config.json` on the Hugging Face hub.

    Attributes:
        position_offset: the position of the first token; RoBERTa begins behind its padding token.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    hidden_act: str = "gelu"
    type_vocab_size: int = 0
    embedding_size: int = 0
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    pad_token_id: int = 0
    position_offset: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Architecture":
        """The architecture that a `config.json` describes.

        Raises:
            ValueError: it describes another network; the message says what is different.
            TypeError: settings are missing, contradict each other, or would fill the memory.
        """
        kind = config.get("model_type")
        if kind not in KINDS:
            raise ValueError(f"model_type={kind}")
        given = {RENAMED_SETTINGS.get(name, name): value for name, value in config.items()}
        position = given.get("position_embedding_type", "absolute")
        if position != "absolute":
            raise ValueError(f"position_embedding_type={position}")
        if given.get("hidden_act", "gelu") not in ACTIVATIONS:
            raise ValueError(f"hidden_act={given['hidden_act']}")
        pad = given.get("pad_token_id") or 0
        if not isinstance(pad, int):
            raise TypeError(f"pad_token_id={printable(str(pad))[:100]}: give the number of a token")
        offset = pad + 1 if "roberta" in kind or kind == "camembert" else 0
        if kind != "electra":
            given.pop("embedding_size", None)
        known = {field.name: given[field.name] for field in fields(cls) if given.get(field.name) is not None}
        found = cls(**known | {"pad_token_id": pad, "position_offset": offset})
        found._check_values()
        if found.hidden_size % found.num_attention_heads or not 0 <= pad < found.vocab_size:
            raise TypeError("hidden_size, num_attention_heads, vocab_size and pad_token_id do not fit together")
        return found

    def _check_values(self) -> None:
        """Raises a TypeError if a setting is out of its range, before anything is built."""
        for name, most in LARGEST.items():
            value, least = getattr(self, name), 0 if name in MAY_BE_ZERO else 1
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise TypeError(f"{name}={printable(str(value))[:100]}: give a whole number from {least} to {most:,}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise TypeError(f"{name}={printable(str(value))[:100]}: give a number from 0 to 1, without 1")
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        layer = self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        number = rows * (self.embedding_size or self.hidden_size) + self.num_hidden_layers * layer
        if number > MOST_PARAMETERS:
            sizes = ", ".join(f"{name}={getattr(self, name)}" for name in LARGEST)
            raise TypeError(f"{sizes} make {number:,} parameters, at most {MOST_PARAMETERS:,} are built")

    @property
    def longest(self) -> int:
        """Largest number of tokens of an input."""
        return self.max_position_embeddings - self.position_offset


class Bert(nn.Module):
    """Embeddings and layers, without the pooler and the heads of the pretraining."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        self.embeddings = _Embeddings(sizes)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(sizes) for _ in range(sizes.num_hidden_layers))})
        self.apply(_initialise)

    @property
    def token_embedding(self) -> nn.Embedding:
        """The embedding of the tokens."""
        return self.embeddings.word_embeddings

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, int64 `(batch, length)` -> one vector per token, `(batch, length, hidden_size)`; padding is zero."""
        hidden = self.embeddings(tokens)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden)
        return hidden


class _Embeddings(nn.Module):
    """Tokens `(batch, length)` -> `(batch, length, hidden_size)`, zero at the padding."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        width = sizes.embedding_size or sizes.hidden_size
        self.pad, self.offset = sizes.pad_token_id, sizes.position_offset
        self.word_embeddings = nn.Embedding(sizes.vocab_size, width, padding_idx=sizes.pad_token_id)
        self.position_embeddings = nn.Embedding(sizes.max_position_embeddings, width)
        if sizes.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(sizes.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, sizes.layer_norm_eps)
        self.dropout = nn.Dropout(sizes.hidden_dropout_prob)
        if width != sizes.hidden_size:
            self.project = nn.Linear(width, sizes.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device) + self.offset
        summed = self.word_embeddings(tokens) + self.position_embeddings(places)
        if hasattr(self, "token_type_embeddings"):
            summed = summed + self.token_type_embeddings.weight[0]
        found = self.dropout(self.LayerNorm(summed))
        if hasattr(self, "project"):
            found = self.project(found)
        return found * tokens.ne(self.pad)[..., None]


class _Layer(nn.Module):
    """Attention and two linear layers: `(batch, length, hidden_size)` -> the same shape, zero at the padding."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        self.attention = _Attention(sizes)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(sizes.hidden_size, sizes.intermediate_size)})
        self.output = _Residual(sizes.intermediate_size, sizes)
        self.activation = ACTIVATIONS[sizes.hidden_act]()

    def forward(self, hidden: Tensor) -> Tensor:
        is_token = token_mask(hidden)
        attended = self.attention(hidden, is_token)
        changed = self.output(self.activation(self.intermediate["dense"](attended)), attended)
        return changed * is_token[..., None]


def token_mask(hidden: Tensor) -> Tensor:
    """`(batch, length, hidden_size)`, zero at the padding -> bool `(batch, length)`, true at the tokens."""
    return hidden.ne(0).any(dim=2)


class _Attention(nn.Module):
    """Attention with its residual connection."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        self.self = _SelfAttention(sizes)
        self.output = _Residual(sizes.hidden_size, sizes)

    def forward(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        return self.output(self.self(hidden, is_token), hidden)


class _SelfAttention(nn.Module):
    """Attention of several heads over the tokens that are not padding."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(sizes.hidden_size, sizes.hidden_size) for _ in range(3))
        self.heads, self.dropout = sizes.num_attention_heads, sizes.attention_probs_dropout_prob

    def forward(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        query, key, value = (
            project(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, is_token[:, None, None], dropout)
        return found.transpose(1, 2).flatten(2)


class _Residual(nn.Module):
    """A linear layer whose output is added to its residual connection, and normalised."""

    def __init__(self, columns: int, sizes: Architecture):
        super().__init__()
        self.dense = nn.Linear(columns, sizes.hidden_size)
        self.LayerNorm = nn.LayerNorm(sizes.hidden_size, sizes.layer_norm_eps)
        self.dropout = nn.Dropout(sizes.hidden_dropout_prob)

    def forward(self, change: Tensor, hidden: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(change)) + hidden)


def _initialise(module: nn.Module) -> None:
    """As BERT: normal with a standard deviation of 0.02; biases are zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        elif module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names that they have here."""
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in state)), "")
    found = {}
    for name, tensor in state.items():
        key = name.removeprefix(prefix).replace("embeddings_project.", "embeddings.project.")
        for old, new in RENAMED_TENSORS.items():
            key = key.replace(old, new)
        found[key] = tensor
    return found
