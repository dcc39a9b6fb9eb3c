"""Encoders that `transformers` builds, for all kinds that `bert.py` does not know."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from headstart.errors import UsageError


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
        UsageError: `transformers` is missing or does not know this kind of network.
    """

    def __init__(self, config: Mapping[str, Any], name: str, reason: str):
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise UsageError(f'{name} ({reason}) needs transformers: pip install -e ".[transformers]"') from error
        given = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
        try:
            found = AutoConfig.for_model(config.get("model_type", ""), **given)
            net = AutoModel.from_config(found)
        except (ValueError, KeyError, TypeError, ImportError) as error:
            line = (str(error).splitlines() or [""])[0]
            raise UsageError(f"{name} ({reason}): transformers cannot build it: {line}") from error
        self.inner = net.get_encoder() if found.is_encoder_decoder else net
        if isinstance(getattr(self.inner, "pooler", None), nn.Module):
            self.inner.pooler = None  # unused; DDP would wait for its gradient
        self.settings = found.to_dict()
        self.pad = found.pad_token_id or 0
        self.hidden_size = found.hidden_size
        self.longest = getattr(found, "max_position_embeddings", None) or 10**6

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, int64 `(batch, length)` -> one vector per token, `(batch, length, hidden_size)`; padding is zero."""
        is_token = tokens.ne(self.pad)
        hidden = self.inner(input_ids=tokens, attention_mask=is_token.long()).last_hidden_state
        return hidden * is_token[..., None]
