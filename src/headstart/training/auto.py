"""Settings that an expert would choose after a look at the data: `finetuning=auto`.

Nothing here changes a config: `training/settle.py` applies what is recommended.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.base import Backbone
from headstart.backbones.speed import seconds_per_sample
from headstart.callbacks.closed_form_head import last_layer
from headstart.cli.overrides import command_line_overrides
from headstart.data.module import DataModule
from headstart.errors import UsageError
from headstart.inputs.base import Setting

NAMED_PARTS = ("finetuning", "augmentation", "optimizer", "scheduler")
LOOKED_AT = 100  # training samples that are loaded to see what they are like
SAMPLES_TO_SEE, FEWEST_EPOCHS, MOST_EPOCHS = 16_000, 5, 30
MARGIN = 0.8  # share of the time limit that training may plan with: loading, start and test take time, too
UNBALANCED = 5  # times as many samples in the largest class as in the smallest
FEW = 10  # samples
TOO_FEW_MISTAKES = 5
"""Even if another model made none of them, McNemar's exact test could not tell the two apart at 5 %."""
USUAL_LR_RATIO, HIGHER_LR_RATIO = 0.1, 0.3
"""The default, and the ratio that suited MobileNetV2 better with enough samples per class (docs/accuracy.md)."""
ENOUGH_PER_CLASS = 25
GOOD_PROBE = 0.98
"""The linear probe must be at least this accurate to end the run: few mistakes of few samples say little."""


@dataclass(frozen=True)
class Facts:
    """What the recommendations depend on.

    Attributes:
        num_train: training samples.
        counts: training samples of each class; a sample with several labels counts in each of its classes.
        num_val: validation samples.
        fewest_val: validation samples of the class that has fewest.
        batch_norm: whether a pretrained backbone with BatchNorm learns.
    """

    num_train: int
    counts: Sequence[int]
    num_val: int
    fewest_val: int
    batch_norm: bool = False


@dataclass
class Recommendation:
    """Settings with their reasons, and sentences about what to expect of the data."""

    settings: list[Setting]
    notes: list[str] = field(default_factory=list)


def recommend(cfg: DictConfig, data: DataModule) -> Recommendation:
    """Settings that suit the data, except those that the command line gives.

    Args:
        cfg: of the run.
        data: set up as it says.
    """
    given = _given(cfg)
    # with several processes each would measure, and choose, something else
    limited = cfg.trainer.max_time and cfg.trainer.devices == 1
    limit = Timer(cfg.trainer.max_time).time_remaining() if limited else None
    model = OmegaConf.create({"model": OmegaConf.merge(cfg.model, {"weights": None})})
    with torch.random.fork_rng(devices=[]):
        settings = _about_the_head(cfg) if "finetuning.solve_head" not in given else []
        solves_head = not settings and cfg.finetuning.get("solve_head") and cfg.model.get("weights") is not None
        backbone = instantiate(model.model)
        facts = look(data, _learns_with_batch_norm(cfg, backbone))
        for setting in backbone.preprocess.suggest(_some_samples(data)):
            if setting.key not in given and _fits(model.model, setting):
                settings.append(setting)
                OmegaConf.update(model, setting.key, setting.value, force_add=True)

        def time_per_sample() -> float:
            return seconds_per_sample(instantiate(model.model), cfg.trainer.accelerator)

        settings += decide(facts, given, limit, time_per_sample, solves_head, cfg.monitor)
    notes = warnings(facts)
    if cfg.trainer.max_time and not limited:
        notes.append("trainer.max_time ends the run, but on several devices the number of epochs is not fitted to it")
    return Recommendation(settings, notes)


def _given(cfg: DictConfig) -> set[str]:
    """Keys that are settled already."""
    given = {override.lstrip("+~").split("=")[0] for override in command_line_overrides()}
    if cfg.data.sampler == "balanced" or cfg.data.class_weights != "none":  # one makes up for rare classes
        given.add("data.class_weights")
    if cfg.task.backbone_lr_ratio != USUAL_LR_RATIO:  # a file says so
        given.add("task.backbone_lr_ratio")
    return given


def _learns_with_batch_norm(cfg: DictConfig, backbone: Backbone) -> bool:
    learns = cfg.model.get("weights") is not None and get_class(cfg.finetuning._target_).learns_backbone
    return learns and any(isinstance(module, _BatchNorm) for module in backbone.modules())


