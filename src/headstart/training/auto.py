"""What an expert would settle after a look at the data: `experiment=auto`."""

import logging
import math
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities import rank_zero_only
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.speed import seconds_a_picture
from headstart.callbacks.solved_head import last_layer
from headstart.cli.resolvers import command_line_overrides
from headstart.data.module import DataModule
from headstart.errors import UsageError
from headstart.files import replacing

log = logging.getLogger(__name__)
STRATEGY = ("finetuning", "augmentation", "optimizer", "scheduler")
LOOKED_AT = 100  # pictures whose size is looked at
SMALL_SIDE, SIZE_FOR_SMALL = 96, 128
SAMPLES_TO_SEE, FEWEST_EPOCHS, MOST_EPOCHS = 16_000, 5, 30
MARGIN = 0.8  # of the time limit: decoding, start and test take some, too
UNBALANCED = 5
FEW = 10
TOO_FEW_MISTAKES = 5
"""Even if another model made none of them, McNemar's exact test could not tell the two apart at 5 %."""
USUAL_LR_RATIO, HIGHER_LR_RATIO = 0.1, 0.3
"""The default, and what suited MobileNetV2 better from so many pictures of a class on (docs/accuracy.md)."""
ENOUGH_A_CLASS = 25
GOOD_HEAD = 0.98
"""What the head alone must have all the same: few mistakes of few samples say little, and little time is saved."""


@dataclass(frozen=True)
class Facts:
    """What the decisions rest on.

    Attributes:
        num_train: training samples.
        counts: of these, those of each class; one with several labels is in several.
        num_val: validation samples.
        fewest_val: of these, those of the class that has fewest.
        short_side: median length of the pictures' shorter side in pixels; None where samples are no pictures.
        image_size: side of the pictures for which the backbone's weights were made.
        batch_norm: whether a pretrained backbone with BatchNorm learns.
    """

    num_train: int
    counts: Sequence[int]
    num_val: int
    fewest_val: int
    short_side: float | None
    image_size: int
    batch_norm: bool = False


@dataclass(frozen=True)
class Decision:
    """A setting and the reason for it.

    Attributes:
        key: as on the command line.
        value: of it.
        reason: a sentence.
    """

    key: str
    value: Any
    reason: str


def settle(cfg: DictConfig, data: DataModule) -> None:
    """Fills in what the data speak for, except what the command line says, and tells each in a sentence.

    Args:
        cfg: of the run; is changed.
        data: set up as it says; is changed alike.
    """
    model = cfg.model.copy()
    model.weights = None
    given = {override.lstrip("+~").split("=")[0] for override in command_line_overrides()}
    if cfg.data.sampler == "balanced" or cfg.data.class_weights != "none":  # one makes up for rare classes
        given.add("data.class_weights")
    if cfg.task.backbone_lr_ratio != USUAL_LR_RATIO:  # some file says so
        given.add("task.backbone_lr_ratio")
    # of several processes each would measure, and settle, something else
    limited = cfg.trainer.max_time and cfg.trainer.devices == 1
    limit = Timer(cfg.trainer.max_time).time_remaining() if limited else None
    with torch.random.fork_rng(devices=[]):
        decisions = _about_the_head(cfg) if "finetuning.solve_head" not in given else []
        pretrained = _is_pretrained(cfg)
        computes_head = not decisions and cfg.finetuning.get("solve_head") and pretrained
        backbone = instantiate(model)
        learns = pretrained and get_class(cfg.finetuning._target_).learns_backbone
        batch_norm = learns and any(isinstance(module, _BatchNorm) for module in backbone.modules())
        facts = look(data, backbone.preprocess.image_size, batch_norm)

        def time_picture(size: int) -> float:
            model.image_size = size  # some networks take pictures of one size alone
            return seconds_a_picture(instantiate(model), size, cfg.trainer.accelerator)

        def takes(size: int) -> bool:
            try:
                return instantiate(model, image_size=size).preprocess.image_size == size
            except InstantiationException:  # a UsageError, in Hydra's words
                return False

        decisions += decide(facts, given, limit, time_picture, computes_head, cfg.monitor, takes)
    for decision in decisions:
        OmegaConf.update(cfg, decision.key, decision.value)
    told = [_strategy(cfg), *warnings(facts)]
    if cfg.trainer.max_time and not limited:
        told.append("trainer.max_time ends the run, but on several devices the number of epochs is not fitted to it")
    told += [f"{decision.key}={decision.value}: {decision.reason}" for decision in decisions]
    data.weighting = cfg.data.class_weights
    if rank_zero_only.rank == 0:
        for sentence in told:
            log.info(sentence)
        with replacing(Path(cfg.paths.run) / "auto.txt") as stream:
            stream.writelines(f"{sentence}\n" for sentence in told)


