"""The data module that every data set extends. A data set needs one method: `dataset(split)`."""

import logging
import os
import signal
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, default_collate

from headstart.data.leaks import warn_of_leaks
from headstart.data.samples import Samples, pool, with_loaders
from headstart.data.sampling import CachedLoader, EpochLoader, EpochSampler, FixedViews, Rows
from headstart.data.split_file import read_split_file, write_split_file
from headstart.data.splits import SPLITS, SplitPlan
from headstart.data.transformed import Augmented, AugmentedInputs, Inputs, Transformed, collate_with_targets
from headstart.errors import UsageError, listed
from headstart.inputs.base import Preprocess
from headstart.inputs.transforms import Deterministic, Load, SplitTransform, Transform, as_it_is

log = logging.getLogger(__name__)


class DataModule(pl.LightningDataModule):
    """Splits, subsets, class map and loaders of the samples that `dataset(split)` returns.

    A split that the data set does not have is cut from `train`, stratified by class and seeded. The test split is never
    used for training or model selection. The assignment is written to `split_file`, and read from it if it exists, so a
    resumed or evaluated run uses the same splits.

    Args:
        batch_size: samples per batch and process.
        num_workers: loader processes per training process; None: by the cores of the machine (0 on two cores, because
            the model needs both).
        val_fraction: share of `train` held out for validation when the data set has no `val` of its own.
        test_fraction: the same for `test`; 0: no test split.
        train_fraction: share of the remaining `train` to train on, stratified.
        shots_per_class: number of training samples per class, in place of a share; for multi-label data at least this
            number per label.
        fold: with `num_folds`, which fold is `val` (0-based); `train` and `val` are pooled first.
        num_folds: number of cross-validation folds; None: no cross-validation.
        class_weights: class weights of the loss: `none`, `balanced` (inverse frequency) or `sqrt` (its square root).
        sampler: `shuffle`, or `balanced` to draw every class equally often (with replacement).
        seed: of the splits, subsets, order and augmentation.
        split_file: file with the assignment of samples to splits; None: it is only in memory.
        classes: class names in the order of the outputs of an existing model; None for a new model.

    Attributes:
        one_label: whether every sample of such a data set has exactly one class; False: known only from the samples.
        brought: the splits that the data set has itself, known after `setup`; the others are cut from `train`.
        splits_from_file: whether `split_file` existed, so that nothing was cut.
        cached_activations: split (`train`, `val`) -> activations that the trainer's batches hold in place of inputs;
            empty if the activation cache does not serve the run.
        balanced_batches: whether each training batch has several samples each of several classes, equally often; the
            strategy sets it for each stage.
        load_with: the samples and the deterministic part of a transform -> a function that gives sample `index` after
            this part; the picture cache replaces the default, `uncached`.

    Raises:
        UsageError: a value out of range, or two that contradict each other.
    """

    one_label: ClassVar[bool] = False

    def __init__(
        self,
        *,
        batch_size: int | str = 32,
        num_workers: int | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        train_fraction: float = 1.0,
        shots_per_class: int | None = None,
        fold: int | None = None,
        num_folds: int | None = None,
        class_weights: str = "none",
        sampler: str = "shuffle",
        seed: int = 0,
        split_file: str | None = None,
        classes: list[str] | None = None,
    ):
        super().__init__()
        one_of("data.class_weights", class_weights, ("none", "balanced", "sqrt"))
        one_of("data.sampler", sampler, ("shuffle", "balanced"))
        if isinstance(batch_size, str) or batch_size < 1:  # `training/settle.py` has replaced auto
            raise UsageError(f"data.batch_size={batch_size}: give a whole number of at least 1, or for a training auto")
        if num_workers is not None and num_workers < 0:
            raise UsageError(f"data.num_workers={num_workers}: give a whole number of at least 0, or null")
        if class_weights != "none" and sampler == "balanced":
            raise UsageError(
                f"data.class_weights={class_weights} and data.sampler=balanced both balance the classes: give one"
            )
        self.plan = SplitPlan(val_fraction, test_fraction, train_fraction, shots_per_class, fold, num_folds, seed)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.weighting, self.sampler = class_weights, sampler
        self.split_file = Path(split_file) if split_file else None
        self.known_classes = list(classes) if classes else None
        self.train_transform: Transform = _not_connected
        self.eval_transform: Transform = _not_connected
        self.samples: Samples | None = None
        self.splits: dict[str, list[int]] = {}
        self.brought: frozenset[str] = frozenset()
        self.splits_from_file = False
        self._origin: dict[str, list[int]] = {}
        self.cached_activations: dict[str, Rows | FixedViews] = {}
        self.balanced_batches = False
        self.load_with: Callable[[Samples, Transform], Load] = uncached
        self._lengths: dict[int, int] = {}  # index in the pool -> length of the input

    @abstractmethod
    def dataset(self, split: str) -> Samples | None:
        """The samples of `train`, `val` or `test`; None if the data set does not have that split."""

    def connect(self, train_transform: Transform, eval_transform: Transform) -> None:
        """Sets the transforms, which depend on the model.

        Args:
            train_transform: a raw sample -> an input for training, with or without random changes.
            eval_transform: a raw sample -> an input for evaluation, without random changes; a `Preprocess`, or any
                function whose results torch can collate.
        """
        self.train_transform, self.eval_transform = train_transform, eval_transform
        self._lengths = {}
        self._adapt_loaders()

    def _adapt_loaders(self) -> None:
        if self.samples is not None:
            known = isinstance(self.eval_transform, Preprocess)
            adapt = self.eval_transform.adapt_loader if known else as_it_is
            self.samples.load = with_loaders(self._full_detail, adapt)

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """A list of inputs -> the batch that the network takes."""
        known = isinstance(self.eval_transform, Preprocess)
        return self.eval_transform.collate if known else default_collate

    def setup(self, stage: str | None = None) -> None:
        """Finds the samples, verifies the classes and assigns every sample to a split (once).

        Raises:
            UsageError: the data or the settings cannot be used.
        """
        if self.samples is not None:
            return
        found = {split: self.dataset(split) for split in SPLITS}
        samples, origin = pool({s: d for s, d in found.items() if d is not None}, self.known_classes)
        self.brought, self._origin = frozenset(origin), origin
        self._refuse_other_targets(samples)
        if self.split_file and self.split_file.exists():
            self.splits, self.splits_from_file = read_split_file(self.split_file, samples), True
        else:
            self._cut(samples)
        warn_of_leaks(samples, self.splits)
        self._warn_of_absent_classes(samples)
        self.samples, self._full_detail = samples, samples.load
        self._adapt_loaders()

    def _cut(self, samples: Samples) -> None:
        self.splits = self.plan.assign(samples, self._origin)
        if self.split_file:
            write_split_file(self.split_file, samples, self.splits)

    def hold_nothing_out(self) -> None:
        """Cuts the splits again without validation samples, as with `val_fraction=0`; no sample is read again."""
        assert self.samples is not None, "call setup() first"
        self.plan = replace(self.plan, val_fraction=0)
        self._cut(self.samples)

    def _refuse_other_targets(self, samples: Samples) -> None:
        """Raises a UsageError for settings that the targets do not allow."""
        if self.sampler == "balanced" and samples.multi_label:
            raise UsageError("data.sampler=balanced needs one class per sample; multi-label data has none: use shuffle")
        for key, given, none in (("sampler", self.sampler, "shuffle"), ("class_weights", self.weighting, "none")):
            if samples.numbers and given != none:
                raise UsageError(f"data.{key}={given} is for classes, and the data have numbers: use {none}")

    def _warn_of_absent_classes(self, samples: Samples) -> None:
        if samples.numbers:
            return
        for split in SPLITS:
            present = {c for index in self.splits[split] for c in samples.classes_of(index)}
            absent = [name for i, name in enumerate(samples.classes) if i not in present]
            if absent and present:
                log.warning("no sample of class %s in %s: its metrics do not measure it", listed(absent), split)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs; known after `setup`."""
        assert self.samples is not None, "call setup() first"
        return self.samples.classes

    @property
    def num_samples(self) -> dict[str, int]:
        """Samples in each split."""
        return {split: len(self.splits.get(split, [])) for split in SPLITS}

    def class_counts(self, split: str = "train") -> list[int]:
        """Samples of each class in a split, in the order of `classes`; for numbers, which every sample has, all."""
        assert self.samples is not None, "call setup() first"
        if self.samples.numbers:
            return [self.num_samples[split]] * len(self.classes)
        counts = Counter(c for index in self.splits.get(split, []) for c in self.samples.classes_of(index))
        return [counts[i] for i in range(len(self.classes))]

    def targets(self, split: str, positions: Sequence[int]) -> Tensor:
        """The labels at these positions of a split: `(n,)`, or for multi-label data and numbers `(n, num_classes)`."""
        assert self.samples is not None, "call setup() first"
        return torch.tensor([self.samples.targets[self.splits[split][position]] for position in positions])

    def class_weights(self) -> list[float] | None:
        """Class weights of the loss for `data.class_weights`, as in `weights_by_class`; None for `none`."""
        return None if self.weighting == "none" else self.weights_by_class(self.weighting)

    def weights_by_class(self, weighting: str) -> list[float]:
        """Weights in the order of `classes`.

        With one class per sample, their mean over the training samples is 1. With several labels they are the weights
        of the samples with a label, relative to the samples without it: for `balanced`, the number of samples without
        it, divided by the number with it.

        Args:
            weighting: `balanced` (inverse frequency) or `sqrt` (its square root).

        Raises:
            UsageError: a class has no training sample.
        """
        if absent := [name for name, n in zip(self.classes, self.class_counts(), strict=True) if n == 0]:
            raise UsageError(f"data.class_weights={weighting}: no training sample of class {listed(absent)}")
        counts = torch.tensor(self.class_counts(), dtype=torch.float64)
        if self.samples.multi_label:
            ratios = (self.num_samples["train"] - counts).clamp_min(1) / counts
            return (ratios if weighting == "balanced" else ratios.sqrt()).tolist()
        weights = (1 / counts) if weighting == "balanced" else (1 / counts).sqrt()
        return (weights * counts.sum() / (weights * counts).sum()).tolist()

    def inputs(self, split: str, positions: Sequence[int], seeds: Sequence[int] | None = None) -> Iterable[Any]:
        """Batches of the inputs at these positions of a split, in this order, not shared among processes.

        They are plain or, with a seed for each position, augmented.
        """
        assert self.samples is not None, "call setup() first"
        options = self._loading() | {"persistent_workers": False, "collate_fn": self.collate}
        if seeds is None:
            indices = [self.splits[split][position] for position in positions]
            return DataLoader(self._transformed(Inputs, indices, self.eval_transform), **options)
        dataset = self._transformed(AugmentedInputs, self.splits[split], self.train_transform)
        return DataLoader(dataset, sampler=list(zip(positions, seeds, strict=True)), **options)

    def in_two_parts(self, transform: Transform) -> tuple[Transform, Transform]:
        """The deterministic and the random part of one of the two transforms.

        A training transform that is not a `SplitTransform` counts as all random.
        """
        if isinstance(transform, SplitTransform):
            return transform.deterministic, transform.random
        return (transform, as_it_is) if transform is self.eval_transform else (as_it_is, transform)

    def _transformed(self, kind: type[Transformed], indices: list[int], transform: Transform) -> Transformed:
        deterministic, random = self.in_two_parts(transform)
        return kind(self.samples, indices, self.load_with(self.samples, deterministic), random)

    def loader(self, split: str, training: bool = False) -> CachedLoader:
        """Batches of one split: every sample once and plain; for `training` shuffled and augmented.

        Each process gets a share of the samples. Plain samples are in order or, if their inputs have different lengths,
        sorted by length.

        Yields:
            inputs `(batch, ...)`, and targets `(batch,)` or, for multi-label data, `(batch, num_classes)`.

        Raises:
            UsageError: the split is empty.
        """
        assert self.samples is not None, "call setup() first"
        indices = self.splits.get(split)
        if not indices:
            remedy = "" if split == "train" else f" or data.{split}_fraction > 0"
            raise UsageError(f"the {split} split is empty: give the data a {split} folder{remedy}")
        if not training:
            dataset = self._transformed(Transformed, indices, self.eval_transform)
            options = self._loading()
            # not as `sampler`: with trainer.overfit_batches Lightning replaces any that is not torch's sequential one
            batches = BatchSampler(self._share(split), options.pop("batch_size"), drop_last=False)
            return CachedLoader(dataset, origin=(self, split), batch_sampler=batches, **options)
        dataset, sampler = self._transformed(Augmented, indices, self.train_transform), self._training_order(indices)
        drop_last = self._ends_on_one(len(sampler))
        return EpochLoader(dataset, sampler, drop_last=drop_last, trainer=self.trainer, **self._loading())

    def _loading(self) -> dict[str, Any]:
        """The options of all loaders."""
        workers = self.num_workers
        if workers is None:
            workers = loader_workers(self.trainer.num_devices if self.trainer else 1)
        return {
            "batch_size": self.batch_size,
            "collate_fn": partial(collate_with_targets, self.collate),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": leave_signals_to_the_run,
        }

    @property
    def _processes(self) -> tuple[int, int]:
        """The rank of this process and the number of processes; (0, 1) without a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _share(self, split: str) -> list[int]:
        """The positions that this process evaluates: each sample in only one process, so metrics are exact.

        If inputs have different lengths, the longest come first.
        """
        rank, world_size = self._processes
        order = list(range(self.num_samples[split]))
        if self.trainer is None or getattr(self.trainer, f"limit_{split}_batches", 1.0) == 1.0:
            order = self.longest_first(split, order)  # a part of the split must not be its longest samples
        # DDP synchronises buffers in the first forward pass after training: every process needs a batch, so the few
        # samples of a split that has fewer samples than processes are repeated
        order *= -(-world_size // len(order))
        return order[rank::world_size]

    def longest_first(self, split: str, positions: list[int]) -> list[int]:
        """Positions in a split, sorted by the length of their inputs; unchanged if all inputs have the same size."""
        lengths = self.lengths([self.splits[split][position] for position in positions])
        if lengths is None:
            return positions
        return [positions[place] for place in sorted(range(len(positions)), key=lengths.__getitem__, reverse=True)]

    def order_to_compute(self, split: str, positions: list[int]) -> list[int]:
        """The same positions, sorted by length, but with a batch of all lengths first: it shows the size of a row."""
        ordered = self.longest_first(split, positions)
        if ordered is positions:
            return positions
        first = ordered[:: max(len(ordered) // self.batch_size, 1)][: self.batch_size]
        chosen = set(first)
        return first + [position for position in ordered if position not in chosen]

    def lengths(self, indices: list[int]) -> list[int] | None:
        """The length of the input of each of these samples of the pool; None if all inputs have the same size."""
        if not isinstance(self.eval_transform, Preprocess):
            return None
        missing = [index for index in indices if index not in self._lengths]
        found = self.eval_transform.lengths(map(self.samples.load, missing))
        if found is None:
            return None
        self._lengths.update(zip(missing, found, strict=True))
        return [self._lengths[index] for index in indices]

    def _training_order(self, indices: list[int]) -> EpochSampler:
        """The training samples of this process: every sample once, or the same number of draws, balanced by class."""
        rank, world_size = self._processes
        weights = self._balancing_weights(indices) if self.sampler == "balanced" else None
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # the same batches every epoch
        return EpochSampler(
            len(indices), self.seed, weights, rank, world_size, not overfit, self.lengths(indices), self.batch_size,
            partial(self._classes_to_balance, indices),
        )  # fmt: skip

    def _classes_to_balance(self, indices: list[int]) -> list[int] | None:
        """The class of each sample if batches are to be balanced by class."""
        return [self.samples.targets[index] for index in indices] if self.balanced_batches else None

    def _balancing_weights(self, indices: list[int]) -> list[float]:
        """The weight of each sample with which every class is drawn equally often."""
        assert self.samples is not None
        targets = [self.samples.targets[index] for index in indices]
        counts = Counter(targets)
        return [1 / counts[target] for target in targets]

    def _ends_on_one(self, share: int) -> bool:
        """Whether the last batch of a process's share has only one sample, which BatchNorm cannot normalise."""
        return share > 1 and share % self.batch_size == 1

    def train_dataloader(self) -> EpochLoader:
        """Shuffled, augmented batches of `train`, or of its cached activations if there are any."""
        loader = self.loader("train", training=True)
        loader.cached_rows = partial(self.cached_activations.get, "train")
        return loader

    def val_dataloader(self) -> DataLoader:
        """Plain batches of `val`, or of its cached activations if there are any."""
        loader = self.loader("val")
        loader.cached_rows = partial(self.cached_activations.get, "val")
        return loader

    def test_dataloader(self) -> DataLoader:
        """Plain batches of `test`."""
        return self.loader("test")


def uncached(samples: Samples, deterministic: Transform) -> Load:
    """Index -> sample after the deterministic part of a transform, computed at every call."""
    return Deterministic(samples.load, deterministic)


def loader_workers(processes: int) -> int:
    """Number of loader processes per training process, for `processes` training processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // processes
    return 0 if share <= 2 else min(share - 1, 8)


def leave_signals_to_the_run(worker: int) -> None:
    """Loader processes ignore signals: clusters and terminals signal every process, but the run must save first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def one_of(key: str, given: str, allowed: tuple[str, ...]) -> None:
    """Raises a UsageError with the allowed values if `given` is not one of them."""
    if given not in allowed:
        raise UsageError(f"{key}={given}: choose one of {', '.join(allowed)}")


def _not_connected(_: Any) -> Any:
    raise AssertionError("connect() the data module to a model's preprocess first")
