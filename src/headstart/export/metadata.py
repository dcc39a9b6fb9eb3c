"""The description of an export: everything that a user needs to know, as plain data."""

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from headstart.inference.classifier import Classifier
from headstart.inference.facts import known_metrics
from headstart.runs.directory import BEST, Run

PACKAGES = ("headstart", "torch", "torchvision", "onnx", "onnxruntime", "safetensors", "pillow")


def metadata(
    classifier: Classifier, trained: DictConfig, path: Path, form: str, preprocessing_inside: bool
) -> dict[str, Any]:
    """Classes, input, output, preprocessing, network, metrics and versions.

    Args:
        classifier: the exported model.
        trained: the config of its run.
        path: its checkpoint.
        form: the file format.
        preprocessing_inside: whether the preprocessing is part of the network.
    """
    description = classifier.preprocess.describe(raw=preprocessing_inside)
    constants = classifier.backbone.constants()
    only_weights = form == "safetensors"
    normalise = ["divide by 255, subtract the mean, divide by the std"] if only_weights and constants else []
    model = OmegaConf.to_container(trained.model, resolve=True)
    return {
        "format": form,
        **_names(classifier),
        "input": description["input"],
        "output": {
            "name": classifier.objective.answer_name,
            "type": "float32",
            "shape": ["batch", len(classifier.classes)],
        },
        "objective": type(classifier.objective).__name__,
        "resize": "inside" if preprocessing_inside else "outside",
        "preprocess": description["preprocess"] | constants,
        "to_be_done_before": description["steps_before"] + normalise,
        "to_be_done_after": _steps_after(classifier) if only_weights else [],
        "temperature": classifier.objective.temperature,
        "calibration": _calibration(classifier, path),
        "thresholds": classifier.objective.thresholds,
        "test_time": None if classifier.test_time is None else _function_of(classifier.test_time).__name__,
        "model": _shareable(model),
        "metrics": known_metrics(path),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
    }


def _names(classifier: Classifier) -> dict[str, Any]:
    """The names of the outputs: classes or numbers."""
    if classifier.objective.numbers:
        return {"numbers": classifier.classes, "units": "as in the training data"}
    return {"classes": classifier.classes, "several_labels": classifier.objective.multi_label}


def _shareable(model: dict[str, Any]) -> dict[str, Any]:
    """The settings of a network without paths of this machine and without `weights`, which others cannot use."""
    found = {key: value for key, value in model.items() if key != "weights"}
    name = found.get("name")
    return found | {"name": Path(name).name} if name and Path(name).expanduser().is_absolute() else found


def _function_of(test_time: Any) -> Any:
    return test_time.func if isinstance(test_time, partial) else test_time


def _steps_after(classifier: Classifier) -> list[str]:
    """The steps from logits to answers, for a file that holds only the weights."""
    versions = [] if classifier.test_time is None else [_function_of(classifier.test_time).words]
    return [*versions, *classifier.objective.steps_after()]


def _calibration(classifier: Classifier, path: Path) -> dict[str, Any] | None:
    """Where the temperature comes from, and the calibration error before and with it on each evaluated split.

    None for a model of numbers. An evaluation with another temperature does not count.
    """
    objective, run = classifier.objective, Run.of(path)
    if objective.numbers:
        return None
    errors = {}
    for split in ("val", "test"):
        known = run.evaluation(split) if run and path.name == BEST else None
        if known and known.get("temperature", 1.0) == objective.temperature:
            ece = known["ece"]
            after = ece.get("after", ece.get("all"))
            errors[split] = {"before": ece.get("before temperature", after), "after": after}
    fitted = "val, after training" if objective.temperature != 1 else None
    return {"temperature_fitted_on": fitted, "expected_calibration_error": errors}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
