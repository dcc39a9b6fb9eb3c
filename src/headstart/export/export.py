"""A trained run as one file that works without Headstart, checked against its checkpoint before it is there."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from headstart.cli.choices import FORMATS
from headstart.errors import UsageError
from headstart.export import onnx_file, safetensors_file, torch_files
from headstart.export.held_out import HeldOut, held_out
from headstart.export.metadata import facts
from headstart.export.parity import Parity, Run, compare, seconds
from headstart.export.quantization import quantize
from headstart.export.resizing import ResizingClassifier
from headstart.files import as_json, replacing
from headstart.inference.classifier import Classifier
from headstart.tasks import checkpoint

log = logging.getLogger(__name__)
WRITE = {
    "onnx": onnx_file.write,
    "torch_export": torch_files.write_exported,
    "torchscript": torch_files.write_scripted,
    "safetensors": safetensors_file.write,
}
LOAD = {
    "onnx": onnx_file.load,
    "torch_export": torch_files.load_exported,
    "torchscript": torch_files.load_scripted,
    "safetensors": safetensors_file.load,
}
PICTURES = 200  # to compare, where it is not said how many
CALIBRATION = 128  # pictures that scale int8 activations
THROUGHPUT = 32  # pictures in the larger of the two batches that are timed


class ExportFailed(Exception):  # noqa: N818 - no mistake to mend by typing something else
    """The file does not give what the checkpoint gives."""


def export(cfg: DictConfig, path: Path) -> dict[str, Any]:
    """Writes the file `cfg.output` and, beside it, `<output>.json` with all that is needed to use it.

    Returns:
        what that JSON holds.

    Raises:
        ExportFailed: probabilities differ by more than `cfg.tolerance`, or int8 costs more than
            `cfg.max_accuracy_loss`. Then there is no such file.
        UsageError: the run cannot be exported like this.
    """
    task, trained = checkpoint.load_task(path)
    classifier = Classifier(task)
    inside = cfg.resize == "inside" and cfg.format != "safetensors"
    count = cfg.pictures or (10**9 if cfg.quantize else PICTURES)
    pictures = held_out(trained, cfg.data, path, task, count)
    if cfg.quantize and not pictures.real:
        raise UsageError(f"quantize={cfg.quantize} needs pictures of the run: give data.root=<folder>")
    target = output_file(cfg, path)
    about = facts(classifier, trained, path, cfg.format, inside) | {"quantize": cfg.quantize}
    with scratch_folder(target) as scratch:
        file = Path(scratch) / target.name
        write(cfg, classifier, inside, file, about, pictures)
        exported, reference = prepared(LOAD[cfg.format](file, classifier), classifier, inside), whole(classifier)
        parity = check(reference, exported, pictures, classifier.objective.multi_label)
        about["parity"] = asdict(parity) | {"pictures_are": "val split" if pictures.real else "generated"}
        refuse_difference(cfg, parity)
        about["speed"] = speed(reference, exported, next(iter(pictures)))
        keep(file, target, about)
    tell(target, about)
    return about


@contextmanager
def scratch_folder(target: Path) -> Iterator[str]:
    """A folder beside the file that is to be, for what is not checked yet.

    Raises:
        UsageError: nothing can be written there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-")
    except OSError as error:
        raise UsageError(f"output={target} cannot be written: {error.strerror or error}") from error
    with folder as name:
        yield name


def output_file(cfg: DictConfig, path: Path) -> Path:
    """As asked; else in the `export` folder of the run, or beside a checkpoint that is in none."""
    if cfg.output is not None:
        return Path(cfg.output).expanduser()
    home = path.parent.parent if (path.parent.parent / "config.yaml").is_file() else path.parent
    return home / "export" / f"{path.stem}{'_' + cfg.quantize if cfg.quantize else ''}{FORMATS[cfg.format]}"


def write(
    cfg: DictConfig, classifier: Classifier, inside: bool, file: Path, about: dict[str, Any], pictures: HeldOut
) -> None:
    """Writes the file, quantized if it is to be."""
    size = classifier.preprocess.image_size
    model: nn.Module = ResizingClassifier(classifier) if inside else classifier
    # no two sizes alike, for what is alike in the example an export takes to be so always
    sides = (size + 33, size + 66) if inside else (size, size)
    example = torch.zeros(2, 3, *sides, dtype=torch.uint8)
    dim = torch.export.Dim
    dynamic = {0: dim("batch", min=1)}
    if inside:
        dynamic |= {2: dim("height", min=1), 3: dim("width", min=1)}
    with torch.no_grad():
        WRITE[cfg.format](model.eval(), example, dynamic, file, about)
    if cfg.quantize:
        exact = file.rename(file.with_name("exact.onnx"))
        quantize(exact, file, calibration(pictures, classifier, inside))
        onnx_file.replace_facts(file, about)


