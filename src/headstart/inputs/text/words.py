"""The words of a text and the tokens that each consists of."""

from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor

from headstart.inputs.text.preprocess import TextPreprocess

BLANKS = ("[MASK]", "<mask>", "[UNK]", "<unk>", "<|endoftext|>")
"""Tokens that say nothing about the text, the best first, in the tokenizers of the common networks."""


@dataclass(frozen=True)
class Word:
    """A word of a text, and how much it counts for a class.

    Attributes:
        start, end: its place in the text, in characters, the end excluded.
        weight: positive if it raises the score of the class, negative if it lowers it.
    """

    start: int
    end: int
    weight: float


def merged_into_words(preprocess: TextPreprocess, raw: str, weights: list[float]) -> list[Word]:
    """The words of a text in order; the weight of a word is the sum over its tokens.

    Special tokens at the ends of the text belong to no word. The tokenizer says what a word is: punctuation marks and
    Chinese characters are words of their own in that of BERT.

    Args:
        preprocess: of the model.
        raw: the text.
        weights: one per token, with the special tokens.
    """
    encoding = preprocess.encoding(raw)
    members: dict[int, list[int]] = defaultdict(list)
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            members[word].append(place)
    found = []
    for tokens in members.values():
        start, end = encoding.offsets[tokens[0]][0], encoding.offsets[tokens[-1]][1]
        start += len(raw[start:end]) - len(raw[start:end].lstrip())  # some tokenizers count the space before a word
        if start < end:
            found.append(Word(start, end, sum(weights[token] for token in tokens)))
    return found


def blank_token(preprocess: TextPreprocess) -> int | None:
    """The token that replaces words to show the effect of each; None: the tokenizer has none."""
    found = preprocess.token_id(BLANKS)
    return None if found == preprocess.pad else found


def blanked(preprocess: TextPreprocess, raw: str) -> Tensor | None:
    """The tokens of a text, int64 `(tokens,)`, each of its words replaced by a token that says nothing.

    The special tokens stay, and the length does. None: the tokenizer has no such token.
    """
    blank = blank_token(preprocess)
    if blank is None:
        return None
    tokens = preprocess(raw)
    for place, word in enumerate(preprocess.encoding(raw).word_ids):
        if word is not None:
            tokens[place] = blank
    return tokens
