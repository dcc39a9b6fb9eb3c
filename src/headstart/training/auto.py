"""Recommends settings that suit the data (`finetuning=auto`).

Nothing here changes a config: `training/settle.py` applies the recommendation.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.backbones.base import Backbone
from headstart.backbones.low_rank import has_attention
from headstart.backbones.speed import seconds_per_sample
from headstart.callbacks.closed_form_head import FEWEST_WITH_PAIRS, last_layer
from headstart.cli.conf_files import typed_name
from headstart.cli.overrides import command_line_overrides
from headstart.cli.quick_check import has_one_process
from headstart.data.module import DataModule
from headstart.data.samples import loaders
from headstart.errors import UsageError
from headstart.inputs.base import Length, Setting
from headstart.runs.hyperparameters import key_of

NAMED_PARTS = ("finetuning", "augmentation", "optimizer", "scheduler")
SAMPLES_LOADED = 100  # training samples that are loaded to choose the preprocessing
SAMPLES_TO_SEE, FEWEST_EPOCHS, MOST_EPOCHS = 16_000, 5, 30
MARGIN = 0.8  # share of the time limit for training; loading, start and test also take time
UNBALANCED = 5  # samples of the largest class divided by samples of the smallest
FEW = 10  # samples
TOO_FEW_MISTAKES = 5
"""With at most 5 mistakes, McNemar's exact test at 5 % cannot show that another model is better."""
USUAL_LR_RATIO, HIGHER_LR_RATIO = 0.1, 0.3
"""The default, and the ratio with which MobileNetV2 was more accurate, given enough samples per class
(docs/accuracy.md)."""
TRANSFORMER_LR_DECAY = 0.75
"""Each block of a vision transformer learns more slowly than the block above it (docs/timm.md)."""
SMALL_VALIDATION = 50
"""With fewer validation samples, a run that trains on them, too, was more accurate (docs/accuracy.md)."""
TOO_FEW_TO_TUNE = 5
"""With fewer training samples per class and no validation, the linear probe was more accurate (docs/accuracy.md)."""
ENOUGH_PER_CLASS = 25
GOOD_PROBE = 0.98
"""The linear probe ends the run only if it is at least this accurate: on few samples, few mistakes prove little."""


@dataclass(frozen=True)
class Facts:
    """Facts about data and network on which the recommendations depend.

    Attributes:
        num_train: training samples.
        counts: training samples of each class; a sample with several labels counts in each of its classes. Empty if the
            data have numbers instead of classes.
        num_val: validation samples.
        fewest_val: validation samples of the rarest class; for numbers all.
        batch_norm: whether a pretrained backbone with BatchNorm is trained.
        vision_transformer: whether a pretrained backbone of attention layers for inputs of one size is trained.
        run_length: of this kind of input; None: the default.
        contrastive_up_to: training samples up to which the fine-tuning is contrastive; 0: never.
        several_labels: whether a sample may have any number of labels.
    """

    num_train: int
    counts: Sequence[int]
    num_val: int
    fewest_val: int
    batch_norm: bool = False
    vision_transformer: bool = False
    run_length: Length | None = None
    several_labels: bool = False
    contrastive_up_to: int = 0


@dataclass
class Recommendation:
    """Settings with their reasons, warnings about the data, and whether the network has BatchNorm (`Facts`)."""

    settings: list[Setting]
    notes: list[str] = field(default_factory=list)
    batch_norm: bool = True


