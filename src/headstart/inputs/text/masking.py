"""Texts with masked tokens, for a language model that predicts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from headstart.errors import UsageError
from headstart.inputs.text.files import digest
from headstart.inputs.text.preprocess import TextPreprocess, encoder_of
from headstart.seeds import derive_seed

MASK_TOKENS = ("[MASK]", "<mask>")
"""The mask token of BERT and its relatives, and of RoBERTa and its relatives."""
NO_TARGET = -100
"""The target of a token that is not predicted; torch's losses leave it out."""
MASKED, RANDOM = 0.8, 0.1
"""Shares of the chosen tokens that become the mask token, and a random one; the others stay as they are."""


@dataclass(frozen=True)
class MaskedText(TextPreprocess):
    """Text -> its tokens, some of them masked, and the tokens to predict.

    As BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1): of each text a fraction of the tokens
    is chosen, but at least one. Of these 80 % become the mask token, 10 % a random token, and 10 % stay as they are.
    Special tokens are never chosen, and no token becomes one, except the mask token.

    Args:
        fraction: of the tokens that are chosen.
        seed: the choice depends on it and on the text only; None: on the state of torch's generator.

    Raises:
        UsageError: a fraction out of range, or the tokenizer has no mask token.
    """

    fraction: float = 0.15
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise UsageError(f"task.mask_fraction={self.fraction}: give a number between 0 and 1, such as 0.15")
        if self.token_id(MASK_TOKENS) is None:
            raise UsageError(
                f"the tokenizer of this model has no mask token ({' or '.join(MASK_TOKENS)}), so its network cannot "
                "predict masked tokens: choose another one, such as model=minilm or model=bert"
            )

    def __call__(self, raw: str) -> tuple[Tensor, Tensor]:
        """One text -> the tokens for the network, and the tokens to predict or `NO_TARGET`, each int64 `(tokens,)`."""
        generator = None
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, int(digest(raw), 16)))
        return self.masked(super().__call__(raw), generator)

    def masked(self, tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The same for a text that is tokens already, int64 `(tokens,)`."""
        special, ordinary = _vocabulary(self.tokenizer)
        places = (~torch.isin(tokens, special)).nonzero().flatten()
        number = min(max(round(self.fraction * len(places)), 1), len(places))
        chosen = places[torch.randperm(len(places), generator=generator)[:number]]
        fate = torch.rand(number, generator=generator)
        other = ordinary[torch.randint(len(ordinary), (number,), generator=generator)]
        given, targets = tokens.clone(), torch.full_like(tokens, NO_TARGET)
        targets[chosen] = tokens[chosen]
        given[chosen] = torch.where(fate < MASKED, self.token_id(MASK_TOKENS), tokens[chosen])
        is_random = (fate >= MASKED) & (fate < MASKED + RANDOM)
        given[chosen[is_random]] = other[is_random]
        return given, targets

    def collate(self, inputs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Several texts -> `tokens` and `targets`, int64 `(batch, tokens of the longest)`."""
        given, targets = zip(*inputs, strict=True)
        return {
            "tokens": super().collate(given),
            "targets": pad_sequence(list(targets), batch_first=True, padding_value=NO_TARGET),
        }


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: str) -> tuple[Tensor, Tensor]:
    """The special tokens of a tokenizer, and all others, each in ascending order."""
    encoder = encoder_of(tokenizer, None)
    special = {number for number, token in encoder.get_added_tokens_decoder().items() if token.special}
    ordinary = set(encoder.get_vocab().values()) - special
    return torch.tensor(sorted(special)), torch.tensor(sorted(ordinary))
