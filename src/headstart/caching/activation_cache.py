"""Nothing frozen is computed twice: a stage trains from what its frozen layers made of each picture once."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from headstart.backbones.parts import NoCleanCutError
from headstart.caching import fingerprint
from headstart.caching.activation_store import limit_in_bytes
from headstart.caching.chain import Chain
from headstart.caching.filling import NotCachedError
from headstart.data.module import DataModule
from headstart.data.sampling import FixedViews
from headstart.errors import UsageError
from headstart.finetuning.base import frozen_prefix, strategy_of

log = logging.getLogger(__name__)


class ActivationCache(Callback):
    """Runs the leading frozen layer groups of a stage once over train and val, and trains the rest from the results.

    They are kept on disk, one row a sample, under a fingerprint of all they depend on: the next stage, run or job of a
    sweep that needs them finds them. `val` is served so always, `train` when it is not augmented. Order, batches and
    randomness of a run stay what they are; the numbers differ by rounding, as BatchNorm is folded into convolutions.
    Wherever something does not work, the stage is trained from pictures and a notice says why.

    To be placed behind the strategy, whose stages it follows.

    Args:
        root: the folder of all stores, common with the pictures.
        max_gb: what all in it may take together, in gigabytes (10^9 bytes); what was used longest ago is removed.
        views: where training pictures are augmented, so many versions of each, the same in every run, take the place of
            new ones in every epoch, so that the frozen layers see each of these once; None: they are new, not cached.

    Attributes:
        passes: samples that this process has sent through a frozen prefix.
    """

    def __init__(self, root: str, max_gb: float = 20, views: int | None = None):
        if views is not None and views < 1:
            raise UsageError(f"cache.views={views}: give a number of versions of each picture, 1 or more, or null")
        self.root, self.limit, self.views = Path(root).expanduser(), limit_in_bytes(max_gb), views
        self.passes = 0
        self.stage: int | None = None
        self.digests: dict[str, list[str]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Serves the first stage, or the one a resumed run goes on with, in the middle of an epoch too."""
        self._follow(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Serves a stage that has just begun."""
        self._follow(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Whoever tests or predicts after training sees pictures."""
        self._end(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._end(trainer, pl_module)

    def _end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stage, self.digests = None, {}
        _back_to_pictures(trainer, task)

    def _follow(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Serves the strategy's stage if it is a new one."""
        strategy = strategy_of(trainer)
        if strategy.progress.stage == self.stage or trainer.should_stop:
            return
        self.stage = strategy.progress.stage
        _back_to_pictures(trainer, task)
        groups = settled_prefix(task)
        if not groups:
            return
        try:
            self._serve(trainer, task, groups, plain=strategy.plan[self.stage].closed_form)
        except (NotCachedError, NoCleanCutError, fingerprint.NoFingerprintError) as reason:
            log.info("the activations of the frozen layers are not cached: %s", reason)

    def _serve(self, trainer: pl.Trainer, task: pl.LightningModule, groups: int, plain: bool) -> None:
        """Has the rest of the network trained from rows; for `plain` no augmentation is wanted."""
        data = trainer.datamodule
        augmentable = isinstance(data, DataModule) and data.train_transform is not data.eval_transform
        augmented = augmentable and not plain
        mixed = not plain and task.mixing is not None
        splits = _fixed_splits(trainer, _what_is_random(augmented and not self.views, mixed))
        if not splits:
            return
        wanted, inputs = {split: self._digests_of(data, split) for split in splits}, data.inputs
        by_view = augmented and "train" in splits
        if by_view:
            wanted["train"] = fingerprint.of_views(data.train_transform, wanted["train"], self.views)
            inputs = partial(_inputs_of_views, data, wanted["train"], self.views)
        chain = Chain(trainer, inputs, wanted, self.root, self.limit)
        try:
            rest, rows = chain.rows(groups, _prefixes_to_come(trainer, groups, augmentable or task.mixing is not None))
        finally:
            self.passes += chain.passes
        if by_view:
            rows["train"] = FixedViews(rows["train"], self.views)
        task.forward_from(rest)
        data.stored.update(rows)

    def _digests_of(self, data: DataModule, split: str) -> list[str]:
        """Those of a split's samples; of pictures in memory they are computed, once a run."""
        if split not in self.digests:
            self.digests[split] = fingerprint.of_samples(data.samples, data.splits[split])
        return self.digests[split]


def settled_prefix(task: pl.LightningModule) -> int:
    """How many leading layer groups cannot change in this stage: nothing in them learns, and all is in eval mode.

    The second is more than the first: BatchNorm whose statistics follow the data may have no parameter that learns.
    """
    count = frozen_prefix(task.layer_groups)
    kept = {id(module) for module in task.kept_in_eval}
    for place, group in enumerate(task.layer_groups[:count]):
        if any(id(module) not in kept for module in group.modules.values()):
            return place
    return count


def _prefixes_to_come(trainer: pl.Trainer, groups: int, random: bool) -> list[int]:
    """The numbers of leading layer groups, fewer than `groups`, that stay frozen up to and in a later stage; ascending.

    Of stages that begin before the run ends, and learn from the same pictures: where these are `random`, a stage that
    computes the head sees others.
    """
    strategy, max_epochs = strategy_of(trainer), trainer.max_epochs or 0
    now, names = strategy.progress.stage, [group.name for group in trainer.lightning_module.layer_groups]
    found, still = set(), groups
    for stage, begins in list(zip(strategy.plan, strategy.first_epochs(), strict=True))[now + 1 :]:
        frozen = next((place for place, name in enumerate(names) if name in stage.trained), len(names))
        still = min(still, frozen)
        is_alike = not random or stage.closed_form == strategy.plan[now].closed_form
        if frozen == still and is_alike and begins < max_epochs:
            found.add(frozen)
    return sorted(found - {0, groups})


def _inputs_of_views(
    data: DataModule, digests: list[str], views: int, split: str, positions: Sequence[int]
) -> Iterable[Any]:
    """Batches of augmented training pictures, of which each place among the digests names one; of `val` plain ones."""
    if split != "train":
        return data.inputs(split, positions)
    seeds = [int(digests[place][:15], 16) for place in positions]
    return data.inputs(split, [place // views for place in positions], seeds)


def _what_is_random(augmented: bool, mixed: bool) -> str | None:
    """Why training pictures are others in every epoch, and how they would not be; None: they are the same."""
    if mixed:  # rows of frozen layers could be mixed instead, but a run with the cache would not be that without it
        return "mixing makes other samples in every epoch (not with mixing=null)"
    if augmented:
        return (
            "augmentation makes other pictures in every epoch "
            "(not with augmentation=none, or with cache.views=8 versions of each picture)"
        )
    return None


def _fixed_splits(trainer: pl.Trainer, random: str | None) -> list[str]:
    """The splits whose inputs are the same in every epoch; `random` says why those of `train` are not, if so.

    Raises:
        NotCachedError: no rows can be served in such a run.
    """
    data = trainer.datamodule
    if not isinstance(data, DataModule):
        raise NotCachedError("the data do not come from a data module of this project")
    if trainer.fast_dev_run or trainer.overfit_batches:
        raise NotCachedError("this run sees a few batches only")
    if trainer.num_nodes > 1:
        raise NotCachedError("the run is spread over several machines, which may have no folder in common")
    splits = []
    if random:
        log.info("train is not cached, for %s", random)
    elif _is_whole(trainer, "train"):
        splits.append("train")
    if data.num_samples["val"] and _is_whole(trainer, "val"):
        splits.append("val")
    return splits


def _is_whole(trainer: pl.Trainer, split: str) -> bool:
    """Whether the run sees all of a split; of a small part of it a cache would cost more than it spares."""
    limit = getattr(trainer, f"limit_{split}_batches")
    is_whole = isinstance(limit, float) and limit == 1.0  # 1 is one batch
    if limit and not is_whole:
        log.info("%s is not cached, for trainer.limit_%s_batches=%s leaves out some of it", split, split, limit)
    return is_whole


def _back_to_pictures(trainer: pl.Trainer, task: pl.LightningModule) -> None:
    task.forward_from(None)
    if isinstance(trainer.datamodule, DataModule):
        trainer.datamodule.stored.clear()
