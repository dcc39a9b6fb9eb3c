"""Runs the frozen layers once per sample: a stage is trained from their cached outputs (activations)."""

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
from headstart.caching.tested import rows_to_test
from headstart.data.module import DataModule
from headstart.data.sampling import CachedLoader, FixedViews
from headstart.errors import UsageError
from headstart.finetuning.base import frozen_prefix, strategy_of

log = logging.getLogger(__name__)


class ActivationCache(Callback):
    """Runs the leading frozen layer groups of a stage once over train and val, and trains the rest from the results.

    The results are kept on disk, one row per sample, under a fingerprint of everything they depend on. The next stage,
    run or sweep job that needs them reads them; so does the test, if these layers are frozen in the tested model. `val`
    is always cached, `train` if it is not augmented. The order, the batches and the random numbers of a run do not
    change; its numbers differ by rounding, because BatchNorm is folded into convolutions. If the cache cannot serve a
    stage, the stage is trained from its inputs, and the log says why.

    Place it behind the strategy: it follows the strategy's stages.

    Args:
        root: the folder of all stores, shared with the picture cache.
        max_gb: size limit of this folder in gigabytes (10^9 bytes); stores that were used longest ago are removed.
        views: number of fixed augmented versions of each training sample, the same in every run. They replace the new
            versions of every epoch, so the frozen layers run once per version. None: augmented samples are not cached.

    Attributes:
        passes: samples that this process has sent through frozen layers.
        decided: stage -> whether it was trained from rows. Checkpoints hold it, so that a resumed run does the same:
            with and without rows, the numbers differ by rounding.
    """

    def __init__(self, root: str, max_gb: float = 20, views: int | None = None):
        if views is not None and views < 1:
            raise UsageError(f"cache.views={views}: give a number of versions of each sample, 1 or more, or null")
        self.root, self.limit, self.views = Path(root).expanduser(), limit_in_bytes(max_gb), views
        self.passes = 0
        self.stage: int | None = None
        self.digests: dict[str, list[str]] = {}
        self.decided: dict[int, bool] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Serves the first stage, or the stage of a resumed run, also in the middle of an epoch."""
        self._follow(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Serves a stage that has just begun."""
        self._follow(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches back to inputs, for tests and predictions after training."""
        self._end(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Serves the test of a model with frozen layers; by now it has the weights of its checkpoint."""
        loader = trainer.test_dataloaders
        if not isinstance(loader, CachedLoader) or loader.origin is None or not _tests_plain_samples(trainer):
            return
        data, split = loader.origin
        if found := rows_to_test(trainer, data, split, self.root, self.limit):
            rest, rows = found
            pl_module.forward_from(rest)
            loader.cached_rows = lambda: rows

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches back to inputs."""
        pl_module.forward_from(None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Switches back to inputs."""
        self._end(trainer, pl_module)

    def _end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.stage, self.digests = None, {}
        _back_to_inputs(trainer, task)

    def _follow(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Serves the strategy's stage if it is a new one."""
        strategy = strategy_of(trainer)
        if strategy.progress.stage == self.stage or trainer.should_stop:
            return
        self.stage = strategy.progress.stage
        _back_to_inputs(trainer, task)
        groups, before = settled_prefix(task), self.decided.get(self.stage)
        if not groups or not task.takes_activations:
            return
        if before is False:
            log.debug("the activations of the frozen layers are not cached, as before the interruption")
            return
        try:
            self._serve(trainer, task, groups, strategy.plan[self.stage].closed_form, must_pay=before is None)
            self.decided[self.stage] = True
        except (NotCachedError, NoCleanCutError, fingerprint.NoFingerprintError) as reason:
            log.info("the activations of the frozen layers are not cached: %s", reason)
            if before:
                log.warning("before the interruption they were: the results may differ by rounding")
            self.decided[self.stage] = False

    def state_dict(self) -> dict[str, Any]:
        """The decisions, as plain data."""
        return {"decided": dict(self.decided)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the decisions of a checkpoint."""
        self.decided = dict(state_dict["decided"])

    def _serve(self, trainer: pl.Trainer, task: pl.LightningModule, groups: int, plain: bool, must_pay: bool) -> None:
        """Lets the rest of the network be trained from rows.

        Args:
            trainer, task: of the run.
            groups: number of leading layer groups that cannot change.
            plain: whether the stage does not augment.
            must_pay: whether rows are refused that are clearly faster to compute than to read back.
        """
        data = trainer.datamodule
        augmentable = isinstance(data, DataModule) and data.train_transform is not data.eval_transform
        augmented = augmentable and not plain
        mixed = not plain and task.mixing is not None
        splits = _splits_to_cache(trainer, _why_train_changes(augmented and not self.views, mixed))
        if not splits:
            return
        wanted, inputs = {split: self._digests_of(data, split) for split in splits}, data.inputs
        by_view = augmented and "train" in splits
        if by_view:
            wanted["train"] = fingerprint.of_views(data.train_transform, wanted["train"], self.views)
            inputs = partial(_inputs_of_views, data, wanted["train"], self.views)
        order = {} if by_view else {"sort": data.order_to_compute}  # a view is no position of the split
        chain = Chain(trainer, inputs, wanted, self.root, self.limit, must_pay, **order)
        try:
            rest, rows = chain.rows(groups, _later_prefixes(trainer, groups, augmentable or task.mixing is not None))
        finally:
            self.passes += chain.passes
        if by_view:
            rows["train"] = FixedViews(rows["train"], self.views)
        task.forward_from(rest)
        data.cached_activations.update(rows)

    def _digests_of(self, data: DataModule, split: str) -> list[str]:
        """The digests of a split's samples; for samples in memory they are computed once per run."""
        if split not in self.digests:
            self.digests[split] = fingerprint.of_samples(data.samples, data.splits[split])
        return self.digests[split]


def settled_prefix(task: pl.LightningModule) -> int:
    """The number of leading layer groups that cannot change in this stage: all frozen, and all in eval mode.

    Frozen parameters are not enough: BatchNorm in train mode still updates its statistics.
    """
    count = frozen_prefix(task.layer_groups)
    kept = {id(module) for module in task.kept_in_eval}
    for place, group in enumerate(task.layer_groups[:count]):
        if any(id(module) not in kept for module in group.modules.values()):
            return place
    return count


def _later_prefixes(trainer: pl.Trainer, groups: int, random: bool) -> list[int]:
    """Lengths (in layer groups, below `groups`, ascending) of the prefixes that stay frozen until a later stage.

    Stages count that begin before the run ends and use the same inputs. If these are `random` (augmented or mixed),
    a stage with a closed-form head uses other inputs than the other stages.
    """
    strategy, max_epochs = strategy_of(trainer), trainer.max_epochs or 0
    now, names = strategy.progress.stage, [group.name for group in trainer.lightning_module.layer_groups]
    found, still = set(), groups
    for stage, begins in list(zip(strategy.plan, strategy.first_epochs(), strict=True))[now + 1 :]:
        frozen = stage.frozen_prefix(names)
        still = min(still, frozen)
        is_alike = not random or stage.closed_form == strategy.plan[now].closed_form
        if frozen == still and is_alike and begins < max_epochs:
            found.add(frozen)
    return sorted(found - {0, groups})


def _inputs_of_views(
    data: DataModule, digests: list[str], views: int, split: str, positions: Sequence[int]
) -> Iterable[Any]:
    """Batches of augmented training inputs, `views` per sample, seeded by their digests; plain ones of `val`."""
    if split != "train":
        return data.inputs(split, positions)
    seeds = [int(digests[place][:15], 16) for place in positions]
    return data.inputs(split, [place // views for place in positions], seeds)


def _why_train_changes(augmented: bool, mixed: bool) -> str | None:
    """Why training inputs differ from epoch to epoch, and which setting avoids that; None: they do not differ."""
    if mixed:  # rows of frozen layers could be mixed instead, but then the cache would change the results of a run
        return "mixing makes new samples in every epoch (to cache them, give mixing=null)"
    if augmented:
        return (
            "augmentation makes new samples in every epoch "
            "(to cache them, give augmentation=none, or cache.views=8 for 8 versions of each sample)"
        )
    return None


def _splits_to_cache(trainer: pl.Trainer, train_changes: str | None) -> list[str]:
    """The splits whose inputs are the same in every epoch; `train_changes` says why `train` is not one of them.

    Raises:
        NotCachedError: no rows can be served in such a run.
    """
    data = trainer.datamodule
    if not isinstance(data, DataModule):
        raise NotCachedError("the data module is not one of Headstart")
    if trainer.fast_dev_run or trainer.overfit_batches:
        raise NotCachedError("this run sees a few batches only")
    if trainer.num_nodes > 1:
        raise NotCachedError("the run uses several machines, which may not share a folder")
    splits = []
    if train_changes:
        log.info("train is not cached: %s", train_changes)
    elif _is_whole(trainer, "train"):
        splits.append("train")
    if data.num_samples["val"] and _is_whole(trainer, "val"):
        splits.append("val")
    return splits


def _is_whole(trainer: pl.Trainer, split: str) -> bool:
    """Whether the run uses the whole split; for a small part, a cache would cost more time than it saves."""
    limit = getattr(trainer, f"limit_{split}_batches")
    is_whole = isinstance(limit, float) and limit == 1.0  # 1 is one batch
    if limit and not is_whole:
        log.debug("%s is not cached: trainer.limit_%s_batches=%s leaves out some samples", split, split, limit)
    return is_whole


def _tests_plain_samples(trainer: pl.Trainer) -> bool:
    """Whether a test may read rows: of all samples, not mirrored or otherwise changed, on one machine."""
    task = trainer.lightning_module
    is_whole = trainer.limit_test_batches == 1.0 and not trainer.fast_dev_run and trainer.num_nodes == 1
    return is_whole and task.takes_activations and getattr(task, "test_time", None) is None


def _back_to_inputs(trainer: pl.Trainer, task: pl.LightningModule) -> None:
    task.forward_from(None)
    if isinstance(trainer.datamodule, DataModule):
        trainer.datamodule.cached_activations.clear()
