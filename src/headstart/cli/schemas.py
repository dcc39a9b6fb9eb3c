"""The keys of each entry point's config and their types; Hydra refuses any other key.

The settings of training are described in conf/train.yaml, all others here: see `settings.py`.
"""

import glob
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Union  # Union, because OmegaConf 2.3 does not understand bool | int

from omegaconf import MISSING, DictConfig, OmegaConf

from headstart.cli.overrides import command_line_overrides
from headstart.cli.settings import check_settings, setting
from headstart.errors import UsageError
from headstart.files import TABLE_SUFFIXES
from headstart.runs.directory import EXPORT_ENDINGS
from headstart.runs.hyperparameters import key_of

COMPONENTS = (
    "model", "head", "data", "augmentation", "mixing", "test_time", "finetuning", "optimizer", "scheduler", "task",
    "trainer",
)  # fmt: skip
"""The keys of `TrainConfig` that each build one object, and are folders of `conf/`."""
OPTIONAL_COMPONENTS = ("augmentation", "mixing", "test_time", "scheduler")
CACHES = ("activations", "pictures")
"""The keys of `CacheConfig` that each build one object."""
AS_IN_RUN = "as in the run"
"""The value of a part that a run also has, if an evaluation does not change it; null would switch the part off."""
ROW_FORMATS = ("csv", "json", "jsonl")
"""The formats of predictions; each is also the ending of its files."""


@dataclass
class CacheConfig:
    """The caches on disk; a part that is null is not cached."""

    max_gb: float = 20
    views: int | None = None
    activations: Any = None
    pictures: Any = None


@dataclass
class TrainConfig:
    """Every top-level key of `conf/train.yaml`."""

    name: str = MISSING
    seed: int = 0
    resume: str | None = None
    monitor: str = MISSING
    mode: str = MISSING
    test: bool = True
    compare_scratch: bool = False
    auto: bool = False
    lr_find: bool = False
    report: bool = False
    model: Any = MISSING
    head: Any = MISSING
    data: Any = MISSING
    augmentation: Any = None
    mixing: Any = None
    test_time: Any = None
    finetuning: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    task: Any = MISSING
    trainer: Any = MISSING
    cache: CacheConfig | None = None
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    paths: Any = MISSING


@dataclass
class OtherData:
    """How the data may differ from those of the run; null: as in the run."""

    root: str | None = setting(None, "folder or file of the data; default: as in the run", example="<folder>")
    images: str | None = setting(
        None, "the folder that file names in a table are relative to; default: its folder", example="<folder>"
    )
    batch_size: int | None = setting(
        None, "number of samples in a batch; default: as in the run", example="32", at_least=1
    )
    num_workers: int | None = setting(
        None, "number of processes that load samples; default: as in the run", example="2", at_least=0
    )


@dataclass
class OtherTrainer:
    """How the trainer may differ from that of the run; null: as in the run."""

    accelerator: str | None = setting(None, "auto, cpu, gpu or mps; default: as in the run", example="cpu")
    precision: Union[str, int, None] = setting(  # noqa: UP007
        None, "precision of the numbers; default: as in the run", example="32-true"
    )


@dataclass
class RunConfig:
    """The settings that find a trained run."""

    run: str = setting(
        MISSING, "a run directory, a checkpoint file, or last: the run that was started last", example="<run>"
    )
    logs: str = setting(
        "${oc.env:HEADSTART_LOGS,logs}", "where run=last searches; default: HEADSTART_LOGS, or logs", example="<folder>"
    )


@dataclass
class CheckpointConfig(RunConfig):
    """The settings that find a checkpoint of a trained run."""

    checkpoint: str = setting("best", "which file in the checkpoints folder of the run")


@dataclass
class EvaluateConfig(CheckpointConfig):
    """The settings of `src/evaluate.py`."""

    split: str = setting("test", "the split of the data", choices=("train", "val", "test"))
    worst: int = setting(
        24, "number of the worst mistakes shown in mistakes.png, or mistakes.html for texts; 0: none", at_least=0
    )
    calibrate: bool = setting(False, "fit the temperature of the probabilities on val, and save it in the checkpoint")
    explain: Union[bool, int] = setting(  # noqa: UP007
        False, 'which pixels or words led to the worst mistakes; needs pip install -e ".[explain]"',
        example="8", at_least=0,
    )  # fmt: skip
    neighbours: Union[bool, int] = setting(  # noqa: UP007
        False, "the 5 training samples nearest to each of the 8 worst mistakes", example="5", at_least=0
    )
    embedding: bool = setting(False, "the features of all samples in two dimensions, also in TensorBoard's projector")
    label_errors: bool = setting(
        False, 'training labels that are probably wrong; needs pip install -e ".[label_errors]"'
    )
    test_time: Any = setting(  # noqa: RUF009
        AS_IN_RUN, "test-time augmentation: a file of conf/test_time; default: as in the run", example="flip"
    )
    data: OtherData = field(default_factory=OtherData)
    trainer: OtherTrainer = field(default_factory=OtherTrainer)


