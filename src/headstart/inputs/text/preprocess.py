"""The preprocessing of texts: tokens, as a set of pretrained weights expects them."""

import functools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from headstart.errors import UsageError
from headstart.files import TABLE_SUFFIXES
from headstart.inputs.base import Length, Preprocess, Setting, Unlabelled, UnreadableInput
from headstart.inputs.text.files import decoded, lines_of, usable
from headstart.inputs.text.tables import rows_of
from headstart.inputs.text.tokenizer_file import refusing, tokenizer_of

SHORTEST, LONGEST_EXAMPLE = 4, 64
"""Shortest `max_length`, and the length of generated batches, in tokens."""


@dataclass(frozen=True)
class TextPreprocess(Preprocess):
    """Text -> tokens, cut at the end if there are too many.

    Words that look like a special token, such as `[SEP]`, are ordinary text. (Tokenizers of the kind Unigram, such as
    that of XLM-RoBERTa, still know these words.)

    Args:
        tokenizer: the content of `tokenizer.json`, so that a checkpoint needs no other file.
        max_length: largest number of tokens of a text, with the special tokens at its ends.
        pad: the token that fills up the shorter texts of a batch.

    Raises:
        UsageError: the package `tokenizers` is missing, or cannot read `tokenizer`.
    """

    sample_name = "text"
    suffixes = frozenset({".txt"})
    table_suffixes = TABLE_SUFFIXES
    hub_task = "text-classification"
    in_rows = True
    run_length = Length(samples=4000, fewest=3, most=80)
    contrastive_up_to = 500  # docs/texts.md

    tokenizer: str
    max_length: int
    pad: int = 0

    def __call__(self, raw: str) -> Tensor:
        """One text -> its tokens, int64 `(tokens,)`, at most `max_length`."""
        return torch.tensor(self.encoding(raw).ids, dtype=torch.int64)

    def encoding(self, raw: str) -> Any:
        """The `tokenizers.Encoding` of a text: tokens, their words and their places in the text."""
        return _encoded(self._encoder, raw)

    def token_id(self, names: Iterable[str]) -> int | None:
        """The number of the first of these tokens that the tokenizer has."""
        found = (self._encoder.token_to_id(name) for name in names)
        return next((number for number in found if number is not None), None)

    def collate(self, inputs: Sequence[Tensor]) -> Tensor:
        """Tokens of several texts -> int64 `(batch, tokens of the longest)`, filled up with `pad`."""
        return pad_sequence(list(inputs), batch_first=True, padding_value=self.pad)

    def lengths(self, raw: Iterable[str]) -> list[int]:
        """The number of tokens of each text, at most `max_length`."""
        return [min(number, self.max_length) for number in self.full_lengths(raw)]

    def full_lengths(self, raw: Iterable[str]) -> list[int]:
        """The number of tokens of each text before it is cut."""
        encoder = encoder_of(self.tokenizer, None)
        return [len(_encoded(encoder, text).ids) for text in raw]

    @property
    def _encoder(self) -> Any:
        return encoder_of(self.tokenizer, self.max_length)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        return self._encoder.get_vocab_size()

    @property
    def largest_token(self) -> int:
        """The largest number of a token, also of those at the ends of each text."""
        return max([0, *self._encoder.get_vocab().values(), *self.encoding("").ids])

    def example(self, number: int) -> Tensor:
        """Random tokens, int64 `(number, length)`, without padding."""
        length = min(self.max_length, LONGEST_EXAMPLE)
        ids = torch.randint(0, self.vocabulary_size, (number, length))
        return ids.where(ids != self.pad, self.pad + 1 if self.pad == 0 else self.pad - 1)

    def check_kind(self, loads: Sequence[Callable[[int], Any]]) -> None:
        """Refuses samples that are no texts."""
        if not isinstance(loads[0](0), str):
            raise UsageError(
                "this model is for texts, and the data hold none: type another model, such as model=resnet50 for "
                "pictures, or data=text_table, data=text_folder for texts"
            )

    def raw_example(self, seed: int) -> str:
        """Some words of the vocabulary, another number of them for each seed."""
        generator = random.Random(seed)
        vocabulary = self._encoder.get_vocab()
        words = [word for word in vocabulary if word.isalpha()] or list(vocabulary)
        return " ".join(generator.choices(sorted(words), k=generator.randint(1, self.max_length)))

    def companion(self, raw: str) -> str:
        """The first half of the text: a batch of both needs padding."""
        return raw[: max(len(raw) // 2, 1)]

    def read(self, source: str | BinaryIO) -> str:
        """The text of a file or a stream, in UTF-8.

        Raises:
            UnreadableInput: it cannot be opened, is not UTF-8 or holds no text.
        """
        return usable(decoded(source))

    def from_memory(self, given: Any) -> str | None:
        """A text as it is; None for a path, which names a file with texts."""
        if given is None or type(given).__name__ == "NAType" or (isinstance(given, Real) and math.isnan(given)):
            # an empty cell of pandas
            raise UnreadableInput("empty")
        if not isinstance(given, (str, PathLike)):
            raise UsageError(f"this model takes texts (str) or paths of files, not {type(given).__name__}")
        return usable(given) if isinstance(given, str) else None

    def samples_in(self, source: str | BinaryIO, column: str | int | None = None) -> Iterator[Unlabelled]:
        """Each line of a text file or of standard input, or each row of a table."""
        if isinstance(source, str) and Path(source).suffix.lower() in self.table_suffixes:
            return rows_of(source, column)
        return lines_of(source)

    def export_example(self, raw: bool = False) -> tuple[Tensor, Any]:
        """A batch of two with padding, and the names of its dynamic dimensions."""
        batch = self.example(2)
        batch[1, batch.shape[1] // 2 :] = self.pad
        return batch, {0: "batch", 1: "length"}

    def describe(self, raw: bool = False) -> dict[str, Any]:
        """As `Preprocess.describe`; the tokenizer itself is left out, because it has hundreds of kilobytes."""
        return {
            "summary": f"texts, at most {self.max_length} tokens each; the end of longer texts is cut off",
            "input": {"name": "tokens", "type": "int64", "shape": ["batch", "length"]},
            "preprocess": {"max_length": self.max_length, "pad": self.pad},
            "steps_before": [
                f"tokens of the text by the tokenizer in `files`, without its padding, at most {self.max_length}; the "
                "rest is cut off",
                "words that look like special tokens, such as [SEP], are ordinary text (encode_special_tokens)",
                f"fill up the shorter texts of a batch with {self.pad} at the end",
            ],
        }

    def files_beside(self) -> dict[str, str]:
        """`tokenizer.json`."""
        return {"tokenizer.json": self.tokenizer}

    def suggest(self, raw: Sequence[Any]) -> list[Setting]:
        """No augmentation, and a less confident head before the fine-tuning (docs/texts.md)."""
        why = "a linear probe that makes no mistake on the training texts would leave nothing to learn"
        return [*super().suggest(raw), Setting("finetuning.soften_head", True, why)]

    def summary_of(self, raw: Iterable[str]) -> str:
        """A sentence about the lengths of these texts."""
        lengths = self.full_lengths(raw)
        cut = sum(length > self.max_length for length in lengths)
        share = f"{100 * cut / len(lengths):.3g} % are cut" if cut else "none is cut"
        longest = statistics.quantiles(lengths, n=100, method="inclusive")[-1] if len(lengths) > 1 else lengths[0]
        return (
            f"tokens per text: median {statistics.median(lengths):.0f}, 99 % have at most {longest:.0f}; {share} "
            f"(model.max_length={self.max_length})"
        )


@functools.lru_cache(maxsize=8)
def encoder_of(tokenizer: str, max_length: int | None) -> Any:
    """The tokenizer; `max_length` None: texts are not cut.

    Raises:
        UsageError: the package is missing, or `tokenizer` cannot be used.
    """
    try:
        found = tokenizer_of(tokenizer)
    except ImportError as error:
        raise UsageError('texts need the package tokenizers: pip install -e ".[text]"') from error
    found.encode_special_tokens = True
    found.no_padding()
    if max_length is None:
        found.no_truncation()
        return found
    with refusing(f"the tokenizer cannot cut texts to {max_length} tokens", "Give a larger model.max_length"):
        found.enable_truncation(max_length)
        if (number := found.num_special_tokens_to_add(False)) >= max_length:
            raise ValueError(f"it adds {number} special tokens to each text")
    return found


def _encoded(encoder: Any, text: str) -> Any:
    with refusing("the tokenizer fails on a text"):
        return encoder.encode(text)
