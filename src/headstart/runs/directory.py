"""The files of a run directory: their names, their content, and how to find runs and checkpoints.

Every file name of a run directory is spelt here and nowhere else in the package. (`conf/` spells the paths that it
configures.)
"""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from headstart.errors import UsageError
from headstart.files import as_json, read_json, read_yaml, replacing
from headstart.runs import earlier, trust
from headstart.runs.evaluations import Answers, is_of_these_weights, read_answers, read_evaluation
from headstart.runs.hyperparameters import settings_of
from headstart.runs.kept import Kept

BEST, LAST = "best.ckpt", "last.ckpt"
PROBE = "probe.ckpt"
"""The model with the closed-form head. It is kept to average weights with; training never resumes from it."""
BAD_FILES = "bad_files.csv"
REPORT, MODEL_CARD = "report.html", "MODEL_CARD.md"
SCRATCH = "scratch"
EXPORT_ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".pt", "safetensors": ".safetensors"}
"""The formats of an export, and how their files end."""
OF_EACH_START = (".hydra/*", "*.log", "config.yaml", "classes.json", "split.csv", "auto.txt", BAD_FILES)
"""Files of a run directory that a failed start leaves."""
OF_LOGGERS_WITHOUT_ROWS = ("csv/hparams.yaml", "tensorboard/*")


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        folder: the directory, such as `logs/<name>/runs/<date>` or `logs/<name>/multiruns/<date>/<job>`.
    """

    folder: Path

    @classmethod
    def of(cls, checkpoint: Path) -> "Run | None":
        """The run that a checkpoint file belongs to; None if the file lies outside a run directory."""
        run = cls(checkpoint.resolve().parent.parent)
        return run if run.exists else None

    @property
    def exists(self) -> bool:
        """Whether the folder is a run directory: training has written its config."""
        return self.config_file.is_file()

    @property
    def has_ended(self) -> bool:
        """Whether training has ended and its metrics are written."""
        return self.metrics_file.is_file()

    @property
    def started(self) -> float:
        """When the run was started, in seconds since 1970.

        Hydra writes its record of the command line then. Resuming rewrites the config, but not this record.
        """
        file = self.overrides_file if self.overrides_file.is_file() else self.config_file
        return file.stat().st_mtime

    @property
    def is_worthless(self) -> bool:
        """Whether it has only files that each start writes: no checkpoint, no metrics, nothing that took long.

        Records of TensorBoard do not count if there is also a CSV logger, and it has no row yet.
        """
        ignored = OF_EACH_START + (OF_LOGGERS_WITHOUT_ROWS if self.history_file.parent.is_dir() else ())
        return all(self._is_one_of(file, ignored) for file in self._all_files())

    def remove_if_worthless(self) -> None:
        """Removes a worthless run, and the folder only if nothing else is in it."""
        if not self.is_worthless:
            return
        for file in self._all_files():
            file.unlink()
        folders = [path for path in self.folder.rglob("*") if path.is_dir() and not path.is_symlink()]
        with suppress(OSError):  # it is the current folder, or something was written meanwhile
            for folder in (*sorted(folders, reverse=True), self.folder):
                folder.rmdir()

    def _all_files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if not path.is_dir() or path.is_symlink()]

    def _is_one_of(self, file: Path, patterns: Iterable[str]) -> bool:
        name = file.relative_to(self.folder).as_posix()
        # fnmatch lets * stand for a slash, too
        return any(fnmatchcase(name, each) and name.count("/") == each.count("/") for each in patterns)

    # --- files ----------------------------------------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        """The composed config."""
        return self.folder / "config.yaml"

    @property
    def overrides_file(self) -> Path:
        """Hydra's record of the command line; for a job of a sweep, the overrides of that job."""
        return self.folder / ".hydra" / "overrides.yaml"

    @property
    def launch_file(self) -> Path:
        """Hydra's record of the launch, with the files of `conf/` that were chosen."""
        return self.folder / ".hydra" / "hydra.yaml"

    @property
    def metrics_file(self) -> Path:
        """Score, cost and metrics, written when training has ended."""
        return self.folder / "metrics.json"

    @property
    def classes_file(self) -> Path:
        """Class name -> index of its output."""
        return self.folder / "classes.json"

    @property
    def split_file(self) -> Path:
        """One row per sample: its split, its name, its class."""
        return self.folder / "split.csv"

    @property
    def bad_files_file(self) -> Path:
        """One row per sample that cannot be read: its name and the reason."""
        return self.split_file.with_name(BAD_FILES)

    @property
    def choices_file(self) -> Path:
        """The settings that finetuning=auto has chosen, and why."""
        return self.folder / "auto.txt"

    @property
    def history_file(self) -> Path:
        """The curves as a table, written by logger=csv."""
        return self.folder / "csv" / "metrics.csv"

    @property
    def report_file(self) -> Path:
        """The page about the run."""
        return self.folder / REPORT

    @property
    def model_card_file(self) -> Path:
        """The model card."""
        return self.folder / MODEL_CARD

    @property
    def export_folder(self) -> Path:
        """Exported models."""
        return self.folder / "export"

    def exports(self, checkpoint: str = "best") -> list[Path]:
        """The exported files of a checkpoint, without those that describe them or lie beside them."""
        found = [*self.export_folder.glob(f"{checkpoint}.*"), *self.export_folder.glob(f"{checkpoint}_*")]
        return sorted(file for file in found if file.suffix in EXPORT_ENDINGS.values())

    @property
    def scratch(self) -> "Run":
        """The run from random weights inside this one (compare_scratch=true)."""
        return Run(self.folder / SCRATCH)

    @property
    def launched(self) -> "Run":
        """The run that a command started: for the run from random weights, the one around it."""
        return Run(self.folder.parent) if self.folder.name == SCRATCH else self

    def evaluated_metrics_file(self, split: str, checkpoint: str = "best") -> Path:
        """The metrics of an evaluation of the run's own data, by checkpoint name."""
        return self.folder / f"metrics_{_named(split, checkpoint)}.json"

    def evaluation_folder(
        self, split: str, checkpoint: str = "best", other_data: str | None = None, test_time: str | None = None
    ) -> Path:
        """The folder of an evaluation: `evaluation_<split>[_<checkpoint>][_on_<folder>][_<test_time>]`.

        Args:
            split: train, val or test.
            checkpoint: name of the evaluated checkpoint.
            other_data: path of other data; None: the run's own data.
            test_time: the test-time augmentation, such as `with_mirror_image`, or `plain`; None: as in the run.
        """
        other = "" if other_data is None else f"_on_{Path(other_data).name}"
        augmented = "" if test_time is None else f"_{test_time}"
        return self.folder / f"evaluation_{_named(split, checkpoint)}{other}{augmented}"

    # --- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def checkpoints_folder(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the best monitored score."""
        return self.checkpoints_folder / BEST

    @property
    def last(self) -> Path:
        """The checkpoint that training resumes from."""
        return self.checkpoints_folder / LAST

    @property
    def checkpoints(self) -> list[Path]:
        """All checkpoint files, sorted by name."""
        return checkpoints_in(self.checkpoints_folder)

    def checkpoint(self, name: str) -> Path:
        """The checkpoint file of this name, such as `best`.

        Raises:
            UsageError: there is none; the message lists the checkpoints that exist.
        """
        for path in self.checkpoints:
            if path.stem == name and path.is_file():  # not a pipe
                return path
        names = ", ".join(path.stem for path in self.checkpoints) or "none"
        raise UsageError(f"run={self.folder}: no checkpoint {name!r} in its checkpoints folder; there are: {names}")

    # --- content --------------------------------------------------------------------------------------------------

    @cached_property
    def config(self) -> DictConfig:
        """The config as today's code reads it, interpolations kept."""
        content = read_yaml(self.config_file)
        try:
            return earlier.translated(content)
        except (TypeError, AttributeError) as error:
            raise UsageError(f"{self.config_file} is damaged: it is no config of a run ({error})") from error

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the config, dotted key -> value, interpolations as written."""
        return settings_of(self.config)

    @cached_property
    def overrides(self) -> list[str] | None:
        """The typed overrides, such as `optimizer.lr=0.1`; None if there is no record of them."""
        if not self.overrides_file.is_file():
            return None
        return [str(word) for word in read_yaml(self.overrides_file)]

    @cached_property
    def choices(self) -> dict[str, str]:
        """Folder of `conf/` -> the file that was chosen in it, such as `finetuning` -> `lp_ft`; empty if not known."""
        file = self.launched.launch_file
        if not file.is_file():
            return {}
        chosen = trust.value_at(read_yaml(file), "hydra.runtime.choices")
        named = chosen.items() if isinstance(chosen, dict) else ()
        # only names of files: a stranger could have written `${...}`
        return {str(group): str(name) for group, name in named if name and re.fullmatch(r"[\w/-]+", str(name))}

    @cached_property
    def classes(self) -> list[str]:
        """The class names in the order of the model's outputs."""
        places = read_json(self.classes_file)
        names = {place: name for name, place in places.items()}
        if len(names) < len(places) or any(place not in names for place in range(len(names))):
            raise UsageError(f"{self.classes_file} is damaged: it does not number the classes from 0")
        return [names[place] for place in range(len(names))]

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Score, cost and metrics of a run that has ended; None for a value that is not a finite number."""
        content = {name: value for name, value in read_json(self.metrics_file).items() if not isinstance(value, dict)}
        for name, value in content.items():
            if not isinstance(value, (int, float, type(None))):
                raise UsageError(f"{self.metrics_file} is damaged: {name} is no number")
        return {name: value if value is None or math.isfinite(value) else None for name, value in content.items()}

    @cached_property
    def kept(self) -> Kept | None:
        """Which of its models a run that has ended keeps; None if it is not recorded."""
        found = read_json(self.metrics_file).get("kept")
        try:
            return Kept(**found) if found else None
        except TypeError as error:
            raise UsageError(f"{self.metrics_file} is damaged: kept: {error}") from error

    def replace_calibration_errors(self, errors: dict[str, float]) -> None:
        """Writes the calibration errors of a new temperature into all files with metrics; others become null.

        Args:
            errors: such as `val/ece` -> error.
        """
        files = [self.metrics_file, *(self.evaluated_metrics_file(split) for split in ("train", "val", "test"))]
        for file in (file for file in files if file.is_file()):
            content = read_json(file)
            known = {name: errors.get(name) for name in content if name.endswith("/ece")}
            with replacing(file) as stream:
                stream.write(as_json(content | known))

    def metrics_of(self, split: str) -> dict[str, float]:
        """The metrics of one split that are finite numbers, without the prefix `<split>/`; empty before the end."""
        prefix, metrics = f"{split}/", self.metrics if self.has_ended else {}
        known = {name.removeprefix(prefix): v for name, v in metrics.items() if name.startswith(prefix)}
        return {name: value for name, value in known.items() if value is not None}

    def evaluation(self, split: str) -> dict[str, Any] | None:
        """The numbers of the evaluation of a split; None if there is none of the best checkpoint as it is now."""
        found = read_evaluation(self.evaluation_folder(split))
        return found if found and is_of_these_weights(found, self.best, self.metrics_of(split)) else None

    def predictions(self, split: str) -> Answers | None:
        """The answers of the evaluation of a split; None if there is none of the best checkpoint as it is now."""
        return None if self.evaluation(split) is None else read_answers(self.evaluation_folder(split))


def sweep_file(folder: Path) -> Path:
    """The record of a sweep in its directory, which Hydra writes when the sweep starts."""
    return folder / "multirun.yaml"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint files in a folder, sorted by name."""
    return sorted(folder.glob("*.ckpt"))