def recommend(cfg: DictConfig, data: DataModule) -> Recommendation:
    """Settings that suit the data, without those that are given on the command line.

    Args:
        cfg: config of the run.
        data: built from that config and set up.
    """
    given = _given(cfg)
    # several processes would each measure, and might choose different settings
    limited = cfg.trainer.max_time and has_one_process(cfg)
    limit = Timer(cfg.trainer.max_time).time_remaining() if limited else None
    model = OmegaConf.create({"model": OmegaConf.merge(cfg.model, {"weights": None})})
    with torch.random.fork_rng(devices=[]):
        settings = _head_settings(cfg) if "finetuning.solve_head" not in given else []
        closed_form_head = not settings and cfg.finetuning.get("solve_head") and cfg.model.get("weights") is not None
        backbone = instantiate(model.model)
        facts = facts_of(data, backbone.preprocess.run_length)
        if cfg.model.get("weights") is not None and get_class(cfg.finetuning._target_).trains_backbone:
            facts = replace(
                facts, batch_norm=has_batch_norm(backbone), vision_transformer=is_vision_transformer(backbone)
            )
        if _pairs_possible(cfg, data):
            facts = replace(facts, contrastive_up_to=backbone.preprocess.contrastive_up_to)
        backbone.preprocess.check_kind(loaders(data.samples.load))
        suggested = [*backbone.preprocess.suggest(_some_samples(data)), *backbone.suggest(facts.num_train)]
        for setting in suggested:
            if setting.key not in given and _fits(model.model, setting):
                settings.append(setting)
                OmegaConf.update(model, setting.key, setting.value, force_add=True)

        def time_per_sample() -> float:
            return seconds_per_sample(instantiate(model.model), cfg.trainer.accelerator)

        settings += decide(facts, given, limit, time_per_sample, closed_form_head, cfg.monitor)
    chosen = {setting.key: setting.value for setting in settings}
    pairs = chosen.get("finetuning.contrastive", cfg.finetuning.get("contrastive"))
    only_probe = chosen.get("trainer.max_epochs", cfg.trainer.max_epochs) == 1
    if pairs or only_probe or not closed_form_head or not facts.counts:  # then softening would have no effect
        settings = [setting for setting in settings if setting.key != "finetuning.soften_head"]
    notes = warnings(facts)
    if cfg.trainer.max_time and not limited:
        notes.append("trainer.max_time ends the run, but the number of epochs is fitted to it on one device only")
    return Recommendation(settings, notes, facts.batch_norm)


def hold_nothing_out(cfg: DictConfig, data: DataModule) -> Setting | None:
    """To train on the samples that were held out for validation, if they are too few to choose by; None if not.

    Args:
        cfg: config of the run.
        data: built from that config and set up.
    """
    number = data.num_samples["val"]
    needs_validation = (
        _given(cfg) & {"data.val_fraction", "monitor", "finetuning.solve_head"}
        or _head_settings(cfg)  # such a head is trained until validation stops improving
        or "ReduceLROnPlateau" in str((cfg.scheduler or {}).get("_target_"))
        or (HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN)  # jobs are compared by it
    )
    is_cut = "val" not in data.brought and not data.splits_from_file and cfg.data.num_folds is None
    if needs_validation or not is_cut or not 0 < number < SMALL_VALIDATION:
        return None
    reason = (
        f"{number} validation samples are too few to choose by: they are trained on, too, all epochs are run, and the "
        "score of the closed-form head on held-out samples is the estimate before the test"
    )
    return Setting("data.val_fraction", 0, reason)


def _given(cfg: DictConfig) -> set[str]:
    """Keys of settings that are not to be changed."""
    given = set(map(key_of, command_line_overrides()))
    if cfg.data.sampler == "balanced" or cfg.data.class_weights != "none":  # one of the two is enough for rare classes
        given.add("data.class_weights")
    for key, usual in (("backbone_lr_ratio", USUAL_LR_RATIO), ("layer_lr_decay", 1.0)):
        if cfg.task[key] != usual:  # a file of conf/ sets it
            given.add(f"task.{key}")
    return given


def has_batch_norm(backbone: Backbone) -> bool:
    """Whether a layer of the backbone is a BatchNorm."""
    return any(isinstance(module, _BatchNorm) for module in backbone.modules())


def is_vision_transformer(backbone: Backbone) -> bool:
    """Whether the backbone has attention, no BatchNorm, and inputs of one size; texts have any length."""
    return has_attention(backbone) and not has_batch_norm(backbone) and not backbone.variable_length


def _pairs_possible(cfg: DictConfig, data: DataModule) -> bool:
    """Whether a contrastive stage would accept the other settings."""
    return not cfg.mixing and "ema" not in cfg.callbacks and data.batch_size >= FEWEST_WITH_PAIRS


