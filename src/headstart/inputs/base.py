"""The interface of a kind of input: how a raw sample becomes an input of the backbone.

`inputs/images/preprocess.py` implements it for pictures. All code for one kind of input is in the folder of that kind;
tasks, strategies, caches, evaluation and export use only this interface.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from os import PathLike
from typing import Any, BinaryIO, ClassVar

from hydra.utils import get_class
from torch import Tensor, nn
from torch.utils.data import default_collate

from headstart.errors import UsageError

PICTURES = "headstart.inputs.images.preprocess.ImagePreprocess"
"""The preprocessing of old checkpoints, which do not name it."""


class UnreadableInput(ValueError):  # noqa: N818 - the name says what is wrong
    """A file that cannot be read as a sample. `reason` is a few words; `path` is None for a stream without a name."""

    def __init__(self, reason: str, path: str | None = None) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


@dataclass(frozen=True)
class Setting:
    """A recommended or chosen setting, and the reason for it.

    Attributes:
        key: its name on the command line, such as `model.image_size`.
        value: its value.
        reason: one sentence.
    """

    key: str
    value: Any
    reason: str

    @property
    def typed(self) -> str:
        """The setting as one types it, such as `finetuning.goal=null`; a whole part is switched off by `none`."""
        word = str(self.value)
        if self.value is None:
            word = "null" if "." in self.key else "none"
        elif isinstance(self.value, bool):
            word = word.lower()
        return f"{self.key}={word}"


@dataclass(frozen=True)
class Length:
    """The length of a run that `finetuning=auto` chooses: epochs until this number of samples was seen, within bounds.

    Attributes:
        samples: training samples to see, each time a sample is seen.
        fewest, most: bounds of the number of epochs.
    """

    samples: int
    fewest: int
    most: int


@dataclass(frozen=True)
class Unlabelled:
    """A sample without a label, for predictions.

    Attributes:
        name: of its file; with the line if the file holds several samples.
        raw: the raw sample; None: it is still to be read from the file.
        reason: why it cannot be used; None: nothing is known against it.
    """

    name: str
    raw: Any = None
    reason: str | None = None


class Preprocess(ABC):
    """Turns raw samples into the inputs that a set of weights expects; deterministic.

    Subclasses are frozen dataclasses of plain values (numbers, strings, lists): `saved_form` prepares them for a
    checkpoint, `from_saved_form` builds them again.

    Attributes:
        sample_name: the word for one sample, such as `picture`.
        suffixes: endings of files that hold one sample each, lower case with the dot; empty if there are no such files.
        table_suffixes: endings of files that always hold several samples.
        hub_task: name of the classification task on the Hugging Face hub.
        in_rows: whether predictions show the sample itself, as `sample_name`, beside its name.
        run_length: for `finetuning=auto`; None: the default.
        contrastive_up_to: training samples up to which `finetuning=auto` fine-tunes on pairs of samples; 0: never.
    """

    sample_name: ClassVar[str] = "sample"
    suffixes: ClassVar[frozenset[str]] = frozenset()
    table_suffixes: ClassVar[tuple[str, ...]] = ()
    hub_task: ClassVar[str] = "other"
    in_rows: ClassVar[bool] = False
    run_length: ClassVar[Length | None] = None
    contrastive_up_to: ClassVar[int] = 0

    @abstractmethod
    def __call__(self, raw: Any) -> Any:
        """A raw sample, as a data set loads it, -> one input that can be collated."""

    def collate(self, inputs: Sequence[Any]) -> Any:
        """Inputs -> a batch for the backbone: a tensor or a dict of tensors, samples first."""
        return default_collate(list(inputs))

    @abstractmethod
    def example(self, number: int) -> Any:
        """A batch of this number of random inputs, to measure speed and to export without data."""

    @abstractmethod
    def describe(self, raw: bool = False) -> dict[str, Any]:
        """The input in words and as plain data, for reports and for users of an export.

        Args:
            raw: whether `as_module` is part of the network, so that the network takes raw samples.

        Returns:
            `summary`: one line. `input`: name, type and shape of the batch. `preprocess`: the settings.
            `steps_before`: the steps that the user of an export has to do before the network, in order.
        """

    def check_kind(self, loads: Sequence[Callable[[int], Any]]) -> None:  # noqa: B027 - by default, any sample will do
        """Refuses samples of another kind of input; decodes no picture for a model of pictures.

        Args:
            loads: the loader of each data set.

        Raises:
            UsageError: the message says what to type.
        """

    def read(self, source: str | BinaryIO) -> Any:
        """A raw sample from a file or a stream.

        Raises:
            UnreadableInput: the file cannot be read as a sample.
            UsageError: samples of this kind are not stored in one file each.
        """
        raise UsageError(f"this model cannot read a {self.sample_name} from a file")

    def from_memory(self, given: Any) -> Any | None:
        """A raw sample from an object of a Python program; None if it is a path, which names files.

        Raises:
            UnreadableInput: it cannot be used as a sample.
            UsageError: it is no object of this kind.
        """
        if isinstance(given, (str, PathLike)):
            return None
        raise UsageError(f"this model takes no {type(given).__name__}: give files, each with a {self.sample_name}")

    def samples_in(self, source: str | BinaryIO, column: str | int | None = None) -> Iterator[Unlabelled] | None:
        """The samples of a file, or of standard input, that holds several of them.

        Args:
            source: path of the file, or the stream of standard input.
            column: of a table, its name or position; None: found.

        Returns:
            None if the file is one sample, or standard input holds the names of files.

        Raises:
            UsageError: the file cannot be read, or the column is not known.
        """
        return None

    def refuse_large(self, source: BinaryIO, most: int) -> None:  # noqa: B027 - by default, no sample is large
        """Refuses a sample whose decoding would take much memory, from what the file says about its size.

        Args:
            source: a seekable stream at the beginning of the sample.
            most: the largest number of values, such as pixels.

        Raises:
            UnreadableInput: it is larger.
        """

    def raw_example(self, seed: int) -> Any:
        """A generated raw sample that depends on the seed, to compare an export with its checkpoint without data."""
        raise UsageError(f"this model cannot generate a {self.sample_name}: the data of the run are needed")

    def companion(self, raw: Any) -> Any:
        """Another raw sample of the same shape, so that both fit into one batch of raw samples."""
        return raw

    def as_module(self) -> nn.Module | None:
        """The preprocessing as a module for an exported network, for raw samples of one shape, or None."""
        return None

    def export_example(self, raw: bool = False) -> tuple[Any, Any]:
        """A batch of two to export with, and the names of its dynamic dimensions.

        Args:
            raw: whether the network begins with `as_module`.

        Returns:
            The batch; and for each of its tensors, in the same structure, `{dimension: name}`.
        """
        batch = self.example(2)
        axes = {key: {0: "batch"} for key in batch} if isinstance(batch, Mapping) else {0: "batch"}
        return batch, axes

    def adapt_loader(self, load: Callable[[int], Any]) -> Callable[[int], Any]:
        """A loader of a data set that skips detail which this preprocessing would remove anyway."""
        return load

    def lengths(self, raw: Iterable[Any]) -> list[int] | None:
        """The length of the input that each raw sample becomes; None, without a look at them, if all are of one size.

        Batches are made of samples of similar lengths.
        """
        return None

    def summary_of(self, raw: Iterable[Any]) -> str | None:
        """A sentence about raw samples that a user should know before training; None, without a look at them: none."""
        return None

    def files_beside(self) -> dict[str, str]:
        """Files that the user of an exported network needs: name -> content."""
        return {}

    def fit_to(self, loads: Sequence[Callable[[int], Any]]) -> "Preprocess":
        """This preprocessing with what the check of a new model's data has found.

        Args:
            loads: the loader of each data set.
        """
        return self

    def suggest(self, raw: Sequence[Any]) -> list[Setting]:
        """Settings that suit these raw training samples better than the defaults (`finetuning=auto`)."""
        return [Setting("augmentation", None, f"the augmentations are for pictures, not for {self.sample_name}s")]


def saved_form(preprocess: Preprocess) -> dict[str, Any]:
    """The preprocessing as plain data."""
    assert is_dataclass(preprocess), f"{type(preprocess).__name__} must be a dataclass of plain values"
    kind = type(preprocess)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **asdict(preprocess)}


def from_saved_form(saved: Mapping[str, Any]) -> Preprocess:
    """The preprocessing that `saved_form` described.

    Raises:
        UsageError: `_target_` does not name a preprocessing.
    """
    settings = dict(saved)
    target = settings.pop("_target_", PICTURES)
    kind = get_class(target)
    if not issubclass(kind, Preprocess):
        raise UsageError(
            f"the checkpoint names {target} as its preprocessing, but that is not a subclass of Preprocess"
        )
    return kind(**settings)


def leaves(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from leaves(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from leaves(value)


def batch_size(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor."""
    return len(next(leaves(batch)))