def _some_samples(data: DataModule) -> list[object]:
    """Raw training samples, evenly chosen."""
    train = data.splits["train"]
    return [data.samples.load(index) for index in train[:: max(len(train) // LOOKED_AT, 1)]]


def _fits(model: DictConfig, setting: Setting) -> bool:
    """Whether the backbone takes a setting of the model; some networks have one image size alone."""
    part, _, key = setting.key.partition(".")
    if part != "model":
        return True
    try:
        return getattr(instantiate(model, **{key: setting.value}).preprocess, key) == setting.value
    except InstantiationException:  # a UsageError, in Hydra's words
        return False


def sentence_about(cfg: DictConfig) -> str:
    """What does not depend on the data, in a sentence."""
    parts = [cfg[part]._target_.rpartition(".")[2] for part in NAMED_PARTS if cfg[part]]
    if cfg.model.get("weights") is not None:
        rate = "a learning rate to be found" if cfg.lr_find else f"learning rate {cfg.optimizer.lr:g}"
        how = f"{rate}, the backbone at {cfg.task.backbone_lr_ratio:g} of it, BatchNorm {cfg.finetuning.batch_norm}"
    else:
        how = "everything learns from random weights"
    end = ", all epochs unless validation finds no mistake" if cfg.finetuning.get("patience") is None else ""
    averages = "" if "blend" in cfg.callbacks else "; no averages of weights are tried without callbacks=[blend,...]"
    return (
        f"finetuning=auto: {', '.join(parts)}, {how}{end}{averages}. The settings below follow from network and data; "
        "another strategy, such as finetuning=full, leaves all of them to you"
    )


def _about_the_head(cfg: DictConfig) -> list[Setting]:
    """Lets a head learn that has no closed form."""
    if not cfg.finetuning.get("solve_head"):
        return []
    if cfg.lr_find:
        return [Setting("finetuning.solve_head", False, "lr_find=true needs a head that learns")]
    if cfg.task.objective.get("focal_gamma"):
        return [Setting("finetuning.solve_head", False, "the focal loss has no closed-form head")]
    try:
        last_layer(instantiate(cfg.head)(in_features=1, num_outputs=1))
    except UsageError:
        return [Setting("finetuning.solve_head", False, "a head of several layers has no closed form: it learns")]
    return []


def look(data: DataModule, batch_norm: bool) -> Facts:
    """The facts of a data module that is set up.

    Args:
        data: the module.
        batch_norm: as in `Facts`.
    """
    num_val, val_counts = data.num_samples["val"], data.class_counts("val")
    return Facts(data.num_samples["train"], data.class_counts(), num_val, min(val_counts), batch_norm)


def decide(
    facts: Facts,
    given: Collection[str] = (),
    limit: float | None = None,
    time_per_sample: Callable[[], float] | None = None,
    solves_head: bool = True,
    monitor: str = "val/acc",
) -> list[Setting]:
    """Settings that follow from the facts, except those that are given.

    The number of epochs is after the BiT rule (Kolesnikov et al. 2020, https://arxiv.org/abs/1912.11370, section 3.3:
    500 steps for less than 20,000 samples), but with steps of 32 samples, not 512, and bounded below and above.

    Args:
        facts: of the data.
        given: keys that are settled already.
        limit: seconds that the run may take; None: no limit.
        time_per_sample: seconds that learning from one sample takes; asked where there is a limit.
        solves_head: whether the first epoch fits the head in closed form (the linear probe).
        monitor: the metric that chooses the best model.
    """
    found = []
    if "trainer.max_epochs" not in given:
        found.append(_epochs(facts, limit, time_per_sample, solves_head))
    per_class = facts.num_train / len(facts.counts)
    if facts.batch_norm and per_class >= ENOUGH_PER_CLASS and "task.backbone_lr_ratio" not in given:
        reason = f"the network has BatchNorm, and there are {per_class:.0f} samples per class: MobileNetV2 gained"
        found.append(Setting("task.backbone_lr_ratio", HIGHER_LR_RATIO, reason))
    most, fewest = max(facts.counts), min(facts.counts)
    is_unbalanced = most > UNBALANCED * fewest > 0
    if is_unbalanced and "data.class_weights" not in given:
        reason = f"the largest class has {most / fewest:.0f} times as many samples as the smallest"
        found.append(Setting("data.class_weights", "balanced", reason))
    if monitor != "val/acc" or sum(facts.counts) != facts.num_train:  # the rest is for one class per sample
        return found
    if is_unbalanced and "monitor" not in given:
        # by plain accuracy a model that never names a rare class can be the best
        found.append(Setting("monitor", "val/acc_macro", "every class counts alike, however rare"))
    elif solves_head and facts.num_val and "finetuning.head_goal" not in given:
        goal = round(max(1 - TOO_FEW_MISTAKES / facts.num_val, GOOD_PROBE), 6)
        reason = f"{facts.num_val} validation samples cannot show that another model is better: training stops here"
        found.append(Setting("finetuning.head_goal", goal, reason))
    return found


def _epochs(
    facts: Facts, limit: float | None, time_per_sample: Callable[[], float] | None, solves_head: bool
) -> Setting:
    epochs = min(max(math.ceil(SAMPLES_TO_SEE / facts.num_train), FEWEST_EPOCHS), MOST_EPOCHS)
    reason = f"{facts.num_train} training samples"
    if limit is not None:
        epoch = time_per_sample() * (facts.num_train + facts.num_val / 3)  # validation is a forward pass alone
        possible = max(int(MARGIN * limit / epoch), 1)
        if possible < epochs:
            epochs, reason = possible, f"as many as fit into trainer.max_time, at about {epoch:.0f} s each"
    if solves_head:
        epochs, reason = epochs + 1, f"1 for the linear probe, {epochs} after it: {reason}"
    return Setting("trainer.max_epochs", epochs, reason)


def warnings(facts: Facts) -> list[str]:
    """What to expect of such data, in sentences."""
    found = []
    if min(facts.counts) < FEW:
        found.append(f"the smallest class has {min(facts.counts)} training samples: the model will not know it well")
    if facts.num_val:
        error = 100 * math.sqrt(0.25 / facts.num_val)
        if error > 2:
            found.append(
                f"{facts.num_val} validation samples cannot tell models apart that differ by less than {error:.0f} "
                "points at an accuracy of one half (one standard error)"
            )
        if facts.fewest_val < FEW:
            found.append(
                f"the rarest class of validation has {facts.fewest_val} samples: its scores, and averages over "
                "classes, depend on single samples"
            )
    return found
