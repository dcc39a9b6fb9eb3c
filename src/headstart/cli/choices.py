"""What may be asked of the entry points that take a trained run, checked before torch is loaded."""

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from headstart.errors import UsageError, nearest

RUN = "run directory, checkpoint or last"
SPLITS = ("train", "val", "test")
ROWS = ("csv", "json", "jsonl")
FORMATS = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".pt", "safetensors": ".safetensors"}
"""What a model can be exported as, and how its file ends."""
RESIZES = ("inside", "outside")
QUANTIZATIONS = ("int8",)


def check_evaluate(cfg: DictConfig) -> None:
    """Raises a UsageError for what cannot be asked, whatever the run is."""
    _given(cfg, run=RUN)
    _one_of("split", cfg.split, SPLITS)


def check_predict(cfg: DictConfig) -> None:
    """Raises a UsageError for what cannot be asked, whatever the run and the pictures are."""
    _given(cfg, run=RUN, input="picture, folder, pattern, or - for names on standard input")
    _one_of("format", cfg.format, (None, *ROWS))
    _at_least_one("top_k", cfg.top_k)
    _at_least_one("batch_size", cfg.batch_size)
    if cfg.num_workers is not None and cfg.num_workers < 0:
        raise UsageError(f"num_workers={cfg.num_workers}: give a whole number of at least 0, or null")
    _refuse_folder(cfg.output, "a file such as predictions.csv")
    if cfg.output is not None and cfg.format is None and Path(cfg.output).suffix[1:].lower() not in ROWS:
        endings = ", ".join(f".{name}" for name in ROWS)
        raise UsageError(f"output={cfg.output} ends in none of {endings}: add format=<one of {', '.join(ROWS)}>")


def row_format(form: str | None, output: str | None) -> str:
    """The format of the rows: as asked, else by the ending of the file, else CSV."""
    return form or (Path(output).suffix[1:].lower() if output else ROWS[0])


def check_export(cfg: DictConfig) -> None:
    """Raises a UsageError for what cannot be asked, whatever the run is."""
    _given(cfg, run=RUN, format=", ".join(FORMATS))
    _one_of("format", cfg.format, tuple(FORMATS))
    _one_of("resize", cfg.resize, RESIZES)
    _one_of("quantize", cfg.quantize, (None, *QUANTIZATIONS))
    _at_least_one("pictures", cfg.pictures)
    if cfg.quantize is not None and cfg.format != "onnx":
        raise UsageError(f"quantize={cfg.quantize} format={cfg.format}: only format=onnx can be quantized here")
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if cfg.format == "onnx" and not find_spec(name)]
    if absent:
        raise UsageError(f'format=onnx needs {", ".join(absent)}: pip install -e ".[onnx]"')
    for key in ("tolerance", "max_accuracy_loss"):
        if not 0 <= cfg[key] <= 1:
            raise UsageError(f"{key}={cfg[key]}: give a number from 0 to 1")
    _refuse_folder(cfg.output, f"a file such as model{FORMATS[cfg.format]}")


def check_report(cfg: DictConfig) -> None:
    """Raises a UsageError for what cannot be asked, whatever the run is."""
    _given(cfg, run="run directory or last")
    for key in ("examples", "worst"):
        if cfg[key] < 0:
            raise UsageError(f"{key}={cfg[key]}: give a number of pictures, 0 for none")


def check_serve(cfg: DictConfig) -> None:
    """Raises a UsageError for what cannot be asked, whatever the run is."""
    _given(cfg, run=RUN)
    _at_least_one("top_k", cfg.top_k)
    if not 0 <= cfg.port <= 65535:
        raise UsageError(f"port={cfg.port}: give a number from 0 to 65535")
    if cfg.max_mb <= 0:
        raise UsageError(f"max_mb={cfg.max_mb}: give a number above 0")
    _one_of("accelerator", cfg.accelerator, ("auto", "cpu", "gpu", "mps"))
    if absent := [name for name in ("fastapi", "uvicorn") if not find_spec(name)]:
        raise UsageError(f'serving needs {", ".join(absent)}: pip install -e ".[serve]"')


def _given(cfg: DictConfig, **needed: str) -> None:
    missing = [f"{key}=<{what}>" for key, what in needed.items() if OmegaConf.is_missing(cfg, key)]
    if missing:
        raise UsageError(f"add {' and '.join(missing)}")


def _one_of(key: str, given: str | None, allowed: tuple[str | None, ...]) -> None:
    if given not in allowed:
        names = [name for name in allowed if name is not None]
        raise UsageError(f"{key}={given}{nearest(str(given), names)}: choose one of {', '.join(names)}")


def _at_least_one(key: str, given: int | None) -> None:
    if given is not None and given < 1:
        raise UsageError(f"{key}={given}: give a whole number of at least 1")


def _refuse_folder(output: str | None, instead: str) -> None:
    if output is not None and Path(output).expanduser().is_dir():
        raise UsageError(f"output={output} is a folder: give {instead}")