@dataclass
class PredictTrainer(OtherTrainer):
    """The device of predictions; they need not be made where the run was trained."""

    accelerator: str | None = setting(None, "auto, cpu, gpu or mps; default: auto", example="cpu")


@dataclass
class PredictConfig(CheckpointConfig):
    """The settings of `src/predict.py`."""

    input: Any = setting(  # noqa: RUF009
        MISSING, "pictures: a file, a folder, a pattern such as 'photos/*.jpg', a list of these such as [a.jpg,b], or "
        "- for file names on standard input; texts: a .txt file with one text per line, a table, a folder of .txt "
        "files, or - for lines on standard input",
        example="<files>",
    )  # fmt: skip
    output: str | None = setting(None, "a file; default: standard output", example="<file>")
    format: str | None = setting(
        None, "format of the rows; default: by the ending of output, or csv", example="csv", choices=ROW_FORMATS
    )
    column: Union[str, int, None] = setting(  # noqa: UP007
        None, "the column with the texts of a table, by name or position from 0; default: as in the run, or found",
        example="review",
    )  # fmt: skip
    top_k: int = setting(5, "number of classes per sample, the most probable first", at_least=1)
    batch_size: int | None = setting(
        None, "number of samples in a batch; default: as in the run", example="32", at_least=1
    )
    num_workers: int | None = setting(
        None, "number of processes that load samples; default: chosen for this machine", example="2", at_least=0
    )
    trainer: PredictTrainer = field(default_factory=PredictTrainer)


def check_predict(cfg: DictConfig) -> None:
    """Checks what can be checked without the run and the pictures.

    Raises:
        UsageError: a setting is missing or not allowed.
    """
    check_settings(cfg)
    inputs = [override for override in command_line_overrides() if key_of(override) == "input"]
    if len(inputs) > 1:
        listed = ",".join(override.partition("=")[2] for override in inputs)
        raise UsageError(f"{' '.join(inputs)}: only the last would count; type input=[{listed}]")
    given = cfg.input if OmegaConf.is_list(cfg.input) else [cfg.input]
    tables = [each for each in given if str(each).lower().endswith(TABLE_SUFFIXES) or glob.has_magic(str(each))]
    if cfg.column is not None and not tables:
        raise UsageError(
            f"column={cfg.column} is for tables ({', '.join(TABLE_SUFFIXES)}), and input={cfg.input} names none: leave "
            "it out"
        )
    _refuse_folder(cfg.output, "predictions.csv")
    if cfg.output is not None and row_format(cfg.format, cfg.output) not in ROW_FORMATS:
        endings = ", ".join(f".{name}" for name in ROW_FORMATS)
        raise UsageError(f"output={cfg.output} ends in none of {endings}: add format=<one of {', '.join(ROW_FORMATS)}>")


def row_format(form: str | None, output: str | None) -> str:
    """The given format, else the ending of the file, else CSV."""
    return form or (Path(output).suffix[1:].lower() if output else ROW_FORMATS[0])


@dataclass
class ExportConfig(CheckpointConfig):
    """The settings of `src/export.py`."""

    format: str = setting(
        MISSING, 'kind of file; onnx needs pip install -e ".[onnx]"', example="onnx", choices=tuple(EXPORT_ENDINGS)
    )
    output: str | None = setting(None, "a file; default: in the export folder of the run", example="<file>")
    resize: str = setting(
        "inside", "where pictures are resized: inside the file, which then takes any size, or outside (safetensors)",
        choices=("inside", "outside"),
    )  # fmt: skip
    quantize: str | None = setting(
        None, "smaller numbers, with format=onnx only; the accuracy before and after is printed",
        example="int8", choices=("int8",),
    )  # fmt: skip
    pictures: int | None = setting(
        None, "number of val pictures on which file and checkpoint are compared; default: 200, with quantize all",
        example="200", at_least=1,
    )  # fmt: skip
    tolerance: float = setting(
        0.02, "largest difference of a probability, or of a number in standard deviations of its training values; "
        "above it no file is written, and the exit code is 1", at_least=0, at_most=1,
    )  # fmt: skip
    max_accuracy_loss: float = setting(
        0.05, "largest loss of accuracy (for numbers of R2) with quantize, instead of tolerance", at_least=0, at_most=1
    )
    data: OtherData = field(default_factory=OtherData)