def _named(split: str, checkpoint: str) -> str:
    return split if checkpoint == "best" else f"{split}_{checkpoint}"


# --- finding runs -------------------------------------------------------------------------------------------------


def find_runs(folder: Path) -> list[Run]:
    """The folder itself if it is a run directory, else all runs below it, the jobs of a sweep in their order.

    A run directory is not searched: the run from random weights inside it belongs to it.
    """
    if Run(folder).exists:
        return [Run(folder)]
    try:
        inside = sorted(filter(_may_hold_runs, folder.iterdir()), key=_by_number)
    except OSError:  # no such folder, or it may not be read
        return []
    return [run for each in inside for run in find_runs(each)]


def _may_hold_runs(folder: Path) -> bool:
    """Whether to look there. A symbolic link counts only if it points to a run directory: it could be circular."""
    return folder.is_dir() and (not folder.is_symlink() or Run(folder).exists)


def _by_number(folder: Path) -> tuple[int, str]:
    """Sorts job 2 before job 10."""
    return (int(folder.name) if folder.name.isdecimal() else -1, folder.name)


def latest(runs: Iterable[Run]) -> Run | None:
    """The run that was started last; None if there are no runs."""
    return max(runs, key=lambda run: (run.started, run.folder), default=None)


def find_checkpoint(run: str, checkpoint: str = "best", logs: str = "logs") -> Path:
    """The checkpoint file that a command line names.

    Args:
        run: a run directory, a checkpoint file, or `last`: of the runs with a checkpoint, the one started last.
        checkpoint: name of the checkpoint in a run directory.
        logs: the folder of all runs, for `last`.

    Raises:
        UsageError: there is none.
    """
    path = _last_with_checkpoint(logs) if run == "last" else Path(run).expanduser().resolve()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"run={run}: no such file or folder; give a run directory such as logs/train/runs/<date>")
    return Run(path).checkpoint(checkpoint)


def _last_with_checkpoint(logs: str) -> Path:
    run = latest(run for run in find_runs(Path(logs).expanduser()) if run.checkpoints)
    if run is None:
        raise UsageError(
            f"run=last: there is no run with a checkpoint in {logs} yet; give a run directory, or logs=<folder>"
        )
    return run.folder.resolve()
