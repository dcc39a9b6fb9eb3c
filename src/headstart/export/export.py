"""Exports a trained run as one file that works without Headstart, after a comparison with its checkpoint."""

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
from torch import nn

from headstart.errors import Failure, UsageError, counted
from headstart.export import onnx_file, safetensors_file, torch_files
from headstart.export.metadata import metadata
from headstart.export.network import WithPreprocessing
from headstart.export.parity import Answer, Parity, compare, seconds
from headstart.export.parity_samples import ParitySamples, evenly_spaced, parity_samples
from headstart.export.quantization import quantize
from headstart.files import as_json, replacing
from headstart.inference.classifier import Classifier
from headstart.runs.directory import EXPORT_ENDINGS, Run
from headstart.runs.places import check_links
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
SAMPLES = 200  # number of compared samples, if the command line gives none
CALIBRATION = 128  # samples that the scales of int8 activations are measured on
THROUGHPUT = 32  # size of the larger of the two timed batches
EXACT = "exact.onnx"  # the float file that int8 is made from
LARGE_DIFFERENCE = 0.1  # of a probability, or in standard deviations of a number; above it, int8 gets a remark


class ExportFailed(Failure):
    """The file does not give the same predictions as the checkpoint."""


def export(cfg: DictConfig, path: Path) -> dict[str, Any]:
    """Writes the file `cfg.output`, and next to it `<output>.json` with everything that is needed to use it.

    Returns:
        the content of the JSON file.

    Raises:
        ExportFailed: answers differ by more than `cfg.tolerance`, or int8 costs more than
            `cfg.max_accuracy_loss`. In this case no file is written.
        UsageError: the run cannot be exported with these settings.
    """
    run = Run.of(path)
    if run is not None:
        check_links(run.folder)
    task, trained = checkpoint.load_task(path)
    classifier = Classifier(task)
    inside = cfg.format != "safetensors" and cfg.resize == "inside"
    preprocessing = classifier.preprocess.as_module() if inside else None
    count = cfg.pictures or (10**9 if cfg.quantize else SAMPLES)
    samples = parity_samples(trained, cfg.data, path, task, count)
    if cfg.quantize and not samples.real:
        raise UsageError(f"quantize={cfg.quantize} needs the data of the run: give data.root=<folder>")
    target = output_file(cfg, path)
    about = metadata(classifier, trained, path, cfg.format, preprocessing is not None) | {"quantize": cfg.quantize}
    beside = {f"{target.name}.{name}": content for name, content in classifier.preprocess.files_beside().items()}
    about["files"] = list(beside)
    name = classifier.preprocess.sample_name
    with scratch_folder(target) as scratch:
        file = Path(scratch) / target.name
        log.info("exporting the network as %s", cfg.format)
        write(cfg, classifier, preprocessing, file, about, samples)
        exported = on_raw(LOAD[cfg.format](file, classifier), classifier, preprocessing is not None)
        reference = on_raw(classifier, classifier, raw=False)
        log.info("comparing file and checkpoint on %s", counted(len(samples), name))
        parity = check(reference, exported, samples, classifier)
        about["parity"] = asdict(parity) | {"samples_are": f"{samples.split} split" if samples.real else "generated"}
        refuse_difference(cfg, parity)
        log.info("measuring their speed")
        answers = {"export": exported, "checkpoint": reference}
        if cfg.quantize:
            exact = LOAD[cfg.format](file.with_name(EXACT), classifier)
            answers["float"] = on_raw(exact, classifier, preprocessing is not None)
        about["speed"] = speed(answers, next(iter(samples)))
        about["remarks"] = remarks(parity, about["speed"], name) if cfg.quantize else []
        keep(file, target, about, beside)
    print_summary(target, about, name)
    return about