def _is_pretrained(cfg: DictConfig) -> bool:
    """Whether the run starts from pretrained weights."""
    return cfg.model.get("weights") is not None and not get_class(cfg.finetuning._target_).random_weights


def _strategy(cfg: DictConfig) -> str:
    """What does not depend on the data, in a sentence."""
    kinds = {part: cfg[part]._target_.rpartition(".")[2] for part in STRATEGY if cfg[part]}
    if _is_pretrained(cfg):
        rate = "a rate to be found" if cfg.lr_find else f"{cfg.optimizer.lr:g}"
        told = f"at {rate}, the backbone at {cfg.task.backbone_lr_ratio:g} of it, BatchNorm {cfg.finetuning.batch_norm}"
    else:
        told = "everything learns from random weights"
    end = ", all epochs unless validation finds no mistake" if cfg.finetuning.get("patience") is None else ""
    averages = "" if "blend" in cfg.callbacks else "; no averages of weights are tried without callbacks=[blend,...]"
    return (
        f"finetuning=auto: {', '.join(kinds.values())}, {told}{end}{averages}; what follows is settled by the network "
        "and the data; finetuning=full, or another strategy, leaves everything to you"
    )


def _about_the_head(cfg: DictConfig) -> list[Decision]:
    """Lets a head learn that cannot be computed."""
    if not cfg.finetuning.get("solve_head"):
        return []
    if cfg.lr_find:
        return [Decision("finetuning.solve_head", False, "of a computed head lr_find=true would find no rate")]
    if cfg.task.objective.get("focal_gamma"):
        return [Decision("finetuning.solve_head", False, "the focal loss has no one best head that could be computed")]
    try:
        last_layer(instantiate(cfg.head)(in_features=1, num_outputs=1))
    except UsageError:
        return [Decision("finetuning.solve_head", False, "a head of several layers is not computed but learns")]
    return []


