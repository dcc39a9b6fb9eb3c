"""Encoders that `transformers` builds, for all kinds that `bert.py` does not know."""

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.size_limit import at_most_parameters, most_in_memory
from headstart.backbones.weights import StateDict
from headstart.errors import UsageError, listed, printable

NOT_TAKEN = {
    *("model_type", "auto_map", "trust_remote_code", "dtype", "torch_dtype", "name_or_path", "_name_or_path"),
    *("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"),
    *("quantization_config", "device_map", "_commit_hash", "num_labels", "id2label", "label2id"),
}
"""Settings of a `config.json` that are not used: they choose code, which may come from a hub, another precision, or are
about classes."""

LARGEST_SETTING = 10_000_000
"""Of whole numbers in a `config.json`: numbers of tokens, units, places."""
MOST_LAYERS = 1000
"""Of whole numbers whose names have `layer` or `block` in them."""

PART = re.compile(r"(use_)?(timm|pretrained)_backbone|backbone(_.*)?|architecture|model_args")
"""Settings that make a network build another one inside it, perhaps from a hub or a folder."""


class AnyEncoder(nn.Module):
    """An encoder of `transformers` with the interface of `Bert`.

    Its layers cannot be recorded by torch.fx, so only the features behind the whole network can be cached.

    Args:
        config: the content of `config.json`.
        name: of the model, for messages.
        reason: why it is not built in `bert.py`.

    Attributes:
        settings: the config, complete and as plain data.
        hidden_size: length of a vector.
        longest: the most tokens that it takes.

    Raises:
        UsageError: `transformers` is missing, or cannot build this kind of network.
    """

    not_in_fingerprint = frozenset({"name", "reason"})  # they are for messages

    def __init__(self, config: Mapping[str, Any], name: str, reason: str):
        super().__init__()
        self.name, self.reason, self.kind = name, reason, config.get("model_type", "")
        net = self._built(_taken(config))
        found = json.loads(json.dumps(net.config.to_dict(), default=str))  # plain data, as in config.json
        self.settings = _taken(found)
        self.settings["model_type"] = self.kind
        if net.config.pad_token_id is None:
            raise UsageError(f"{name}: its config.json has no pad_token_id, so texts of a batch cannot be filled up")
        self.pad, self.hidden_size = net.config.pad_token_id, net.config.hidden_size
        self._take(net)
        self.longest = _most_tokens(self.inner, net.config)

    def _built(self, settings: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The network of `transformers`, with random weights or those of a file."""
        try:
            from transformers import AutoConfig, AutoModel
            from transformers.utils import logging as words_of_transformers
        except ImportError as error:
            needs = f'{self.name} ({self.reason}) needs transformers: pip install -e ".[transformers]"'
            raise UsageError(needs) from error
        words_of_transformers.disable_progress_bar()  # reading a file takes a second
        _check_kind(self.kind, self.name)
        try:
            _check_sizes(settings)
            config = AutoConfig.for_model(self.kind, **settings)
            options = {"attn_implementation": "eager", "dtype": torch.float32}
            with at_most_parameters(most_in_memory()):
                net = AutoModel.from_config(config, trust_remote_code=False, **options)
            if state is None:
                return net
            net, found = type(net).from_pretrained(
                None, config=config, state_dict=dict(state), output_loading_info=True, **options
            )
        except Exception as error:  # the library raises errors of many classes for settings that do not fit
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(f"{self.name} ({self.reason}): transformers cannot build it: {line}") from error
        missing = [name for name in found["missing_keys"] if "pooler" not in name and not name.startswith("decoder.")]
        if missing or found.get("mismatched_keys"):
            wrong = listed(sorted(missing) or [str(each) for each in found["mismatched_keys"]])
            raise UsageError(f"the weights do not fit {self.name}: missing or of another shape: {wrong}")
        return net

    def load_published(self, state: StateDict) -> None:
        """Loads weights with the names of `transformers`; those of the pretraining's head are left out.

        Raises:
            UsageError: tensors are missing or have another shape.
        """
        settings = {key: value for key, value in self.settings.items() if key != "model_type"}
        self._take(self._built(settings, state))

    def _take(self, net: nn.Module) -> None:
        self.inner = net.get_encoder() if net.config.is_encoder_decoder else net
        if isinstance(getattr(self.inner, "pooler", None), nn.Module):
            self.inner.pooler = None  # unused; DDP would wait for its gradient
        self.train()

    @property
    def token_embedding(self) -> nn.Module:
        """The embedding of the tokens."""
        return self.inner.get_input_embeddings()

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, int64 `(batch, length)` -> one vector per token, `(batch, length, hidden_size)`; padding is zero."""
        is_token = tokens.ne(self.pad)
        hidden = self.inner(input_ids=tokens, attention_mask=is_token.long()).last_hidden_state
        return hidden * is_token[..., None]


def _check_kind(kind: str, name: str) -> None:
    """Raises a UsageError if this is no network for texts: others may load parts from a hub or a folder."""
    from transformers.models.auto import modeling_auto

    of_texts = ("MASKED_LM", "SEQUENCE_CLASSIFICATION", "TEXT_ENCODING")
    known = {each for task in of_texts for each in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")}
    if not isinstance(kind, str) or kind not in known:
        raise UsageError(f"{name}: its config.json says model_type={kind!r}, which is no encoder of texts")


def _check_sizes(settings: Any, name: str = "") -> None:
    """Raises a ValueError if a setting, at any level, would fill the memory or take hours."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            _check_sizes(value, str(key))
    elif isinstance(settings, list):
        for value in settings:
            _check_sizes(value, name)
    elif isinstance(settings, int) and "theta" not in name:  # the base of the angles of positions, no size
        most = MOST_LAYERS if "layer" in name or "block" in name else LARGEST_SETTING
        if settings > most:
            value = printable(str(settings)[:100])
            raise ValueError(f"{printable(name)}={value} is above {most:,}. Give another model")


def _taken(settings: Any) -> Any:
    """The settings of a `config.json` that are used, at every level."""
    if isinstance(settings, Mapping):
        taken = {key: value for key, value in settings.items() if key not in NOT_TAKEN and not PART.fullmatch(str(key))}
        return {key: _taken(value) for key, value in taken.items()}
    return [_taken(value) for value in settings] if isinstance(settings, list) else settings


def _most_tokens(net: nn.Module, config: Any) -> int:
    """The number of positions, without those before the first token of a text; a large number if there is no limit."""
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 0
    places = [
        m for name, m in net.named_modules() if name.endswith("position_embeddings") and hasattr(m, "padding_idx")
    ]
    if places and places[0].padding_idx is not None:
        most -= places[0].padding_idx + 1
    return most if most > 0 else 10**6
