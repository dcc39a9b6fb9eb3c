"""What an export says about itself: everything that is needed to use it, as plain data."""

import json
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from headstart.inference.classifier import Classifier
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.tasks import checkpoint

PACKAGES = ("headstart", "torch", "torchvision", "onnx", "onnxruntime", "safetensors", "pillow")


def facts(classifier: Classifier, trained: DictConfig, path: Path, form: str, resize_inside: bool) -> dict[str, Any]:
    """Classes, input, output, preprocessing, network, metrics and versions.

    Args:
        classifier: what is exported.
        trained: the config of its run.
        path: its checkpoint.
        form: the format.
        resize_inside: whether the network takes pictures of any size.
    """
    backbone, preprocess = classifier.backbone, classifier.preprocess
    size = ["height", "width"] if resize_inside else [preprocess.image_size] * 2
    model = OmegaConf.to_container(trained.model, resolve=True)
    return {
        "format": form,
        "classes": classifier.classes,
        "input": {"name": "pictures", "type": "uint8", "shape": ["batch", 3, *size], "channels": "RGB, 0 to 255"},
        "output": {"name": "probabilities", "type": "float32", "shape": ["batch", len(classifier.classes)]},
        "several_labels": classifier.objective.multi_label,
        "objective": type(classifier.objective).__name__,
        "resize": "inside" if resize_inside else "outside",
        "preprocess": _preprocess(preprocess) | {"mean": _values(backbone.mean), "std": _values(backbone.std)},
        "to_be_done_before": _steps(preprocess, resize_inside, normalised=form != "safetensors"),
        "to_be_done_after": _steps_after(classifier) if form == "safetensors" else [],
        "temperature": classifier.objective.temperature,
        "test_time_flip": classifier.test_time_flip,
        # where the weights once came from is of no use, and may be a path
        "model": {key: value for key, value in model.items() if key != "weights"},
        "metrics": _metrics(path),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
    }


def _preprocess(preprocess: ImagePreprocess) -> dict[str, Any]:
    names = ("image_size", "resize_size", "interpolation", "resize_mode", "decode_side")
    return {name: getattr(preprocess, name) for name in names}


def _steps(preprocess: ImagePreprocess, resize_inside: bool, normalised: bool) -> list[str]:
    """What whoever uses the file has to do, in order and in words."""
    size, side, how = preprocess.image_size, preprocess.resize_size, f"antialiased {preprocess.interpolation}"
    steps = [
        f"a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size while its shorter side keeps {preprocess.decode_side} "
        "pixels, as it was in training",
        "turn the picture as its EXIF orientation says",
        "8-bit RGB: transparency on white, 16-bit grey divided by 257 and rounded, the first frame of several",
    ]
    if not resize_inside:
        steps += {
            "crop": [f"resize the shorter side to {side}, {how}", f"cut out the central {size} x {size} pixels"],
            "squash": [f"resize to {size} x {size} whatever the proportions, {how}"],
            "letterbox": [f"resize the longer side to {size}, {how}", f"fill up to {size} x {size} with black"],
        }[preprocess.resize_mode]
    if not normalised:
        steps.append("divide by 255, subtract the mean, divide by the std")
    return steps


def _steps_after(classifier: Classifier) -> list[str]:
    """What makes probabilities of the logits, which are all that weights alone give."""
    flip = ["take the mean of the logits of the picture and of its mirror image"] if classifier.test_time_flip else []
    temperature = classifier.objective.temperature
    divide = [f"divide the logits by the temperature {temperature}"] if temperature != 1 else []
    return [*flip, *divide, "softmax" if type(classifier.objective).__name__ == "Softmax" else "sigmoid"]


def _values(tensor: Any) -> list[float]:
    return [round(value, 6) for value in tensor.flatten().tolist()]


def _metrics(path: Path) -> dict[str, float]:
    """Those of the saved weights that are defined, and of the test after training where it was of these weights."""
    metrics = dict(checkpoint.read(path).get("metrics", {}))
    written = path.parent.parent / "metrics.json"
    if path.stem == "best" and written.is_file():
        content = json.loads(written.read_text(encoding="utf-8"))
        metrics |= {name: value for name, value in content.items() if name.startswith("test/")}
    known = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
    return {name: value for name, value in known.items() if name.startswith(("val/", "test/"))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