def calibration(pictures: HeldOut, classifier: Classifier, inside: bool) -> Iterator[Tensor]:
    """Batches of one training picture, as the network takes them; of val where there are none."""
    assert pictures.data is not None
    split = "train" if pictures.data.num_samples["train"] else "val"
    total = pictures.data.num_samples[split]
    count = min(CALIBRATION, total)
    for picture in pictures.of(split, [index * total // count for index in range(count)]):
        yield (picture if inside else classifier.preprocess(picture))[None]


def whole(classifier: Classifier) -> Run:
    """The checkpoint's own way from decoded pictures to probabilities."""
    return lambda pictures: classifier(torch.stack([classifier.preprocess(picture) for picture in pictures]))


def prepared(run: Run, classifier: Classifier, inside: bool) -> Run:
    """The export's way from decoded pictures to probabilities."""
    if inside:
        return run
    return lambda pictures: run(torch.stack([classifier.preprocess(picture) for picture in pictures]))


def check(reference: Run, exported: Run, pictures: HeldOut, several: bool) -> Parity:
    """Compares both on all the pictures."""
    return compare(reference, exported, pictures, pictures.targets() if pictures.real else None, several)


def refuse_difference(cfg: DictConfig, parity: Parity) -> None:
    """Raises ExportFailed above the tolerance; int8 is measured by what it costs."""
    if cfg.quantize:
        before, after = parity.accuracy.values()
        if not before - after <= cfg.max_accuracy_loss:
            raise ExportFailed(
                f"with {cfg.quantize} the accuracy on {parity.pictures} pictures of val is {after:.4f} instead of "
                f"{before:.4f}: more is lost than max_accuracy_loss={cfg.max_accuracy_loss}"
            )
    elif not parity.largest <= cfg.tolerance:
        raise ExportFailed(
            f"on {parity.pictures} pictures the probabilities of the file differ from those of the checkpoint by up to "
            f"{parity.largest:.2g}: more than tolerance={cfg.tolerance}. If it is the resize that differs, "
            "resize=outside leaves it out"
        )


def speed(reference: Run, exported: Run, picture: Tensor) -> dict[str, Any]:
    """Medians from a decoded picture, or many, to probabilities; of the checkpoint in torch as well."""
    runs = {"export": exported, "checkpoint": reference}
    one, many = (seconds(runs, picture.expand(n, -1, -1, -1).contiguous()) for n in (1, THROUGHPUT))
    return {
        "picture": list(picture.shape[1:]),
        "threads": torch.get_num_threads(),
        "milliseconds_for_1": {name: round(1000 * value, 2) for name, value in one.items()},
        f"pictures_a_second_of_{THROUGHPUT}": {name: round(THROUGHPUT / value, 1) for name, value in many.items()},
    }


def keep(file: Path, target: Path, about: dict[str, Any]) -> None:
    """Puts the file and its description in their places, the description last."""
    with replacing(target, binary=True) as stream, file.open("rb") as written:
        shutil.copyfileobj(written, stream)
    with replacing(target.with_name(f"{target.name}.json")) as stream:
        stream.write(as_json(about))


def tell(target: Path, about: dict[str, Any]) -> None:
    """Prints what was measured as `name: value`."""
    parity, times = about["parity"], about["speed"]
    one, many = times["milliseconds_for_1"], times[f"pictures_a_second_of_{THROUGHPUT}"]
    print(f"file: {target} ({target.stat().st_size / 1e6:.1f} MB)")
    print(f"resize and crop: {about['resize']}")
    print(f"compared with the checkpoint: {parity['pictures']} pictures ({parity['pictures_are']})")
    print(f"largest difference of a probability: {parity['largest']:.2g}")
    print(f"top-1 agreement: {parity['agreement']:.4f}")
    if parity["accuracy"]:
        before, after = parity["accuracy"].values()
        print(f"accuracy on them: {after:.4f}, of the checkpoint {before:.4f}")
    height, width = times["picture"]
    print(
        f"one picture of {width} x {height}: {one['export']} ms, checkpoint in torch {one['checkpoint']} ms (medians)"
    )
    print(
        f"batches of {THROUGHPUT}: {many['export']} pictures a second, checkpoint in torch {many['checkpoint']} "
        f"(medians, {times['threads']} threads)"
    )
    print(f"how to use it: {target}.json")
