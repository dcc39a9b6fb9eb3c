"""`train`, `load` and a trained run: the same configs and the same code as the commands, inside a Python program."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.api.results import Metrics, Predictions, pandas
from headstart.files import relative_to_cwd

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pandas import DataFrame

    from headstart.inference.predict import Predictor
    from headstart.runs.directory import Run

FilePath = str | PathLike[str]


def train(
    data: FilePath | None = None,
    *,
    model: str | None = None,
    finetuning: str | None = None,
    task: str | None = None,
    max_time: str | None = None,
    max_epochs: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> "TrainedRun":
    """Trains a pretrained network with a new head on your data; does the same as `headstart train`.

    Args:
        data: a folder or a table of your own, or the name of a data set such as `cats_dogs` (`./cats_dogs`: a folder of
            that name). The content of a folder or table shows whether it holds pictures or texts.
        model: a file of `conf/model`, such as `resnet50`.
        finetuning: a file of `conf/finetuning`; None: the default recipe, which chooses settings by the data.
        task: a file of `conf/task`, such as `multilabel` or `regression`; None: classification.
        max_time: limit of the training, such as `10m`; the same as `trainer__max_time`.
        max_epochs: number of epochs; the same as `trainer__max_epochs`.
        seed: of splits, weights and random changes.
        overrides: further words as they are typed on the command line, such as `["callbacks=[curves,ema]"]`.
        **settings: every other setting of the command line, with `__` for a dot: `optimizer__lr=0.01`.

    Returns:
        the trained run. Its directory is `logs/train/runs/<date>` in the current folder.

    Raises:
        UsageError: a mistake in the settings or the data; the message says what is allowed.
        Failure: for example, the memory is full.
        KeyboardInterrupt: Ctrl-C or the stop button; `train(resume="last")` continues.
    """
    from headstart.cli.in_process import call
    from headstart.cli.python_words import data_words, words_of

    named = {"model": model, "finetuning": finetuning, "task": task, "seed": seed}
    named |= {"trainer__max_time": max_time, "trainer__max_epochs": max_epochs}
    given = {name: value for name, value in named.items() if value is not None} | settings
    words = [*(data_words(data) if data is not None else []), *words_of(given, overrides)]
    _, folder = call("train", _train, words)
    return TrainedRun(folder)


def _train(cfg: "DictConfig") -> None:
    """As in src/train.py."""
    from hydra.core.hydra_config import HydraConfig

    from headstart.cli.check import check_config
    from headstart.cli.quick_check import check_without_imports, has_one_process
    from headstart.errors import UsageError
    from headstart.runs.resume import config_to_run, sweep_to_resume

    if sweep_to_resume(cfg):
        raise UsageError(
            f"resume={cfg.resume} is a sweep: it continues from the command line, headstart train resume=..."
        )
    cfg = config_to_run(cfg, HydraConfig.get())
    check_without_imports(cfg)
    if not has_one_process(cfg):
        raise UsageError("several devices need a process each, which only the command starts: headstart train ...")
    check_config(cfg)
    from headstart.training.run import run

    run(cfg)


def load(run: FilePath, *, checkpoint: str = "best", logs: FilePath | None = None) -> "TrainedRun":
    """A trained run.

    Args:
        run: a checkpoint file, a run directory, or `last`: the run that was started last.
        checkpoint: name of the checkpoint in a run directory.
        logs: where `last` searches; None: the variable HEADSTART_LOGS, or `logs` in the current folder.

    Raises:
        UsageError: there is no such run.
    """
    import os

    from headstart.runs.directory import find_checkpoint

    found = find_checkpoint(fspath(run), checkpoint, fspath(logs or os.environ.get("HEADSTART_LOGS", "logs")))
    return TrainedRun(found)


class TrainedRun:
    """A trained run: it measures, predicts and exports. The model is loaded when it is first needed.

    Args:
        path: its directory, or one of its checkpoint files.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._predictors: dict[tuple[Any, ...], Predictor] = {}

    def __repr__(self) -> str:
        scores = "".join(f", {name}={value:.4f}" for name, value in self.metrics.items() if name.endswith("/acc"))
        return f"TrainedRun({relative_to_cwd(self.path)!r}{scores})"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file.

        Raises:
            UsageError: there is none.
        """
        from headstart.runs.directory import find_checkpoint

        return find_checkpoint(str(self.path))

    @property
    def folder(self) -> Path | None:
        """The run directory; None for a checkpoint outside of one."""
        return self._run.folder if self._run else None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the end of training, `<split>/<name>` -> value; empty if they are not known."""
        if self._run is None or not self._run.has_ended:
            return {}
        return {name: value for name, value in self._run.metrics.items() if "/" in name and value is not None}

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the outputs."""
        if self._run and self._run.classes_file.is_file():
            return self._run.classes
        return self._predictor({"accelerator": "cpu", "precision": None}).model.classes

    def history(self) -> "DataFrame":
        """The curves of the training: one row per step or epoch with an entry, one column per metric."""
        from headstart.errors import UsageError

        if self._run is None or not self._run.history_file.is_file():
            raise UsageError(f"{self.path} has no curves: they come from logger=csv, which is on by default")
        return pandas().read_csv(self._run.history_file)

    def evaluate(self, split: str = "test", *, overrides: Sequence[str] = (), **settings: Any) -> Metrics:
        """Measures the run and writes tables and figures; does the same as `headstart evaluate`.

        Args:
            split: train, val or test.
            overrides: further words as they are typed on the command line.
            **settings: of `conf/evaluate.yaml`, with `__` for a dot: `data__root="other/pictures"`, `explain=8`.
        """
        from headstart.cli.in_process import call

        words = self._words({"split": split, **settings}, overrides)
        return call("evaluate", _evaluate, words)[0]

    def predict(self, inputs: Any, *, overrides: Sequence[str] = (), **settings: Any) -> Predictions:
        """Predicts the classes or the numbers of samples; does the same as `headstart predict`.

        Args:
            inputs: one sample, or a list of them. For a model of pictures: file names, folders, patterns such as
                `photos/*.jpg`, PIL pictures, NumPy arrays of uint8 `(height, width, 3)`. For a model of texts: texts;
                a `pathlib.Path` is a file with texts.
            overrides: further words as they are typed on the command line.
            **settings: of `conf/predict.yaml`, with `__` for a dot: `top_k=1`, `batch_size=64`.
        """
        from headstart.cli.in_process import call

        items = _as_list(inputs)
        files = [fspath(item) for item in items if isinstance(item, (str, PathLike))] if "column" in settings else []
        words = self._words({"input": files or "from Python", **settings}, overrides)
        return call("predict", lambda cfg: self._predict(cfg, items), words)[0]

    def export(self, format: str = "onnx", *, overrides: Sequence[str] = (), **settings: Any) -> Path:
        """Writes one file that works without Headstart, and compares it with the checkpoint; as `headstart export`.

        Args:
            format: onnx, torch_export, torchscript or safetensors.
            overrides: further words as they are typed on the command line.
            **settings: of `conf/export.yaml`: `quantize="int8"`, `output="model.onnx"`.
        """
        from headstart.cli.in_process import call

        return call("export", _export, self._words({"format": format, **settings}, overrides))[0]

    def report(self, *, overrides: Sequence[str] = (), **settings: Any) -> Path:
        """Writes a page about the run and a model card, and returns the page; as `headstart report`.

        Args:
            overrides: further words as they are typed on the command line.
            **settings: of `conf/report.yaml`: `examples=0`, `title="My model"`.
        """
        from headstart.cli.in_process import call

        return call("report", _report, self._words(settings, overrides))[0]

    @property
    def _run(self) -> "Run | None":
        from headstart.runs.directory import Run

        run = Run(self.path)
        return run if run.exists else Run.of(self.path)

    def _words(self, settings: Mapping[str, Any], overrides: Iterable[str]) -> list[str]:
        from headstart.cli.python_words import words_of

        return words_of({"run": self.checkpoint, **settings}, overrides)

    def _predict(self, cfg: "DictConfig", items: list[Any]) -> Predictions:
        from headstart.api.memory import predictions
        from headstart.cli.schemas import check_predict

        check_predict(cfg)
        return predictions(cfg, self._predictor(cfg.trainer), items)

    def _predictor(self, trainer: Any) -> "Predictor":
        """The loaded model; loaded again if the file has changed."""
        from omegaconf import OmegaConf

        from headstart.inference.predict import Predictor

        trainer = OmegaConf.create(trainer)
        key = (str(self.checkpoint), self.checkpoint.stat().st_mtime_ns, trainer.accelerator, trainer.precision)
        if key not in self._predictors:
            self._predictors = {key: Predictor.load(self.checkpoint, trainer)}
        return self._predictors[key]


def _as_list(inputs: Any) -> list[Any]:
    """The samples; one array, picture, text or path becomes a list of one."""
    is_array_of_one = hasattr(inputs, "shape") and len(inputs.shape) in (2, 3)
    is_one = isinstance(inputs, (str, PathLike)) or is_array_of_one or not isinstance(inputs, Iterable)
    return [inputs] if is_one else list(inputs)


def _evaluate(cfg: "DictConfig") -> Metrics:
    """As in src/evaluate.py."""
    from headstart.cli.settings import check_settings

    check_settings(cfg)
    from headstart.evaluation.evaluate import evaluate, output_folder

    path = Path(cfg.run)
    return Metrics(evaluate(cfg, path), output_folder(path, cfg))


def _export(cfg: "DictConfig") -> Path:
    """As in src/export.py."""
    from headstart.cli.schemas import check_export

    check_export(cfg)
    from headstart.export.export import export, output_file

    path = Path(cfg.run)
    export(cfg, path)
    return output_file(cfg, path)


def _report(cfg: "DictConfig") -> Path:
    """As in src/report.py."""
    from headstart.cli.settings import check_settings

    check_settings(cfg)
    from headstart.report.build import report

    page, _ = report(cfg, Path(cfg.run))
    return page
