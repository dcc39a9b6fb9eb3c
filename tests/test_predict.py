"""Predictions through the function the entry point calls, and as processes."""

import csv
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from terminal import Terminal
from tqdm import std as tqdm_module

from headstart.cli.conf_files import CONF
from headstart.data.trained_run import load_data
from headstart.inference.predict import Tally, opened, predict
from headstart.inputs.images.decode import read_picture
from headstart.runs.directory import find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.run import train

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of several sizes, one of them turned by its EXIF, and two files that are none."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(9):
        noise = Image.effect_noise((20 + 3 * index, 24), 90).convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = 6 if index == 4 else 1
        noise.save(pictures / f"{index}.jpg", exif=exif)
    (pictures / "3b.jpg").write_bytes((pictures / "3.jpg").read_bytes()[:300])
    (pictures / "9.png").write_text("no picture")
    return pictures


def predicted(run, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("predict", [f"run={run}", "trainer.accelerator=cpu", *overrides])
        return predict(cfg, find_checkpoint(cfg.run, cfg.checkpoint))


def rows(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def expected(run, folder):
    """Probabilities of each readable picture, one at a time, by the checkpoint's own network."""
    task, _ = checkpoint.load_task(run / "checkpoints/best.ckpt")
    preprocess = task.backbone.preprocess
    with torch.no_grad():
        return {
            str(path): task.predict_step(preprocess(read_picture(path, preprocess.decode_side))[None], 0)[0]
            for path in sorted(folder.glob("?.jpg"))
        }


@pytest.mark.parametrize(
    "overrides",
    [["data.num_classes=3"], ["task=binary"], ["task=multilabel", "data.multi_label=true", "data.num_classes=3"]],
    ids=["softmax", "binary", "multilabel"],
)
def test_rows_are_the_networks_own_answers_in_order(overrides, trained, folder, tmp_path):
    run = trained(*overrides)
    assert predicted(run, f"input={folder}", f"output={tmp_path}/out.jsonl", "batch_size=4")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [Path(row["file"]).name for row in found] == [
        "0.jpg", "1.jpg", "2.jpg", "3.jpg", "3b.jpg", "4.jpg", "5.jpg", "6.jpg", "7.jpg", "8.jpg", "9.png",
    ]  # fmt: skip
    truth = expected(run, folder)
    for row in found:
        if row["file"] not in truth:
            assert row["predictions"] == []
            assert row["error"] in ("truncated", "not a picture (text?)")
            continue
        by_class = {p["class"]: p["probability"] for p in row["predictions"]}
        values = truth[row["file"]].tolist()
        assert by_class == pytest.approx({f"class_{c}": value for c, value in enumerate(values)}, abs=1e-5)
        told = [p["probability"] for p in row["predictions"]]
        assert told == sorted(told, reverse=True)
        if "task=multilabel" not in overrides:
            assert sum(told) == pytest.approx(1, abs=1e-5)
            assert "labels" not in row
        else:
            assert row["labels"] == [f"class_{c}" for c, value in enumerate(values) if value > 0.5]


def test_top_k_formats_and_the_ending_of_the_output(trained, folder, tmp_path):
    run = trained("data.num_classes=3")
    assert predicted(run, f"input={folder}", f"output={tmp_path}/new/out.csv", "top_k=2")
    first = rows(tmp_path / "new/out.csv")[0]
    assert list(first) == ["file", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert predicted(run, f"input={folder}", f"output={tmp_path}/out.dat", "format=json")
    assert len(json.loads((tmp_path / "out.dat").read_text())[0]["predictions"]) == 3


def test_rows_name_the_labels_above_their_thresholds(trained, folder, tmp_path):
    run = trained("task=multilabel", "data.multi_label=true", "data.num_classes=3")
    checkpoint.keep_thresholds(run / "checkpoints/best.ckpt", [0.0, 1.0, 0.0])
    assert predicted(run, f"input={folder}", f"output={tmp_path}/out.csv", "top_k=1")
    found = rows(tmp_path / "out.csv")
    assert list(found[0]) == ["file", "labels", "class_1", "probability_1", "error"]
    assert {row["labels"] for row in found} == {"class_0|class_2", ""}
    assert all(bool(row["labels"]) != bool(row["error"]) for row in found)


def test_the_batch_size_changes_nothing(trained, folder, tmp_path):
    run = trained()
    for size in (1, 4, 100):
        predicted(run, f"input={folder}", f"output={tmp_path}/{size}.csv", f"batch_size={size}")
    first, *others = (rows(tmp_path / f"{size}.csv") for size in (1, 4, 100))
    for other in others:
        assert [row["class_1"] for row in other] == [row["class_1"] for row in first]


def test_nothing_readable_is_a_failure_and_every_reason_is_written(trained, tmp_path):
    run = trained()
    (tmp_path / "bad").mkdir()
    for index in range(15):
        (tmp_path / "bad" / f"{index:02d}.jpg").write_bytes(b"")
    assert not predicted(run, f"input={tmp_path}/bad", f"output={tmp_path}/out.csv")
    assert [row["error"] for row in rows(tmp_path / "out.csv")] == ["empty file"] * 15


@pytest.fixture
def terminal_on_stderr(monkeypatch):
    """To be called in the test itself: pytest replaces `sys.stderr` between fixtures and the test."""

    def replace() -> Terminal:
        seconds = itertools.count()
        monkeypatch.setattr(tqdm_module, "time", lambda: float(next(seconds)))  # every step is drawn
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        return terminal

    return replace


def test_the_bar_counts_unreadable_files_and_is_gone_before_the_summary(
    trained, folder, tmp_path, monkeypatch, terminal_on_stderr
):
    run = trained()
    terminal = terminal_on_stderr()
    monkeypatch.setattr(Tally, "log_summary", lambda tally: terminal.write("summary"))
    predicted(run, f"input={folder}", f"output={tmp_path}/out.csv", "batch_size=1")
    assert "11/11" in terminal.getvalue()
    assert "2 unreadable" in terminal.getvalue()
    assert terminal.screen() == ["summary"]


def test_no_bar_where_rows_are_shown(trained, folder, monkeypatch, capfd, terminal_on_stderr):
    run = trained()
    terminal = terminal_on_stderr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    capfd.readouterr()
    predicted(run, f"input={folder}", "batch_size=1")
    assert len(capfd.readouterr().out.splitlines()) == 12
    assert terminal.getvalue() == ""


def test_a_terminal_gets_no_control_characters(monkeypatch):
    """A file keeps them."""
    screen, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with opened(None) as stream:
            stream.write("a\x1b[2J,\udcff\n")
        assert os.read(screen, 100) == b"a?[2J,?\r\n"
        stdout.write("still open")
    os.close(screen)


def test_a_file_keeps_the_bytes_of_names(tmp_path):
    with opened(str(tmp_path / "out.csv")) as stream:
        stream.write("a\x1b[2J,\udcff\r\n")
    assert (tmp_path / "out.csv").read_bytes() == b"a\x1b[2J,\xff\r\n"


def shell(*arguments, **options):
    return subprocess.run(
        [sys.executable, "src/predict.py", *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.slow
def test_as_a_process(trained, folder, tmp_path):
    run = trained()
    done = shell(f"run={run}", "input=-", input=f"{folder}/0.jpg\n{folder}/gone.jpg\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "file,class_1,probability_1,class_2,probability_2,error"
    assert lines[1].startswith(f"{folder}/0.jpg,class_")
    assert lines[2] == f"{folder}/gone.jpg,,,,,cannot be opened (No such file or directory)"
    assert "1 of 2 files cannot be read:\n  " in done.stderr
    alone = shell(f"run={run}", f"input={folder}/9.png")
    assert alone.returncode == 1
    assert "not a picture (text?)" in alone.stdout
    assert "Traceback" not in alone.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_whole_rows(sent, code, trained, folder, tmp_path):
    run = trained()
    output = tmp_path / "out.json"
    process = subprocess.Popen(
        [sys.executable, "src/predict.py", f"run={run}", "input=-", f"output={output}", "batch_size=1"],
        cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdin.write(f"{folder}/0.jpg\n" * 5)
    process.stdin.flush()
    end = time.monotonic() + 60
    while time.monotonic() < end and not (output.exists() and output.read_text().count("0.jpg") == 5):
        time.sleep(0.05)
    os.kill(process.pid, sent)  # while it waits for the next name
    assert process.wait(30) == code, process.stderr.read()
    assert len(json.loads(output.read_text())) == 5
    process.stdin.close()
    process.stderr.close()


def test_12_bit_pictures_are_read_alike_in_training_and_prediction(composed, tmp_path, caplog):
    random = np.random.default_rng(0)
    for name, most in (("dark", 1500), ("bright", 4095)):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for number in range(8):
            values = random.integers(0, most, (16, 16), endpoint=True).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / "scans" / name / f"{number}.png")
    cfg = composed(
        "data=image_folder", f"data.root={tmp_path / 'scans'}", "trainer=cpu", "trainer.max_epochs=1",
        "model.image_size=16", "trainer.enable_progress_bar=false", "finetuning=full",
    )  # fmt: skip
    train(cfg)
    assert "the 16-bit grey pictures use only 12 bits: their value 4095 becomes white" in caplog.text
    task, trained = checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    preprocess = task.backbone.preprocess
    data = load_data(trained.data, task.classes, preprocess, "test")
    for index in data.splits["test"]:
        file = tmp_path / "scans" / data.samples.names[index]
        assert torch.equal(preprocess.read(str(file)), data.samples.load(index))
        assert preprocess.read(str(file)).max() > 80
