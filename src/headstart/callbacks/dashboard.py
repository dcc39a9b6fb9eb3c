"""Adds example samples, settings and mistakes of a run to TensorBoard, beside its curves."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from headstart.callbacks.logit_collector import in_order
from headstart.cli.conf_files import typed_name
from headstart.errors import UsageError
from headstart.metrics.scores import is_better
from headstart.runs.directory import Run
from headstart.runs.hyperparameters import is_hyperparameter, key_of
from headstart.runs.kept import Kept
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)
MOST_LOGITS = 50_000_000
"""Limit of values that are kept (200 MB); beyond it, only the mistakes among the first samples are shown."""
SETTINGS = ("model.name", "optimizer.lr", "optimizer.weight_decay", "data.batch_size", "trainer.max_epochs", "seed")
PARTS = ("model", "finetuning", "optimizer", "scheduler", "augmentation", "mixing", "test_time", "head")
"""For each part, the hparams tab shows the name of its file in `conf/`; it also shows every setting that was typed."""


class Dashboard(Callback):
    """Shows example samples at the start; settings with results, confusion matrix and mistakes on val at the end.

    For numbers, predicted against true values and the largest errors take the place of the last two.

    It runs no extra validation: it keeps the logits of the best one. It does nothing without a TensorBoard logger or
    with `fast_dev_run`. With several processes, each has only a share of val, so no mistakes are shown; only a
    classifier has any.

    Args:
        pictures: number of training samples to show, pictures also augmented; 0: none.
        mistakes: number of the worst mistakes on val to show; 0: none, and no confusion matrix.
    """

    def __init__(self, pictures: int = 8, mistakes: int = 12):
        for name, given in (("pictures", pictures), ("mistakes", mistakes)):
            if given < 0:
                raise UsageError(f"callbacks.dashboard.{name}={given}: give a number of pictures, 0 for none")
        self.pictures, self.mistakes = pictures, mistakes
        self.began = False
        self.best: float | None = None
        self.logits: list[Tensor] = []
        self.best_logits = torch.empty(0)
        self.positions: list[int] = []  # of these logits in the split

    def state_dict(self) -> dict[str, Any]:
        """Whether the examples were shown, and the best score; not the logits, which may be large."""
        return {"began": self.began, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state."""
        self.began, self.best = state_dict["began"], state_dict["best"]

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows example inputs and defines the charts."""
        writer = _writer(trainer)
        if writer is None or self.began:
            return
        self.began = True
        writer.add_custom_scalars({"training": charts(*pl_module.objective.main_score)})
        if self.pictures:
            with isolate_rng():  # the examples must not change the run's random numbers
                self._show_examples(writer, trainer.datamodule)

    def _show_examples(self, writer: Any, data: Any) -> None:
        # imported here: a run without TensorBoard does not wait for matplotlib
        from headstart.display.by_sample import view_of
        from headstart.display.samples import Entry

        number, samples = data.num_samples["train"], data.samples
        positions = torch.linspace(0, number - 1, min(self.pictures, number)).long().tolist()
        plain = _batch(data.inputs("train", positions))
        if plain is None:
            indices = [data.splits["train"][position] for position in positions]
            labels = [samples.label_of(index).split("|") for index in indices]
            entries = [Entry(samples.load(i), names) for i, names in zip(indices, labels, strict=True)]
            title = " | ".join(samples.classes) if samples.numbers else "class"
            view_of(entries[0].sample).add_to(writer, "train/examples", entries, title, 0)
            return
        if data.in_two_parts(data.train_transform)[1] is data.in_two_parts(data.eval_transform)[1]:
            writer.add_image("pictures/plain", _grid(plain), 0)
            return
        augmented = _batch(data.inputs("train", positions, [data.seed + place for place in positions]))
        writer.add_image("pictures/plain_and_augmented", _grid(torch.cat([plain, augmented]), len(plain)), 0)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops the logits of the last validation."""
        self.logits = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Tensor, batch: Any, index: int, *_: int
    ) -> None:
        """Keeps the logits of a batch."""
        kept = sum(batch.numel() for batch in self.logits)
        if self._shows_mistakes(trainer, pl_module) and trainer.state.fn == "fit" and kept < MOST_LOGITS:
            self.logits.append(outputs.detach().float().cpu())

    def _shows_mistakes(self, trainer: pl.Trainer, task: pl.LightningModule) -> bool:
        return bool(self.mistakes) and trainer.world_size == 1 and isinstance(task, ClassificationTask)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the logits of the best validation."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or pl_module.monitor not in trainer.callback_metrics:
            return
        score = float(trainer.callback_metrics[pl_module.monitor])
        if is_better(score, self.best, pl_module.monitor):
            self.best = score
            self.best_logits, self.positions = torch.empty(0), []
            if self.logits:
                self.best_logits, self.positions = in_order(self.logits, trainer.val_dataloaders)

    @rank_zero_only
    def on_kept(self, trainer: pl.Trainer, kept: Kept | None, metrics: dict[str, float]) -> None:
        """Shows the settings and, beside them, the model that was kept and its validation metrics.

        The curves of validation end with the last epoch, which may be another model.
        """
        writer = _writer(trainer)
        if writer is not None:
            of_kept = {f"kept/{name.removeprefix('val/')}": v for name, v in metrics.items() if name.startswith("val/")}
            for name, value in of_kept.items():
                writer.add_scalar(name, value, trainer.global_step)
            _write_settings(writer, trainer, list(of_kept), "" if kept is None else kept.model)

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the mistakes of the best epoch."""
        writer = _writer(trainer)
        if writer is None:
            return
        if len(self.best_logits):
            with isolate_rng():
                self._show_mistakes(writer, trainer, pl_module)
        elif self._shows_mistakes(trainer, pl_module) and self.best is not None:
            log.info("TensorBoard shows no mistakes: the best validation was before the interruption")
        writer.flush()

    def _show_mistakes(self, writer: Any, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        # imported here: a run without TensorBoard does not wait for matplotlib
        from headstart.display.by_answer import overview
        from headstart.display.by_sample import as_shown, view_of
        from headstart.display.fonts import choose_fonts
        from headstart.display.samples import mistake_entry

        data, step = trainer.datamodule, trainer.global_step
        objective = task.objective
        indices = [data.splits["val"][position] for position in self.positions]
        names, targets = [data.samples.names[index] for index in indices], data.targets("val", self.positions)
        predictions = objective.predictions(names, task.classes, targets, self.best_logits.to(task.device))
        if found := overview(predictions):
            choose_fonts(found[1])
            writer.add_figure(f"val/{found[0]}", found[1], step)
        shown = objective.worst(predictions)[: self.mistakes]
        raw = [data.samples.load(indices[mistake.position]) for mistake in shown]
        samples = [as_shown(each, data.eval_transform) for each in raw]
        if samples:
            entries = list(map(mistake_entry, samples, shown))
            view_of(samples[0]).add_to(writer, "val/worst_mistakes", entries, "worst mistakes on val", step)


def charts(metric: str, name: str) -> dict[str, Any]:
    """The charts of the custom scalars tab, each with the curves that share it.

    Args:
        metric: the main metric of training, such as `acc`.
        name: its name for readers.
    """
    curves = {
        "loss": ["^train/loss$", "^val/loss$"],
        name: [f"^train/{metric}$", f"^val/{metric}$"],
        "learning rates": ["^lr/.*"],
        "stage": ["^stage$"],
    }
    return {title: ["Multiline", tags] for title, tags in curves.items()}


def _writer(trainer: pl.Trainer) -> Any:
    """The writer of TensorBoard; None if the run has none."""
    found = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return found[0].experiment if found and not trainer.fast_dev_run else None


def _batch(batches: Any) -> Tensor | None:
    """All inputs as one batch; None if they are not pictures."""
    found = list(batches)
    if not isinstance(found[0], Tensor) or found[0].ndim != 4 or found[0].shape[1] != 3:
        return None
    return torch.cat(found)


def _grid(pictures: Tensor, columns: int = 8) -> Tensor:
    """The pictures `(number, 3, height, width)` as one picture."""
    return make_grid(pictures, nrow=columns, padding=2, pad_value=255)


def _write_settings(writer: Any, trainer: pl.Trainer, metrics: list[str], kept: str) -> None:
    """Writes a row of the hparams tab: the settings with the kept model, and the metrics to show beside them."""
    task, shown = trainer.lightning_module, list(metrics)
    if trainer.datamodule.num_samples["test"]:
        shown += [*task.test_metrics, "test/loss"]
    config = task.hparams["config"]
    run = Run(Path(config["paths"]["run"])).launched  # for a resumed run: the words that it was started with
    chosen = chosen_settings(config, run.overrides or [], run.choices) | {"kept": kept}
    for summary in hparams(chosen, dict.fromkeys(shown, 0.0)):
        writer._get_file_writer().add_summary(summary)  # it may have been closed at the end of the fit


def chosen_settings(config: dict[str, Any], typed: list[str], choices: Mapping[str, str]) -> dict[str, Any]:
    """The parts, the usual settings and the typed settings, as plain values.

    Args:
        config: the composed config, as in the checkpoint.
        typed: overrides such as `optimizer.lr=0.1`.
        choices: folder of `conf/` -> chosen file; may be empty.
    """
    found: dict[str, Any] = {}
    for part in PARTS:
        node = config.get(part)
        found[part] = typed_name(part, str(node["_target_"]), choices) if isinstance(node, dict) else "none"
    keys = [key for key in map(key_of, typed) if is_hyperparameter(key)]
    for key in dict.fromkeys([*SETTINGS, *keys]):
        node: Any = config
        for word in key.split("."):
            node = node.get(word) if isinstance(node, dict) else None
        if isinstance(node, (bool, int, float, str)):
            found[key] = node
    return found