def check_export(cfg: DictConfig) -> None:
    """Checks what can be checked without the run.

    Raises:
        UsageError: a setting is missing or not allowed, or a package is missing.
    """
    check_settings(cfg)
    if cfg.quantize is not None and cfg.format != "onnx":
        raise UsageError(f"quantize={cfg.quantize} format={cfg.format}: only format=onnx can be quantized here")
    if cfg.format == "onnx":
        _require("format=onnx", "onnx", ("onnx", "onnxscript", "onnxruntime"))
    _refuse_folder(cfg.output, f"model{EXPORT_ENDINGS[cfg.format]}")


@dataclass
class ServeConfig(CheckpointConfig):
    """The settings of `src/serve.py`."""

    host: str = setting(
        "127.0.0.1",
        "this machine only; 0.0.0.0: every machine that can reach this one, without password or encryption",
    )
    hosts: Any = setting(  # noqa: RUF009
        None, "another name under which the page is reached, such as that of a proxy, or a list such as [a.org,b.org]",
        example="cats.example.org",
    )  # fmt: skip
    port: int = setting(8000, "port of the page; 0: any free one", at_least=0, at_most=65535)
    top_k: int = setting(5, "number of classes in an answer", at_least=1)
    max_mb: float = setting(20, "largest size of a picture, in megabytes; of a text at most 1", above=0)
    max_megapixels: float = setting(
        50, "largest width x height of a picture, in millions; a small file can hold a picture that fills the memory",
        above=0,
    )  # fmt: skip
    accelerator: str = setting("auto", "the device", choices=("auto", "cpu", "gpu", "mps"))


def check_serve(cfg: DictConfig) -> None:
    """Checks what can be checked without the run.

    Raises:
        UsageError: a setting is missing or not allowed, or a package is missing.
    """
    check_settings(cfg)
    for name in host_names(cfg):
        if not re.fullmatch(r"[\w.-]+", name):
            raise UsageError(f"hosts={name}: give a name without http:// and without a port, such as cats.example.org")
    _require("serving", "serve", ("fastapi", "uvicorn", "python_multipart"))


def host_names(cfg: DictConfig) -> list[str]:
    """The names in `hosts`, which is one name, a list or null."""
    given = cfg.hosts if OmegaConf.is_list(cfg.hosts) else [cfg.hosts]
    return [str(name) for name in given if name is not None]


@dataclass
class ReportConfig(RunConfig):
    """The settings of `src/report.py`."""

    run: str = setting(MISSING, "a run directory, or last: the run that was started last", example="<run>")
    examples: int = setting(4, "number of training samples shown of each class; 0: none", at_least=0)
    worst: int = setting(12, "number of the worst mistakes shown of each split; 0: none", at_least=0)
    license: str = setting("other", "license of the model in the model card, such as apache-2.0 or mit")
    title: str | None = setting(
        None, "heading of report and model card; default: names of the network and of the data", example="'My model'"
    )


@dataclass
class PushConfig(RunConfig):
    """The settings of `src/push.py`."""

    run: str = setting(MISSING, "a run directory, or last: the run that was started last", example="<run>")
    repo: str = setting(MISSING, "the repository on the hub; it is made if there is none", example="<you>/<model>")
    private: bool = setting(True, "false: everyone sees the repository; default: only you", example="false")
    report: bool = setting(False, "also upload the page of report.py, which shows samples of the data")
    confirm: bool = setting(False, "upload without asking")


def check_push(cfg: DictConfig) -> None:
    """Checks what can be checked without the run.

    Raises:
        UsageError: a setting is missing or not allowed, or a package is missing.
    """
    check_settings(cfg)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", cfg.repo, re.ASCII):
        raise UsageError(f"repo={cfg.repo}: give <owner>/<name>, of letters, digits, '-', '_' and '.'")
    _require("push", "hub", ("huggingface_hub",))


ROOTS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
    "report": ReportConfig,
    "push": PushConfig,
}


def _require(purpose: str, extra: str, packages: tuple[str, ...]) -> None:
    absent = [name for name in packages if not find_spec(name)]
    if absent:
        raise UsageError(f'{purpose} needs {", ".join(absent)}: pip install -e ".[{extra}]"')


def _refuse_folder(output: str | None, example: str) -> None:
    if output is not None and Path(output).expanduser().is_dir():
        raise UsageError(f"output={output} is a folder: give a file such as {example}")