@contextmanager
def scratch_folder(target: Path) -> Iterator[str]:
    """A temporary folder next to the target, for the file before it is checked.

    Raises:
        UsageError: the folder of the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-")
    except OSError as error:
        raise UsageError(f"output={target} cannot be written: {error.strerror or error}") from error
    with folder as name:
        yield name


def output_file(cfg: DictConfig, path: Path) -> Path:
    """`cfg.output`, or a file in the `export` folder of the run (next to a checkpoint that is not in a run)."""
    if cfg.output is not None:
        return Path(cfg.output).expanduser()
    run = Run.of(path) or Run(path.parent)
    return run.export_folder / f"{path.stem}{'_' + cfg.quantize if cfg.quantize else ''}{EXPORT_ENDINGS[cfg.format]}"


def write(
    cfg: DictConfig, classifier: Classifier, preprocessing: nn.Module | None, file: Path, about: dict[str, Any],
    samples: ParitySamples,
) -> None:  # fmt: skip
    """Writes the file, quantized if `cfg.quantize`."""
    model = classifier if preprocessing is None else WithPreprocessing(preprocessing, classifier)
    example, axes = classifier.preprocess.export_example(raw=preprocessing is not None)
    with torch.no_grad():
        WRITE[cfg.format](model.eval(), example, axes, file, about)
    if cfg.quantize:
        log.info("quantizing it: the scales are measured on up to %d samples", CALIBRATION)
        exact = file.rename(file.with_name(EXACT))
        raw = calibration(samples)
        single = raw if preprocessing is not None else map(classifier.preprocess, raw)
        batches = (classifier.preprocess.collate([sample]) for sample in single)
        quantize(exact, file, batches, about["input"]["name"])
        onnx_file.replace_metadata(file, about)


def calibration(samples: ParitySamples) -> Iterator[Any]:
    """Raw training samples, evenly spaced; validation samples if there are no training samples."""
    assert samples.data is not None
    split = "train" if samples.data.num_samples["train"] else "val"
    return samples.of(split, evenly_spaced(samples.data.num_samples[split], CALIBRATION))


def on_raw(network: Any, classifier: Classifier, raw: bool) -> Answer:
    """A network as a function of raw samples; `raw`: the network itself does the preprocessing."""
    preprocess = classifier.preprocess
    if raw:
        return lambda samples: network(preprocess.collate(samples))
    return lambda samples: network(preprocess.collate([preprocess(sample) for sample in samples]))


def check(reference: Answer, exported: Answer, samples: ParitySamples, classifier: Classifier) -> Parity:
    """Compares checkpoint and export on all samples."""
    targets = samples.targets() if samples.real else None
    meaning = classifier.objective
    return compare(
        reference, exported, samples, classifier.preprocess.companion, targets, meaning.multi_label, meaning.thresholds,
        meaning.answer_sizes(),
    )  # fmt: skip


def refuse_difference(cfg: DictConfig, parity: Parity) -> None:
    """Raises ExportFailed if probabilities (for int8: accuracies) differ by more than the limit."""
    if cfg.quantize:
        name, (before, after) = _score(asdict(parity))
        if not before - after <= cfg.max_accuracy_loss:
            raise ExportFailed(
                f"with {cfg.quantize} the {name} on {parity.samples} samples of val is {after:.4f} instead of "
                f"{before:.4f}; the loss is more than max_accuracy_loss={cfg.max_accuracy_loss}. "
                "No file was written"
            )
    elif not parity.largest <= cfg.tolerance:
        raise ExportFailed(
            f"on {parity.samples} samples the {parity.answers} of file and checkpoint differ by up to "
            f"{parity.largest:.2g}{_unit(asdict(parity))}, more than tolerance={cfg.tolerance}. If the resize causes "
            "this, export without it: resize=outside. No file was written"
        )


def _score(parity: dict[str, Any]) -> tuple[str, list[float]]:
    """The name of the score on samples with labels, and its value for checkpoint and export."""
    return ("R2", list(parity["r2"].values())) if parity["r2"] else ("accuracy", list(parity["accuracy"].values()))


def _unit(parity: dict[str, Any]) -> str:
    """The unit of the differences, in words."""
    return "" if parity["agreement"] is not None else " standard deviations of the number in training"


def speed(answers: dict[str, Answer], sample: Any) -> dict[str, Any]:
    """Median times from raw samples to answers, of the export and of the checkpoint in torch; for int8 of `float`, too.

    `float` is the export without quantization.
    """
    one, many = (seconds(answers, [sample] * number) for number in (1, THROUGHPUT))
    return {
        "sample": list(getattr(sample, "shape", [])[1:]),
        "threads": torch.get_num_threads(),
        "milliseconds_for_1": {name: round(1000 * value, 2) for name, value in one.items()},
        f"samples_per_second_of_{THROUGHPUT}": {name: round(THROUGHPUT / value, 1) for name, value in many.items()},
    }


def remarks(parity: Parity, times: dict[str, Any], name: str) -> list[str]:
    """Sentences about int8 that changes the answers much, or is not faster; `name`: the word for one sample."""
    found = []
    if not parity.largest <= LARGE_DIFFERENCE:
        changed = "" if parity.agreement is None else (
            f", and {round((1 - parity.agreement) * parity.samples)} of {parity.samples} {name}s get another answer"
        )  # fmt: skip
        found.append(
            f"int8 changes {parity.answers} by up to {parity.largest:.2g}{_unit(asdict(parity))}{changed}: use "
            "the float file where these matter"
        )
    one, many = times["milliseconds_for_1"], times[f"samples_per_second_of_{THROUGHPUT}"]
    if one["export"] >= one["float"] or many["export"] <= many["float"]:
        found.append(
            f"int8 is not faster on this machine: one {name} {one['export']} ms, float file {one['float']} ms; batches "
            f"of {THROUGHPUT} {many['export']} per second, float file {many['float']}. It is only smaller; processors "
            "with int8 instructions (VNNI) are faster with it"
        )
    return found


def keep(file: Path, target: Path, about: dict[str, Any], beside: dict[str, str]) -> None:
    """Moves the file to its place, then writes the files that it needs (name -> content) and its description."""
    with replacing(target, binary=True) as stream, file.open("rb") as written:
        shutil.copyfileobj(written, stream)
    for name, content in beside.items():
        with replacing(target.with_name(name)) as stream:
            stream.write(content)
    with replacing(target.with_name(f"{target.name}.json")) as stream:
        stream.write(as_json(about))


def print_summary(target: Path, about: dict[str, Any], name: str) -> None:
    """Prints the measurements as `name: value`; `name` is the word for one sample."""
    parity, times = about["parity"], about["speed"]
    one, many = times["milliseconds_for_1"], times[f"samples_per_second_of_{THROUGHPUT}"]
    print(f"file: {target} ({target.stat().st_size / 1e6:.1f} MB)")
    if about["files"]:
        print(f"needed with it: {', '.join(about['files'])}")
    else:
        print(f"resize and crop: {about['resize']}")
    print(f"compared with the checkpoint: {parity['samples']} {name}s ({parity['samples_are']})")
    kind = "probability" if parity["agreement"] is not None else "number"
    print(f"largest difference of a {kind}: {parity['largest']:.2g}{_unit(parity)}")
    if parity["agreement"] is not None:
        print(f"top-1 agreement: {parity['agreement']:.4f}")
    if parity["accuracy"] or parity["r2"]:
        score, (before, after) = _score(parity)
        print(f"{score} on them: {after:.4f}, of the checkpoint {before:.4f}")
    size = f" of {' x '.join(map(str, reversed(times['sample'])))}" if times["sample"] else ""
    print(f"one {name}{size}: {one['export']} ms, checkpoint in torch {one['checkpoint']} ms (medians)")
    print(
        f"batches of {THROUGHPUT}: {many['export']} {name}s per second, checkpoint in torch {many['checkpoint']} "
        f"(medians, {counted(times['threads'], 'thread')})"
    )
    for remark in about["remarks"]:
        print(f"NOTE: {remark}")
    print(f"how to use it: {target}.json")
