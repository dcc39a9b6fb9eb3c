"""`import headstart`: the whole way in one Python program, and exceptions instead of exit codes."""

import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

import headstart
from headstart.cli.conf_files import CONF
from headstart.inference.batches import batches

QUICK = {
    "data__num_samples": 80, "data__image_size": 16, "data__batch_size": 16, "model__image_size": 16, "trainer": "cpu",
    "trainer__precision": "32-true", "finetuning": "probe", "overrides": ["~experiment"],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run on pictures of files, in logs of its own."""
    folder = tmp_path_factory.mktemp("python")
    random = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 100, (24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
        patch.delenv("HEADSTART_LOGS", raising=False)
        patch.chdir(folder)
        return headstart.train(
            "pictures", finetuning="probe", model__image_size=24, trainer="cpu", trainer__precision="32-true"
        )


@pytest.mark.parametrize("named", [{"model": "tiny_resnet"}, {"model__weights": None}])
def test_a_network_that_was_named_is_no_surprise(run, named, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder.parents[3])
    monkeypatch.setenv("HEADSTART_LOGS", str(tmp_path))
    found = headstart.train(
        "pictures", finetuning="full", max_epochs=1, model__image_size=24, trainer="cpu", data__batch_size=8, **named
    )
    assert "for demonstrations" not in (found.folder / "train.log").read_text()


def pixels(run, name):
    return np.array(Image.open(run.folder.parents[3] / "pictures" / name))


def test_it_is_a_run_like_any_other(run):
    assert run.folder.parts[-4:-1] == ("logs", "train", "runs")
    log = (run.folder / "train.log").read_text()
    assert log.startswith("recipe: finetuning=probe")
    assert "model=tiny_resnet, the default, is a small network for demonstrations" in log
    assert "- data.root=pictures" in (run.folder / ".hydra/overrides.yaml").read_text()
    assert run.classes == ["blue", "red"]
    assert set(run.metrics) >= {"val/acc", "test/acc", "test/loss"}
    assert repr(run) == f"TrainedRun({str(run.path)!r}, val/acc=1.0000, test/acc=1.0000)"
    assert "val/acc" in run.history()


def test_files_pictures_and_arrays_give_the_same(run):
    file = run.folder.parents[3] / "pictures/red/3.png"
    array = pixels(run, "red/3.png")
    found = run.predict([str(file), file, Image.open(file), array, np.dstack([array, np.full((24, 24), 255, "uint8")])])
    assert found.classes == ["red"] * 5
    assert len({each["predictions"][0]["probability"] for each in found}) == 1
    assert [each["file"] for each in found] == [str(file), str(file), "[2]", "[3]", "[4]"]
    assert run.predict(array, top_k=1)[0]["predictions"] == found[0]["predictions"][:1]
    assert len(run.predict(np.stack([array, array]))) == 2
    assert len(run.predict(file.parent)) == 12


def test_only_many_files_are_loaded_by_other_processes(run, monkeypatch):
    """A script without `if __name__ == "__main__"` cannot start processes, where they are spawned."""
    asked = []

    def noted(samples, preprocess, size, workers):
        asked.append(workers)
        return batches(samples, preprocess, size, 0)

    monkeypatch.setattr("headstart.api.memory.batches", noted)
    folder = run.folder.parents[3] / "pictures"
    run.predict([folder / "red/3.png", folder / "red/4.png"])
    run.predict([pixels(run, "red/3.png")] * 3, batch_size=2)
    run.predict(folder, batch_size=4)
    run.predict(folder / "red/3.png", num_workers=1)
    assert asked == [0, 0, None, 1]


def test_the_same_as_the_command_writes(run, tmp_path):
    folder = run.folder.parents[3] / "pictures"
    command = [sys.executable, str(CONF.parent / "src/predict.py"), f"run={run.path}", f"input={folder}"]
    subprocess.run([*command, f"output={tmp_path / 'p.csv'}"], check=True, capture_output=True)
    run.predict(folder).to_pandas().to_csv(tmp_path / "q.csv", index=False, float_format="%.6g")
    assert (tmp_path / "q.csv").read_text() == (tmp_path / "p.csv").read_text()


def test_a_picture_in_memory_is_not_changed_and_is_turned_upright(run):
    picture = Image.fromarray(pixels(run, "red/3.png"))
    picture.getexif()[0x0112] = 6
    before = picture.tobytes()
    run.predict(picture)
    assert picture.tobytes() == before
    assert picture.getexif()[0x0112] == 6


def test_what_cannot_be_read_has_a_reason_and_the_rest_is_predicted(run, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = run.predict([tmp_path / "broken.jpg", pixels(run, "blue/1.png")])
    assert found.classes == [None, "blue"]
    assert found[0]["error"] == "not a picture (text?)"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((3, 8, 8), "uint8"), "an array of uint8 (3, 8, 8) is no picture"),
        (np.zeros((8, 8, 3)), "an array of float64 (8, 8, 3) is no picture: give uint8 from 0 to 255"),
        ([3], "this model takes no int: give files, each with a picture"),
        ("nowhere/*.jpg", "input=nowhere/*.jpg: no file matches this pattern"),
    ],
)
def test_other_inputs_are_refused(run, given, told):
    with pytest.raises(headstart.UsageError) as refused:
        run.predict(given)
    assert told in str(refused.value)


def test_evaluate_measures_again(run):
    metrics = run.evaluate(trainer__accelerator="cpu")
    assert dict(metrics) == pytest.approx({k: v for k, v in run.metrics.items() if k.startswith("test/")}, abs=1e-4)
    assert metrics.folder == run.folder / "evaluation_test"
    assert "<img" in metrics._repr_html_()
    assert metrics.to_pandas().value["acc"] == metrics["test/acc"]


def test_a_run_is_loaded_by_any_of_its_names(run, monkeypatch):
    monkeypatch.delenv("HEADSTART_LOGS")
    monkeypatch.chdir(run.folder.parents[3])
    for name in ("last", run.folder, str(run.folder / "checkpoints/best.ckpt")):
        loaded = headstart.load(name)
        assert loaded.checkpoint == run.checkpoint
        assert loaded.folder == run.folder
    assert headstart.load(run.folder, checkpoint="last").checkpoint.name == "last.ckpt"
    assert headstart.load("last", logs="logs").metrics == run.metrics
    with pytest.raises(headstart.UsageError, match="no such file or folder"):
        headstart.load("gone")


def test_a_checkpoint_alone_is_enough(run, tmp_path):
    alone = headstart.load(run.checkpoint.rename(tmp_path / "mine.ckpt"))
    try:
        assert alone.folder is None
        assert alone.metrics == {}
        assert alone.classes == ["blue", "red"]
        assert alone.predict(pixels(run, "red/1.png")).classes == ["red"]
    finally:
        alone.path.rename(run.folder / "checkpoints/best.ckpt")


def test_a_file_with_code_is_not_loaded(tmp_path):
    import torch

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'done'}",)

    torch.save({"hyper_parameters": {"classes": [], "evil": Evil()}}, tmp_path / "evil.ckpt")
    with pytest.raises(headstart.UsageError, match="more than tensors and plain data"):
        headstart.load(tmp_path / "evil.ckpt").predict("a.jpg")
    assert not (tmp_path / "done").exists()


def test_a_config_that_builds_something_else_is_refused(run, tmp_path):
    import torch

    content = torch.load(run.checkpoint, weights_only=True)
    content["hyper_parameters"]["config"]["model"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'done'}"}
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(headstart.UsageError, match=r"REFUSED: the saved config would build os\.system"):
        headstart.load(tmp_path / "evil.ckpt").evaluate()
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"data": "fake", "epochs": 3},
            "epochs=3: type trainer.max_epochs=3\n(in Python, write __ for a dot: trainer",
        ),
        ({"data": "fake", "model": "resnet51"}, "did you mean 'resnet50'?"),
        ({"data": "fake", "optimizer__lr": "fast"}, "optimizer.lr=fast: this must be a number"),
        ({"data": "nowhere"}, "nowhere: no such file, folder or data set"),
        ({"data": "fake", "trainer": "ddp_cpu"}, "several devices need a process each"),
        ({"data": "fake", "max_time": "soon"}, "trainer.max_time=soon: give a time such as 10m"),
        ({"data": "fake", "model": "resnet18", "model__weights": "gone.pth"}, "there is no such file or folder"),
    ],
)
def test_a_mistake_is_an_exception_with_the_words_of_the_command(settings, told):
    with pytest.raises(headstart.UsageError) as refused:
        headstart.train(**settings)
    assert told in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_failure_is_an_exception(monkeypatch):
    monkeypatch.setattr("headstart.training.run.train", lambda cfg: (_ for _ in ()).throw(MemoryError("no")))
    with pytest.raises(headstart.Failure, match="the memory is full"):
        headstart.train("fake", **QUICK)


def test_an_error_in_the_code_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("headstart.training.run.train", lambda cfg: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        headstart.train("fake", **QUICK)


def test_ctrl_c_is_a_keyboard_interrupt_and_the_run_continues(tmp_path, monkeypatch):
    from headstart.callbacks.training_metrics import TrainingMetrics

    def interrupt(self, trainer, *_):
        os.kill(os.getpid(), signal.SIGINT)

    settings = QUICK | {"finetuning": "full"}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingMetrics, "on_train_batch_end", interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            headstart.train("fake", max_epochs=2, **settings)
    run = headstart.train(resume="last")
    assert run.metrics["test/acc"] >= 0
    assert len(list((tmp_path / "logs/train/runs").iterdir())) == 1


def test_what_the_program_has_set_up_stays(tmp_path):
    """Its own Hydra, its log handlers and their level, and how it treats warnings."""
    (tmp_path / "app.yaml").write_text("theirs: 1\n")
    root, handler = logging.getLogger(), logging.FileHandler(tmp_path / "theirs.log", mode="w")
    root.addHandler(handler)
    before, level, treated = list(root.handlers), root.level, (list(warnings.filters), warnings.showwarning)
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            headstart.train("fake", **QUICK)
            assert GlobalHydra.instance().hydra is hydra
            assert compose("app").theirs == 1
        assert root.handlers == before
        assert root.level == level
        assert (list(warnings.filters), warnings.showwarning) == treated
        assert not HydraConfig.initialized()
        root.warning("after")
        assert (tmp_path / "theirs.log").read_text().endswith("after\n"), "a closed file is not opened again"
    finally:
        root.removeHandler(handler)


def test_texts_are_predicted_as_they_are(tmp_path, monkeypatch):
    tiny_text = pytest.importorskip("tiny_text")
    import safetensors.torch
    import torch

    rows = [f'"{tiny_text.review(n, tiny_text.CLASSES[n % 2])}",{tiny_text.CLASSES[n % 2]}' for n in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,label", *rows]))
    folder = tiny_text.write_model(tmp_path / "model")
    torch.manual_seed(0)
    safetensors.torch.save_file(tiny_text.backbone().net.state_dict(), folder / "model.safetensors")
    run = headstart.train(
        tmp_path / "reviews.csv", model="transformers", model__name=folder, finetuning="probe", trainer="cpu",
        trainer__precision="32-true",
    )  # fmt: skip
    (tmp_path / "two.txt").write_text("the film was superb\nthe plot was awful\n")
    found = run.predict(["the film was superb", "", tmp_path / "two.txt"], top_k=1)
    assert [each["error"] for each in found] == [None, "empty", None, None]
    assert found[0]["text"] == "the film was superb"
    assert found[0]["predictions"] == found[2]["predictions"]
    assert list(found.to_pandas()) == ["file", "text", "class_1", "probability_1", "error"]
    assert len(run.predict("one text")) == 1


@pytest.mark.slow
def test_export_and_report_return_their_files(run):
    model = run.export("safetensors")
    assert model == run.folder / "export/best.safetensors"
    assert model.is_file()
    assert run.report(examples=0, worst=0) == run.folder / "report.html"


def test_importing_it_loads_nothing_heavy():
    program = "import sys, headstart; print({'torch', 'hydra', 'pandas', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_all_that_it_offers_is_documented():
    text = (Path(CONF).parent / "docs/python.md").read_text()
    offered = [*headstart.__all__, *(name for name in vars(headstart.TrainedRun) if not name.startswith("_"))]
    assert [name for name in offered if name not in text] == []