def _some_samples(data: DataModule) -> list[object]:
    """About `SAMPLES_LOADED` raw training samples, at even distances in the split."""
    train = data.splits["train"]
    return [data.samples.load(index) for index in train[:: max(len(train) // SAMPLES_LOADED, 1)]]


def _fits(model: DictConfig, setting: Setting) -> bool:
    """Whether the backbone accepts a setting; some networks have only one image size."""
    part, _, key = setting.key.partition(".")
    if part != "model":
        return True
    try:
        return getattr(instantiate(model, **{key: setting.value}).preprocess, key) == setting.value
    except InstantiationException:  # a UsageError, wrapped by Hydra
        return False


def recipe_summary(cfg: DictConfig, batch_norm: bool = True) -> str:
    """The settings that do not depend on the data, in one sentence; `batch_norm`: as in `Facts`."""
    parts = [f"{part}={typed_name(part, cfg[part]._target_, {})}" for part in NAMED_PARTS if cfg[part]]
    if cfg.model.get("weights") is not None:
        found = "learning rate by a range test" if cfg.lr_find else f"learning rate {cfg.optimizer.lr:g}"
        backbone = f"{cfg.task.backbone_lr_ratio:g} times that for the backbone"
        how = f"{found}, {backbone}" + (f", BatchNorm {cfg.finetuning.batch_norm}" if batch_norm else "")
    else:
        how = "everything is trained from random weights"
    end = ", all epochs are run unless validation finds no mistake" if cfg.finetuning.get("patience") is None else ""
    averages = "" if "blend" in cfg.callbacks else "; callbacks=[blend,...] would also try averages of weights"
    return (
        f"finetuning=auto: {', '.join(parts)}, {how}{end}{averages}. The settings below are chosen by network and "
        "data; to choose all settings yourself, name another strategy, such as finetuning=full"
    )


def _head_settings(cfg: DictConfig) -> list[Setting]:
    """Trains the head where there is no closed-form head."""
    if not cfg.finetuning.get("solve_head"):
        return []
    if cfg.lr_find:
        return [Setting("finetuning.solve_head", False, "lr_find=true needs a head that is trained step by step")]
    if cfg.task.objective.get("focal_gamma"):
        return [Setting("finetuning.solve_head", False, "the focal loss has no closed-form head")]
    try:
        last_layer(instantiate(cfg.head)(in_features=1, num_outputs=1))
    except UsageError:
        return [Setting("finetuning.solve_head", False, "a head of several layers has no closed form: it is trained")]
    return []


def facts_of(data: DataModule, run_length: Length | None = None) -> Facts:
    """The facts about the data that the recommendations need.

    Args:
        data: set up.
        run_length: as in `Facts`.
    """
    num_val, val_counts = data.num_samples["val"], data.class_counts("val")
    counts = [] if data.samples.numbers else data.class_counts()
    several = data.samples.multi_label
    return Facts(
        data.num_samples["train"], counts, num_val, min(val_counts), run_length=run_length, several_labels=several
    )


def decide(
    facts: Facts,
    given: Collection[str] = (),
    limit: float | None = None,
    time_per_sample: Callable[[], float] | None = None,
    closed_form_head: bool = True,
    monitor: str = "val/acc",
) -> list[Setting]:
    """Settings that follow from the facts, without those in `given`.

    The number of epochs follows the BiT rule (Kolesnikov et al. 2020, https://arxiv.org/abs/1912.11370, section 3.3:
    500 steps for less than 20,000 samples), but with steps of 32 samples instead of 512, and between 5 and 30 epochs.
    A kind of input may have another length (`Preprocess.run_length`).

    Args:
        facts: about data and network.
        given: keys of settings that are not to be changed.
        limit: seconds that the run may take; None: no limit.
        time_per_sample: measures the seconds of a training step per sample; called only if there is a limit.
        closed_form_head: whether the first epoch computes the closed-form head (the linear probe).
        monitor: the metric that chooses the best model.
    """
    found = []
    if facts.counts and 0 < facts.num_val < SMALL_VALIDATION and "finetuning.goal" not in given:
        found.append(
            Setting("finetuning.goal", None, f"no mistake on {facts.num_val} validation samples proves little")
        )
    per_class = facts.num_train / max(len(facts.counts), 1)
    unit = "samples per class" if facts.counts else "samples"
    only_probe = closed_form_head and not facts.num_val and per_class < TOO_FEW_TO_TUNE
    contrastive = closed_form_head and not only_probe and _is_contrastive(facts, given)
    if contrastive:
        reason = f"{facts.num_train} training samples are few, but make many pairs of samples to learn from"
        found.append(Setting("finetuning.contrastive", True, reason))
    if "trainer.max_epochs" not in given:
        if only_probe:
            reason = f"only the linear probe: {per_class:.1f} {unit} are too few to fine-tune unchecked"
            found.append(Setting("trainer.max_epochs", 1, reason))
        else:
            found.append(_epochs(facts, limit, time_per_sample, closed_form_head, contrastive))
    if facts.batch_norm and per_class >= ENOUGH_PER_CLASS and "task.backbone_lr_ratio" not in given:
        reason = f"the network has BatchNorm, and there are {per_class:.0f} {unit}"
        found.append(Setting("task.backbone_lr_ratio", HIGHER_LR_RATIO, reason))
    if facts.vision_transformer and "task.layer_lr_decay" not in given:
        reason = "the network is a transformer, whose lower layers should change little"
        found.append(Setting("task.layer_lr_decay", TRANSFORMER_LR_DECAY, reason))
    if not facts.counts:  # the settings below are for classes
        return found
    most, fewest = max(facts.counts), min(facts.counts)
    if facts.several_labels:  # thresholds for each label do what class weights would
        if facts.num_val and "monitor" not in given:
            found.append(Setting("monitor", "val/map", "accuracy over all labels hides the rare ones"))
        return found
    is_unbalanced = most > UNBALANCED * fewest > 0
    if is_unbalanced and "data.class_weights" not in given:
        reason = f"the largest class has {most / fewest:.0f} times as many samples as the smallest"
        found.append(Setting("data.class_weights", "balanced", reason))
    if monitor != "val/acc":
        return found
    if is_unbalanced and "monitor" not in given:
        # by plain accuracy, a model that never predicts a rare class can be the best
        found.append(Setting("monitor", "val/acc_macro", "rare classes count as much as frequent ones"))
    elif closed_form_head and facts.num_val and "finetuning.head_goal" not in given:
        goal = round(max(1 - TOO_FEW_MISTAKES / facts.num_val, GOOD_PROBE), 6)
        reason = (
            f"if the linear probe reaches this {monitor}, the training ends: {facts.num_val} validation samples cannot "
            "show that another model is better"
        )
        found.append(Setting("finetuning.head_goal", goal, reason))
    return found


def _is_contrastive(facts: Facts, given: Collection[str]) -> bool:
    """Whether the fine-tuning is to be contrastive."""
    asked = {"finetuning.contrastive", "finetuning.soften_head"} & set(given)
    one_class = bool(facts.counts) and not facts.several_labels
    return one_class and not asked and facts.num_train <= facts.contrastive_up_to


def _epochs(
    facts: Facts,
    limit: float | None,
    time_per_sample: Callable[[], float] | None,
    closed_form_head: bool,
    contrastive: bool,
) -> Setting:
    length = facts.run_length or Length(SAMPLES_TO_SEE, FEWEST_EPOCHS, MOST_EPOCHS)
    epochs = min(max(math.ceil(length.samples / facts.num_train), length.fewest), length.most)
    reason = f"{facts.num_train} training samples"
    if limit is not None:
        only_forward = facts.num_val + (facts.num_train if contrastive else 0)  # to validate, to fit the head again
        epoch = time_per_sample() * (facts.num_train + only_forward / 3)
        possible = max(int(MARGIN * limit / epoch), 1)
        if possible < epochs:
            epochs, reason = possible, f"as many as fit into trainer.max_time, at about {epoch:.0f} s each"
    if closed_form_head:
        epochs, reason = epochs + 1, f"1 for the linear probe, {epochs} after it: {reason}"
    return Setting("trainer.max_epochs", epochs, reason)


def warnings(facts: Facts) -> list[str]:
    """Sentences about small splits and rare classes."""
    if not facts.counts:
        return []
    found = []
    if min(facts.counts) < FEW:
        found.append(f"the smallest class has {min(facts.counts)} training samples: expect many mistakes on it")
    if facts.num_val:
        error = 100 * math.sqrt(0.25 / facts.num_val)
        if error > 2:
            found.append(
                f"with {facts.num_val} validation samples, chance alone moves a score by about {error:.0f} points "
                "(one standard error, at an accuracy of 0.5)"
            )
        if facts.fewest_val < FEW:
            found.append(
                f"the rarest class of validation has {facts.fewest_val} samples: one sample more or less "
                "right changes its scores, and averages over classes, a lot"
            )
    return found
