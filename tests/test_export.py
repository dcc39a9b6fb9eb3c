"""Exports through the function the entry point calls; used by the example programs as separate processes."""

import csv
import importlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from headstart.cli.conf_files import CONF
from headstart.cli.run import TERMINATED, run_entry_point
from headstart.errors import UsageError
from headstart.export import export as exporting
from headstart.export.export import ExportFailed, export
from headstart.export.parity import Parity
from headstart.inference.predict import predict
from headstart.inputs.base import UnreadableInput
from headstart.inputs.images import decode
from headstart.inputs.images.decode import read_picture
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.runs.directory import find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.run import train

ROOT = Path(__file__).parents[1]
ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".pt", "safetensors": ".safetensors"}
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra onnx"
)
FORMATS = [pytest.param("onnx", marks=needs_onnx), "torch_export", "torchscript", "safetensors"]


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch):
    monkeypatch.setattr("headstart.export.parity.SECONDS", 0.0)


@pytest.fixture
def zoo(tmp_path):
    """Pictures of all the kinds that are read in a way of their own, and a file that is none."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    random = np.random.default_rng(0)
    noise = [random.normal(128, 30 * n, (61, 90)).clip(0, 255).astype(np.uint8) for n in (1, 3, 4)]
    grey, colour = Image.fromarray(noise[2]), Image.fromarray(np.dstack(noise))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        colour.save(folder / f"exif{orientation}.jpg", exif=exif)
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.resize((1800, 1220)).save(folder / "large.jpg")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 255 + 3).save(folder / "grey16.png")
    for mode in ("L", "LA", "P", "RGBA", "1"):
        picture = colour.convert(mode)
        if mode in ("LA", "RGBA"):
            picture.putalpha(grey)
        picture.save(folder / f"{mode}.png")
    colour.convert("P").save(folder / "palette.gif", transparency=3)
    colour.save(folder / "plain.webp", lossless=True)
    (folder / "text.jpg").write_text("no picture")
    return folder


def exported(run, form, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("export", [f"run={run}", f"format={form}", "pictures=5", *overrides])
        return export(cfg, find_checkpoint(cfg.run, cfg.checkpoint))


def predictions(run, folder, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "predict", [f"run={run}", f"input={folder}", f"output={tmp_path}/p.csv", "trainer.accelerator=cpu"]
        )
        assert predict(cfg, find_checkpoint(cfg.run))
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def used(script, model, files):
    """The rows of an example program, run away from this project."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, model, *files],
        cwd=Path(model).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def agree(ours, theirs, tolerance):
    assert [row["file"] for row in ours] == [row["file"] for row in theirs]
    assert len(ours) > 15
    for mine, other in zip(ours, theirs, strict=True):
        assert bool(mine["error"]) == bool(other["error"])
        if not mine["error"]:
            assert float(other["probability"]) == pytest.approx(float(mine["probability_1"]), abs=tolerance)
            assert other["class"] == mine["class_1"] or float(mine["probability_1"]) < 0.5 + tolerance


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("resize", ["inside", "outside"])
def test_the_file_alone_gives_what_the_checkpoint_gives(form, resize, trained, zoo, tmp_path, capsys):
    if form == "safetensors" and resize == "inside":
        pytest.skip("weights alone resize nothing")
    model = "model=resnet18" if form == "safetensors" else "model=tiny_resnet"
    run = trained("finetuning=scratch", model, "model.weights=null", "model.image_size=32")
    target = tmp_path / "elsewhere" / f"model{ENDINGS[form]}"
    exported(run, form, f"resize={resize}", f"output={target}")
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, f"{target.name}.json"]
    facts = json.loads(Path(f"{target}.json").read_text())
    assert facts["classes"] == ["class_0", "class_1"]
    assert facts["resize"] == resize
    assert facts["parity"]["samples"] == 5
    assert facts["parity"]["samples_are"] == "val split"
    assert facts["metrics"].keys() >= {"val/acc"}
    assert str(ROOT).encode() not in target.read_bytes()
    assert "largest difference of a probability: " in capsys.readouterr().out
    rows = predictions(run, zoo, tmp_path)
    script = "use_onnx.py" if form == "onnx" else "use_torch.py"
    agree(rows, used(script, target, [row["file"] for row in rows]), 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("form", [pytest.param("torchscript", marks=pytest.mark.exhaustive), "safetensors"])
def test_temperature_and_flips_go_along(form, trained, zoo, tmp_path):
    """For a file with only the weights, the description names these steps."""
    words = "finetuning=scratch", "model=resnet18", "model.weights=null", "model.image_size=32"
    run = trained(*words, "test_time=flip")
    checkpoint.keep_temperature(run / "checkpoints/best.ckpt", 0.2)
    about = exported(run, form)
    assert (about["temperature"], about["test_time"]) == (0.2, "with_mirror_image")
    rows = predictions(run, zoo, tmp_path)
    agree(rows, used("use_torch.py", run / f"export/best{ENDINGS[form]}", [row["file"] for row in rows]), 0.02)
    flip, divide = (
        "take the mean of the logits of the picture and of its mirror",
        "divide the logits by the temperature",
    )
    assert [step.startswith((flip, divide, "softmax")) for step in about["to_be_done_after"]] == [True] * (
        3 if form == "safetensors" else 0
    )


def test_a_checkpoint_may_lie_anywhere():
    cfg = OmegaConf.create({"output": None, "quantize": None, "format": "onnx"})
    assert exporting.output_file(cfg, Path("/best.ckpt")) == Path("/export/best.onnx")


@pytest.mark.parametrize("form", FORMATS[:1] + FORMATS[-1:])
def test_what_the_logits_mean_goes_along(form, trained, tmp_path):
    run = trained("task=multilabel", "data.multi_label=true", "data.num_classes=3")
    about = exported(run, form)
    assert about["several_labels"]
    assert about["thresholds"] == [0.5] * 3
    assert about["output"]["shape"] == ["batch", 3]
    assert (run / "export" / f"best{ENDINGS[form]}").is_file()


def test_one_sigmoid_unit_gives_both_classes(trained):
    run = trained("task=binary")
    assert exported(run, "torchscript")["output"]["shape"] == ["batch", 2]
    network = torch.jit.load(run / "export/best.pt")
    probabilities = network(torch.zeros(3, 3, 40, 50, dtype=torch.uint8))
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_a_file_that_answers_otherwise_is_not_kept(trained, monkeypatch):
    run = trained()

    def shifted(path, model):
        network = torch.jit.load(str(path))
        return lambda pictures: network(pictures).roll(1, dims=1)

    monkeypatch.setitem(exporting.LOAD, "torchscript", shifted)
    with pytest.raises(ExportFailed, match="the probabilities of file and checkpoint differ by up to"):
        exported(run, "torchscript")
    assert not list((run / "export").iterdir())


def test_where_nothing_can_be_written_is_told(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"output=.*file/model\.pt cannot be written: "):
        exported(trained(), "torchscript", f"output={tmp_path / 'file/model.pt'}")


def test_a_stop_leaves_no_litter(trained, monkeypatch):
    run = trained()
    monkeypatch.syspath_prepend(ROOT / "src")
    entry = importlib.import_module("export")
    monkeypatch.setattr(exporting, "check", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(sys, "argv", ["export.py", f"run={run}", "format=torchscript"])
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what would end the tests
    try:
        with pytest.raises(SystemExit) as leaving:
            run_entry_point(entry.main, "export")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert leaving.value.code == TERMINATED
    assert not list((run / "export").iterdir())


def test_generated_pictures_take_the_place_of_data_that_are_gone(trained, tmp_path, caplog):
    folder = tmp_path / "pictures"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(8):
            Image.effect_noise((40, 30), 60 + index).convert("RGB").save(folder / name / f"{index}.png")
    run = tmp_path / "run"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(compose("train", [
            f"paths.run={run}", "data=image_folder", f"data.root={folder}", "model.image_size=16", "trainer=cpu",
            "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "compare_scratch=false", "test=false",
        ]))  # fmt: skip
    # with few pictures nothing is held out for validation
    assert exported(run, "torchscript")["parity"]["samples_are"] == "train split"
    shutil.rmtree(folder)
    about = exported(run, "torchscript")
    assert "GENERATED pictures are compared instead" in caplog.text
    assert about["parity"]["samples_are"] == "generated"
    assert about["parity"]["accuracy"] is None
    with pytest.raises(UsageError, match="quantize=int8 needs the data of the run"):
        exported(run, "onnx", "quantize=int8")


@pytest.mark.slow
@needs_onnx
def test_int8_is_smaller_and_its_accuracy_is_told(trained):
    run = trained("data.num_samples=120", "trainer.max_epochs=2")
    exported(run, "onnx")
    about = exported(run, "onnx", "quantize=int8", "pictures=null", "max_accuracy_loss=1")
    sizes = [(run / "export" / name).stat().st_size for name in ("best.onnx", "best_int8.onnx")]
    assert sizes[1] < sizes[0] / 2
    assert about["parity"]["samples"] == 18  # all of val
    assert set(about["parity"]["accuracy"]) == {"checkpoint", "export"}
    assert about["parity"]["largest"] > 0
    assert set(about["speed"]["milliseconds_for_1"]) == {"export", "checkpoint", "float"}


SLOW = {"milliseconds_for_1": {"export": 12, "float": 10}, "samples_per_second_of_32": {"export": 80, "float": 90}}
FAST = {"milliseconds_for_1": {"export": 5, "float": 10}, "samples_per_second_of_32": {"export": 200, "float": 90}}


@pytest.mark.parametrize(("times", "largest", "told"), [
    (FAST, 0.05, []),
    (FAST, 0.58, ["int8 changes probabilities by up to 0.58, and 3 of 200 pictures get another answer: use th"]),
    (SLOW, 0.05, ["int8 is not faster on this machine: one picture 12 ms, float file 10 ms; batches of 32 80 per"]),
    (SLOW, float("nan"), ["int8 changes probabilities by up to nan", "int8 is not faster"]),
])  # fmt: skip
def test_int8_that_changes_much_or_is_not_faster_says_so(times, largest, told):
    found = exporting.remarks(Parity(largest, 0.985, 200, None), times, "picture")
    assert [remark[: len(words)] for remark, words in zip(found, told, strict=True)] == told


@pytest.mark.slow
@needs_onnx
def test_int8_that_costs_too_much_is_not_kept(trained, monkeypatch):
    run = trained("data.num_samples=120", "trainer.max_epochs=3")
    load = exporting.LOAD["onnx"]
    monkeypatch.setitem(exporting.LOAD, "onnx", lambda *given: lambda pictures: load(*given)(pictures).roll(1, dims=1))
    with pytest.raises(ExportFailed, match="with int8 the accuracy on 18 samples of val is"):
        exported(run, "onnx", "quantize=int8", "pictures=null")
    assert not list((run / "export").iterdir())


def copied():
    spec = importlib.util.spec_from_file_location("read_picture", ROOT / "scripts" / "read_picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["crop", "squash", "letterbox"])
def test_the_copied_rules_read_as_ours(mode, interpolation, zoo):
    preprocess = ImagePreprocess(56, 64, interpolation, mode)
    facts = {key: getattr(preprocess, key) for key in ("image_size", "resize_size", "interpolation", "resize_mode",
                                                       "decode_side", "grey_bits")}  # fmt: skip
    for path in zoo.iterdir():
        if path.suffix == ".jpg" and path.stem == "text":
            with pytest.raises(UnreadableInput):
                read_picture(path)
            with pytest.raises(OSError, match="cannot identify"):
                copied().read_picture(path, facts, resize=False)
            continue
        ours = read_picture(path, preprocess.decode_side)
        assert np.array_equal(copied().read_picture(path, facts, resize=False), ours.numpy()), path.name
        difference = copied().read_picture(path, facts, resize=True).astype(int) - preprocess(ours).numpy().astype(int)
        assert np.abs(difference).mean() < 0.5, path.name
        # on pure noise bicubic overshoots, which both cut off, but not at the same moment: some pixels differ by more
        assert np.quantile(np.abs(difference), 0.99 if interpolation == "bicubic" else 1) <= 2, path.name


def test_the_copied_rules_start_no_other_program():
    assert tuple(copied().FORMATS) == decode.FORMATS


def test_a_picture_that_is_too_large_is_one_unreadable_file(zoo, monkeypatch):
    """Pillow's error for it is of no common class."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="exceeds limit"):
        copied().read_picture(zoo / "cmyk.jpg", {"decode_side": 64, "grey_bits": 16}, resize=False)
