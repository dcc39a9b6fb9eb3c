"""A kind of input that is no picture, as small as it can be: texts as dicts of token tensors of any length."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headstart.backbones.base import Backbone
from headstart.data.module import DataModule
from headstart.data.samples import Samples
from headstart.inputs.base import Preprocess, UnreadableInput

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLASSES = ["early", "late"]


@dataclass(frozen=True)
class Tokens(Preprocess):
    """A text -> the places of its letters in the alphabet, counted from 1; 0 fills short texts up.

    Args:
        max_length: letters that are kept.
    """

    sample_name = "text"
    suffixes = frozenset((".txt",))
    hub_task = "text-classification"

    max_length: int = 20

    def __call__(self, raw: str) -> Tensor:
        known = [1 + LETTERS.index(letter) for letter in raw.lower() if letter in LETTERS]
        return torch.tensor(known[: self.max_length] or [0])

    def collate(self, inputs):
        return {"ids": nn.utils.rnn.pad_sequence(list(inputs), batch_first=True)}

    def example(self, number):
        return self.collate([torch.randint(1, 27, (3 + place % 5,)) for place in range(number)])

    def describe(self, raw=False):
        return {
            "summary": f"texts of up to {self.max_length} letters",
            "input": {"name": "ids", "type": "int64", "shape": ["batch", "length"]},
            "preprocess": {"max_length": self.max_length},
            "steps_before": ["number the letters from 1", "fill up with 0"],
        }

    def read(self, source):
        try:
            return (source.read() if hasattr(source, "read") else Path(source).read_bytes()).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableInput("not a text", str(source)) from error

    def raw_example(self, seed):
        random = torch.Generator().manual_seed(seed)
        return "".join(LETTERS[i] for i in torch.randint(26, (1 + seed % 30,), generator=random))

    def export_example(self, raw=False):
        batch = self.collate([self("abcde"), self("xyz")])
        return batch, {"ids": {0: "batch", 1: "length"}}


class Layer(nn.Module):
    """Tokens `(batch, length, width)` -> the same; what is zero, as for filled places, stays zero."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.linear(x))


class Encoder(Backbone):
    """`{"ids": (batch, length)}` -> features `(batch, width)`.

    Args:
        weights: `toy` for weights that are the same every time and count as pretrained; None for random ones.
        width: of the features.
    """

    blocks = ["layer1", "layer2"]

    def __init__(self, weights: str | None = "toy", width: int = 16):
        super().__init__()
        self.num_features, self.preprocess = width, Tokens()
        self.embed = nn.Embedding(27, width, padding_idx=0)
        self.layer1, self.layer2 = Layer(width), Layer(width)
        self.norm = nn.LayerNorm(width)
        if weights is not None:
            random = torch.Generator().manual_seed(0)
            for parameter in self.parameters():
                parameter.data = torch.randn(parameter.shape, generator=random) / width**0.5
            self.embed.weight.data[0] = 0
            self.pretrained = True

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """The sum over a text's tokens, normalised."""
        return self.norm(self.layer2(self.layer1(self.embed(inputs["ids"]))).sum(dim=1))


class Texts(DataModule):
    """Made-up texts: of letters early in the alphabet, or late in it."""

    def __init__(self, *, num_texts: int = 60, **options):
        super().__init__(**options)
        self.num_texts = num_texts

    def dataset(self, split: str) -> Samples | None:
        if split != "train":
            return None
        targets = [index % 2 for index in range(self.num_texts)]
        texts = [text(index, target) for index, target in enumerate(targets)]
        return Samples([f"{index:03d}" for index in range(len(texts))], targets, list(CLASSES), Lines(texts))


def text(seed: int, target: int) -> str:
    """A text of its class, with a few letters of the other one."""
    random = torch.Generator().manual_seed(seed)
    length = int(torch.randint(3, 15, (), generator=random))
    places = torch.randint(0, 15, (length,), generator=random) + 11 * target
    return "".join(LETTERS[int(place)] for place in places)


class Lines:
    """Text `i` of a list."""

    def __init__(self, lines: list[str]):
        self.lines = lines

    def __call__(self, index: int) -> str:
        return self.lines[index]
