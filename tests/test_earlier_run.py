"""A run that was made before the modules moved is evaluated, used for predictions, resumed, compared and reported."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import OmegaConf
from photos import pictures

from headstart.backbones import weights
from headstart.cli.conf_files import CONF
from headstart.evaluation.compare import configurations, ended_runs
from headstart.evaluation.evaluate import evaluate
from headstart.inference.predict import predict
from headstart.report.build import report
from headstart.runs.directory import Run
from headstart.runs.resume import config_to_run
from headstart.tasks import checkpoint
from headstart.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*exists and is not empty")
FILES = Path(__file__).parent / "earlier_run"
BACKBONE = Path(weights.__file__).parent / "weights/tiny_resnet_letters.safetensors"
PLACE = "/earlier"
"""The folder that all paths in the files lie in."""


def moved(content, place):
    """The same content with the paths of another place."""
    if isinstance(content, dict):
        return {moved(key, place): moved(value, place) for key, value in content.items()}
    if isinstance(content, list):
        return [moved(value, place) for value in content]
    return content.replace(PLACE, place) if isinstance(content, str) else content


@pytest.fixture
def earlier(tmp_path) -> Run:
    """The run, put together in the test's own folder: the files lack the tensors of the frozen backbone."""
    run = Run(tmp_path / "run")
    shutil.copytree(FILES, run.folder, ignore=shutil.ignore_patterns("*.checkpoint"))
    run.config_file.write_text(run.config_file.read_text().replace(PLACE, str(tmp_path)))
    run.checkpoints_folder.mkdir()
    backbone = {f"backbone.{name}": tensor for name, tensor in safetensors.torch.load_file(BACKBONE).items()}
    for file in FILES.glob("*.checkpoint"):
        content = moved(torch.load(file, weights_only=True), str(tmp_path))
        content["state_dict"] = {**backbone, **content["state_dict"]}
        torch.save(content, run.checkpoints_folder / f"{file.stem}.ckpt")
    return run


def configured(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize(("split", "changes"), [("test", []), ("val", ["test_time=none"])])
def test_it_is_evaluated_as_it_was_then(split, changes, earlier):
    """Its tests took the mean with the mirror image, its validation did not."""
    cfg = configured("evaluate", f"run={earlier.folder}", f"split={split}", *changes)
    found = evaluate(cfg, earlier.best)
    recorded = {name: value for name, value in earlier.metrics.items() if name.startswith(f"{split}/")}
    assert len(recorded) == 6
    assert found == pytest.approx(recorded, abs=1e-4)


def test_it_predicts(earlier, tmp_path):
    pictures(tmp_path / "photos", ["any"], 3)
    output = tmp_path / "rows.jsonl"
    words = [f"run={earlier.folder}", f"input={tmp_path / 'photos'}", f"output={output}", "trainer.accelerator=cpu"]
    cfg = configured("predict", *words)
    assert predict(cfg, earlier.best)
    assert len(output.read_text().splitlines()) == 3
    assert checkpoint.load_task(earlier.best)[0].classes == earlier.classes


def test_it_goes_on(earlier, composed):
    words = [f"resume={earlier.folder}", "trainer.max_epochs=2"]
    hydra = OmegaConf.structured(HydraConf)
    hydra.mode, hydra.overrides.task = RunMode.RUN, words
    before = checkpoint.read(earlier.last)
    train(config_to_run(composed(*words), hydra))
    after = checkpoint.read(earlier.last)
    assert (before["epoch"], after["epoch"]) == (0, 1)
    assert after["global_step"] == 2 * before["global_step"]
    assert after["callbacks"]["ForwardPassCounter"]["passes"] > before["callbacks"]["Passes"]["passes"]
    with earlier.history_file.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["val/acc"]]
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert "headstart.reporting" in (FILES / "config.yaml").read_text()
    assert "headstart.reporting" not in earlier.config_file.read_text(), "from now on it has the names of today"


def test_today_the_same_command_gives_the_same_settings(earlier, composed, tmp_path):
    """So that a comparison tells no difference where there is none; a renamed part that is forgotten shows here."""
    today = Run(tmp_path / "today")
    today.folder.mkdir()
    renamed = {"task.test_time_flip=true": "test_time=flip", "task.mixup=0.2": "mixing=mixup"}
    renamed["task.wake_up_steps=2"] = "task.unfreeze_warmup_steps=2"
    words = [renamed.get(word, word) for word in earlier.overrides]
    chosen = ("data.batch_size=8", "optimizer.lr=0.003", "optimizer.fused=true", "trainer.precision=32-true")
    cfg = composed(*words, *chosen)
    cfg.paths = OmegaConf.to_container(cfg.paths, resolve=True)
    OmegaConf.save(cfg, today.config_file)
    today.metrics_file.write_text(json.dumps(earlier.metrics))
    runs, _ = ended_runs([earlier.folder, today.folder])
    assert [each.title for each in configurations(runs, "seed")] == ["all"]


def test_it_is_reported(earlier):
    page, card = report(configured("report", f"run={earlier.folder}"), earlier.best)
    assert f"{earlier.metrics['test/acc']:.4f}" in page.read_text()
    assert "test_time_flip=true" in page.read_text(), "the command that made it"
    assert "feature_extraction" in card.read_text()
