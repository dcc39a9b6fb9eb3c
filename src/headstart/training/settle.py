"""Completes the config of a run, once and in this order: machine, data, settings by the data, learning rate.

The result is read-only; the run uses it and writes it to its folder. No other module changes the config of a run.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from headstart.backbones.speed import choose_precision, faster_precision
from headstart.cli.early_checks import duration
from headstart.cli.quick_check import has_one_process
from headstart.data.module import DataModule
from headstart.errors import UsageError
from headstart.files import relative_to_cwd, replacing
from headstart.inputs.base import Setting
from headstart.optim.learning_rates import HORIZONS, plan_in_words
from headstart.runs.directory import Run
from headstart.tasks import checkpoint
from headstart.tasks.objective import Objective
from headstart.training import auto
from headstart.training.batch_size import USUAL, choose_batch_size
from headstart.training.build import build_data, check_trainer
from headstart.training.lr_find import find_learning_rate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settled:
    """The complete config of a run, its data and where it starts.

    Attributes:
        cfg: the config, read-only.
        data: set up.
        checkpoint: the file from which a resumed run continues; None for a run that starts from the beginning.
    """

    cfg: DictConfig
    data: DataModule
    checkpoint: Path | None


def settle(given: DictConfig) -> Settled:
    """Fills in everything that the given config leaves open; `given` itself is not changed."""
    cfg = given.copy()
    # cheap checks first: a missing device is refused before anything is scanned or downloaded
    resume_from = checkpoint_to_resume(cfg)
    if resume_from:
        refuse_other_length(cfg, resume_from)
    refuse_other_task(cfg)
    settle_machine(cfg)
    check_trainer(cfg)
    refuse_other_labels(cfg)
    settle_numbers(cfg)
    chooses_batch_size = cfg.data.batch_size == "auto"
    if chooses_batch_size:
        cfg.data.batch_size = USUAL  # until the data and all other settings are known
    data = build_data(cfg)
    refuse_unlabelled(cfg, data)
    make_paths_absolute(cfg)
    chosen = auto.hold_nothing_out(cfg, data) if cfg.auto and cfg.resume is None else None
    if chosen:
        OmegaConf.update(cfg, chosen.key, chosen.value)
        data.hold_nothing_out()
    settle_validation(cfg, data)
    if cfg.auto and cfg.resume is None:
        settle_by_data(cfg, data, [chosen] if chosen else [])
    if chooses_batch_size:
        settle_batch_size(cfg, data)
    if cfg.lr_find and cfg.resume is None:
        settle_learning_rate(cfg, data)
    OmegaConf.set_readonly(cfg, True)
    return Settled(cfg, data, resume_from)


def checkpoint_to_resume(cfg: DictConfig) -> Path | None:
    """The checkpoint of a resumed run; None for a new run, or one that was interrupted before its first checkpoint."""
    if cfg.resume is None:
        return None
    run = Path(cfg.paths.run)
    named = Path(cfg.resume).expanduser().resolve()
    resume_from = named if named.is_file() else checkpoint.newest_valid(run)
    if resume_from is None:
        log.warning("%s has no checkpoint yet: the run starts from the beginning", relative_to_cwd(run))
    else:
        log.info("continuing from %s", relative_to_cwd(resume_from))
    return resume_from


def refuse_other_length(cfg: DictConfig, resume_from: Path) -> None:
    """Refuses another number of epochs for a run whose schedule spans the whole run.

    The schedule itself would refuse it, too, but only after the loggers have dropped what is to be computed again.
    The checkpoint, with all its weights, is read only if the number differs from the one in the folder of the run.

    Raises:
        UsageError: the message names the length of the run.
    """
    if cfg.trainer.max_epochs == Run(Path(cfg.paths.run)).config.trainer.get("max_epochs"):
        return
    saved = checkpoint.read(resume_from)
    before = saved["hyper_parameters"]["config"]["trainer"].get("max_epochs")
    plan = next((state.get("plan", {}) for state in saved.get("lr_schedulers", [])), {})
    spans_the_run = any(name in plan and cfg.scheduler.get(name) is None for name in HORIZONS)
    if cfg.trainer.max_epochs != before and spans_the_run:
        raise UsageError(
            f"trainer.max_epochs={cfg.trainer.max_epochs}: the run was trained with {plan_in_words(plan)}, planned for "
            f"max_epochs={before}. Resume it with that length, or start a new run from its weights: "
            f"model.weights={relative_to_cwd(Path(cfg.paths.run))}"
        )


def refuse_other_task(cfg: DictConfig) -> None:
    """Refuses settings that only classifiers have, for a task without labels; before the data are read.

    Raises:
        UsageError: says what to type.
    """
    task = get_class(cfg.task._target_)
    if task.needs_labels:
        return
    if cfg.auto:
        raise UsageError(
            f"the default recipe (finetuning=auto) is for classifiers: type experiment={task.recipe}, or name a "
            "strategy, such as finetuning=unfreeze_at"
        )
    if cfg.report:
        raise UsageError("report=true is for classifiers: leave it out")


def refuse_unlabelled(cfg: DictConfig, data: DataModule) -> None:
    """Raises a UsageError if the task needs labels and the data have none."""
    if get_class(cfg.task._target_).needs_labels and not data.classes:
        raise UsageError("the data have no labels, which this task needs: give data with labels")


def refuse_other_labels(cfg: DictConfig) -> None:
    """Refuses a task for several labels per sample if the data set always has one; before the data are read.

    Raises:
        UsageError: says which task to use.
    """
    if "objective" not in cfg.task:
        return
    objective = get_class(cfg.task.objective._target_)
    if get_class(cfg.data._target_).one_label and getattr(objective, "multi_label", False):
        raise UsageError("the data have one class per sample: use task=classification")


def settle_numbers(cfg: DictConfig) -> None:
    """Tells the data set that the objective needs numbers instead of classes; before the data are read.

    Raises:
        UsageError: the data set has no numbers, or the objective takes none.
    """
    objective = get_class(cfg.task.objective._target_) if "objective" in cfg.task else Objective
    if not objective.numbers and cfg.data.get("numbers"):
        raise UsageError("data.numbers=true: this task is for classes; use task=regression, or leave it out")
    if not objective.numbers:
        return
    if "numbers" not in cfg.data:
        raise UsageError(
            f"the data ({cfg.data._target_.rpartition('.')[2]}) have classes, and task=regression needs numbers: give "
            "your own in a table (data=table or data=text_table, data.root=<file> data.label_column=<column>), or use "
            "task=classification"
        )
    if str(cfg.trainer.precision) in ("16-true", "bf16-true"):
        raise UsageError(
            f"trainer.precision={cfg.trainer.precision} would round the numbers of task=regression: use bf16-mixed"
        )
    cfg.data.numbers = True


def settle_machine(cfg: DictConfig) -> None:
    """Sets initial weights, precision and time limit; all are saved, so that a resumed run computes the same."""
    if isinstance(cfg.trainer.get("max_time"), (str, int, float)):
        cfg.trainer.max_time = duration(cfg.trainer.max_time)
    # model.weights may be on the command line, as in a sweep over strategies, but finetuning=scratch uses none
    if get_class(cfg.finetuning._target_).random_weights and cfg.model.get("weights") is not None:
        log.info("finetuning=scratch: random weights instead of model.weights=%s", cfg.model.weights)
        cfg.model.weights = None
    measure = _precision_probe(cfg)
    cfg.trainer.precision = choose_precision(cfg.trainer.precision, cfg.trainer.accelerator, measure)


def _precision_probe(cfg: DictConfig) -> partial | None:
    """Measures the faster precision; None if the backbone is never trained, or if there are several processes."""
    if not has_one_process(cfg) or not get_class(cfg.finetuning._target_).trains_backbone:
        return None
    model = cfg.model.copy()
    model.weights = None
    key = OmegaConf.to_yaml(model, resolve=True, sort_keys=True)
    known = Path(cfg.paths.cache).expanduser() / "precision.json"
    return partial(faster_precision, partial(instantiate, model), key, known)


def make_paths_absolute(cfg: DictConfig) -> None:
    """Makes given paths absolute, so that they work from any folder; a path that does not exist may be a name."""
    for part, key in (("data", "root"), ("model", "weights")):
        given = cfg[part].get(key)
        if given is not None and Path(given).expanduser().exists():
            cfg[part][key] = str(Path(given).expanduser().resolve())


def settle_validation(cfg: DictConfig, data: DataModule) -> None:
    """Sets what a run that validates nothing needs: no checkpoint watches a metric, so the last epoch's is kept.

    That is a run without validation samples (`data.val_fraction=0`) or with `trainer.limit_val_batches=0`.
    """
    if data.num_samples["val"] and cfg.trainer.get("limit_val_batches") != 0:
        return
    cfg.trainer.limit_val_batches = 0
    for node in cfg.callbacks.values():
        if node.get("_target_", "").endswith(".ModelCheckpoint") and node.get("monitor"):
            node.monitor, node.mode = None, "max"  # not as the other checkpoint: Lightning tells them apart by both
    if cfg.resume is None:
        why = "there are no validation samples" if not data.num_samples["val"] else "trainer.limit_val_batches=0"
        log.warning("%s: nothing chooses the best epoch or ends the run early; the last epoch's weights are kept", why)


def settle_by_data(cfg: DictConfig, data: DataModule, before: list[Setting]) -> None:
    """Applies what `finetuning=auto` recommends, prints it and writes it into the run, `before` included."""
    recommendation = auto.recommend(cfg, data)
    for setting in recommendation.settings:
        OmegaConf.update(cfg, setting.key, setting.value, force_add=True)
    data.weighting, data.batch_size = cfg.data.class_weights, cfg.data.batch_size
    settings = [*before, *recommendation.settings]
    reasons = [f"{setting.typed}: {setting.reason}" for setting in settings]
    sentences = [auto.recipe_summary(cfg, recommendation.batch_norm), *recommendation.notes, *reasons]
    if rank_zero_only.rank == 0:
        for sentence in sentences:
            log.info(sentence)
        with replacing(Run(Path(cfg.paths.run)).choices_file) as stream:
            stream.writelines(f"{sentence}\n" for sentence in sentences)


def settle_batch_size(cfg: DictConfig, data: DataModule) -> None:
    """Sets the batch size to the one for this machine, which is saved with the run: it is resumed with the same one."""
    choice = choose_batch_size(cfg, data)
    cfg.data.batch_size = data.batch_size = choice.size
    steps = cfg.trainer.accumulate_grad_batches
    effective = f"; {choice.size * steps} samples per optimizer step (trainer.accumulate_grad_batches={steps})"
    log.info(
        "data.batch_size=%d: %s%s. The choice depends on this machine: to repeat the run elsewhere, type this number",
        *(choice.size, choice.reason, effective if steps != 1 else ""),
    )


def settle_learning_rate(cfg: DictConfig, data: DataModule) -> None:
    """Sets the learning rate to the one that a range test finds (`lr_find=true`)."""
    if cfg.trainer.fast_dev_run:
        log.info("lr_find=true is ignored with trainer.fast_dev_run, which runs one batch")
        return
    cfg.optimizer.lr = find_learning_rate(cfg, data)
