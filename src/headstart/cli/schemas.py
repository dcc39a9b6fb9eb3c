"""The keys of every entry point's config and their types; Hydra refuses any other."""

from dataclasses import dataclass, field
from typing import Any, Union

from omegaconf import MISSING


@dataclass
class CacheConfig:
    """What is computed once and kept on disk; a part that is null is not kept."""

    max_gb: float = 20
    views: int | None = None
    activations: Any = None
    pictures: Any = None


@dataclass
class TrainConfig:
    """Every top-level key of `conf/train.yaml`; a misspelt one fails."""

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
    """What may differ from the run's data; null: as the run had it."""

    root: str | None = None
    batch_size: int | None = None
    num_workers: int | None = None


@dataclass
class OtherTrainer:
    """What may differ from the run's trainer; null: as the run had it."""

    accelerator: str | None = None
    precision: Any = None


@dataclass
class OfTrainedRun:
    """What every use of a trained run begins with."""

    run: str = MISSING
    checkpoint: str = "best"
    logs: str = MISSING


@dataclass
class EvaluateConfig(OfTrainedRun):
    """Every key of `conf/evaluate.yaml`."""

    split: str = "test"
    test_time_flip: bool | None = None
    calibrate: bool = False
    worst: int = 24
    explain: Union[bool, int] = False  # noqa: UP007 - of the newer spelling OmegaConf 2.3 knows nothing
    neighbours: Union[bool, int] = False  # noqa: UP007
    embedding: bool = False
    label_errors: bool = False
    data: OtherData = field(default_factory=OtherData)
    trainer: OtherTrainer = field(default_factory=OtherTrainer)


@dataclass
class PredictConfig(OfTrainedRun):
    """Every key of `conf/predict.yaml`."""

    input: str = MISSING
    top_k: int = 5
    format: str | None = None
    output: str | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    trainer: OtherTrainer = field(default_factory=OtherTrainer)


@dataclass
class ExportConfig(OfTrainedRun):
    """Every key of `conf/export.yaml`."""

    format: str = MISSING
    output: str | None = None
    resize: str = "inside"
    quantize: str | None = None
    pictures: int | None = None
    tolerance: float = 0.02
    max_accuracy_loss: float = 0.05
    data: OtherData = field(default_factory=OtherData)


@dataclass
class ServeConfig(OfTrainedRun):
    """Every key of `conf/serve.yaml`."""

    host: str = "127.0.0.1"
    port: int = 8000
    top_k: int = 5
    max_mb: float = 20
    accelerator: str = "auto"


@dataclass
class ReportConfig:
    """Every key of `conf/report.yaml`."""

    run: str = MISSING
    logs: str = MISSING
    examples: int = 4
    worst: int = 12
    license: str = "other"
    title: str | None = None


ROOTS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
    "report": ReportConfig,
}