def look(data: DataModule, image_size: int, batch_norm: bool) -> Facts:
    """The facts of a data module that is set up; reads some pictures.

    Args:
        data: the module.
        image_size: as in `Facts`, of the backbone, as the next one.
        batch_norm: likewise.
    """
    train = data.splits["train"]
    shapes = [data.samples.load(index).shape for index in train[:: max(len(train) // LOOKED_AT, 1)]]
    sides = [min(shape[-2:]) for shape in shapes if len(shape) == 3]
    short_side = statistics.median(sides) if sides else None
    num_val, val_counts = data.num_samples["val"], data.class_counts("val")
    return Facts(len(train), data.class_counts(), num_val, min(val_counts), short_side, image_size, batch_norm)


def decide(
    facts: Facts,
    given: Collection[str] = (),
    limit: float | None = None,
    time_picture: Callable[[int], float] | None = None,
    computes_head: bool = True,
    monitor: str = "val/acc",
    takes: Callable[[int], bool] = lambda size: True,
) -> list[Decision]:
    """The settings that the facts speak for, but for those that are given.

    The number of epochs is after the BiT rule (Kolesnikov et al. 2020, https://arxiv.org/abs/1912.11370, section 3.3:
    500 steps for less than 20,000 samples), but of 32 samples, not 512, and bounded below and above.

    Args:
        facts: of the data.
        given: keys that are settled already.
        limit: seconds that the run may take; None: as long as it likes.
        time_picture: image size -> seconds that learning from a picture takes; asked where there is a limit.
        computes_head: whether the first epoch computes the head.
        monitor: the metric that chooses.
        takes: image size -> whether the network takes such pictures.
    """
    size, decisions = facts.image_size, []
    is_small = facts.short_side is not None and facts.short_side <= SMALL_SIDE
    if is_small and size > SIZE_FOR_SMALL and "model.image_size" not in given and takes(SIZE_FOR_SMALL):
        size = SIZE_FOR_SMALL
        reason = f"half of the pictures are at most {facts.short_side:.0f} pixels high or wide: larger is only slower"
        decisions.append(Decision("model.image_size", size, reason))
    if "trainer.max_epochs" not in given:
        epochs = min(max(math.ceil(SAMPLES_TO_SEE / facts.num_train), FEWEST_EPOCHS), MOST_EPOCHS)
        reason = f"{facts.num_train} samples to learn from"
        if limit is not None:
            epoch = time_picture(size) * (facts.num_train + facts.num_val / 3)  # validation is a forward pass alone
            possible = max(int(MARGIN * limit / epoch), 1)
            if possible < epochs:
                epochs, reason = possible, f"so many fit into trainer.max_time, at about {epoch:.0f} s each"
        if computes_head:
            epochs, reason = epochs + 1, f"1 for the computed head, {epochs} after it: {reason}"
        decisions.append(Decision("trainer.max_epochs", epochs, reason))
    a_class = facts.num_train / len(facts.counts)
    if facts.batch_norm and a_class >= ENOUGH_A_CLASS and "task.backbone_lr_ratio" not in given:
        reason = (
            f"the network has BatchNorm, and there are {a_class:.0f} samples a class: MobileNetV2 gains from it then"
        )
        decisions.append(Decision("task.backbone_lr_ratio", HIGHER_LR_RATIO, reason))
    most, fewest = max(facts.counts), min(facts.counts)
    if "data.class_weights" not in given and most > UNBALANCED * fewest > 0:
        reason = f"the largest class has {most / fewest:.0f} times as many samples as the smallest"
        decisions.append(Decision("data.class_weights", "balanced", reason))
    # by plain accuracy a model that never names a rare class can be the best
    one_class_each = sum(facts.counts) == facts.num_train
    by_accuracy = monitor == "val/acc"
    if by_accuracy and "monitor" not in given and one_class_each and most > UNBALANCED * fewest > 0:
        decisions.append(Decision("monitor", "val/acc_macro", "every class counts alike, however rare"))
    elif by_accuracy and computes_head and one_class_each and facts.num_val and "finetuning.head_goal" not in given:
        goal = round(max(1 - TOO_FEW_MISTAKES / facts.num_val, GOOD_HEAD), 6)
        reason = f"what beats a head as good on {facts.num_val} samples could not be told from it: the run ends there"
        decisions.append(Decision("finetuning.head_goal", goal, reason))
    return decisions


def warnings(facts: Facts) -> list[str]:
    """What to expect of such data, in sentences."""
    told = []
    if min(facts.counts) < FEW:
        told.append(
            f"the smallest class has {min(facts.counts)} training samples: what it looks like elsewhere is a guess"
        )
    if facts.num_val:
        error = 100 * math.sqrt(0.25 / facts.num_val)
        if error > 2:
            told.append(
                f"{facts.num_val} validation samples cannot tell models apart that differ by less than {error:.0f} "
                "points at an accuracy of one half (one standard error)"
            )
        if facts.fewest_val < FEW:
            told.append(
                f"the rarest class of validation has {facts.fewest_val}: what is said of it, and averages over "
                "classes, hang on single pictures"
            )
    return told
