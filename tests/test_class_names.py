"""Class names are data, whatever they look like: none is evaluated, none breaks a command."""

import csv
import json

import pytest
from hydra import compose, initialize_config_dir
from photos import pictures

from headstart.cli.conf_files import CONF
from headstart.evaluation.evaluate import evaluate
from headstart.export.export import export
from headstart.inference.predict import predict
from headstart.training.run import train

NAMES = ["${oc.env:HOME}", "???", "${a}", "=1+1", "null", "a: b #c", "\x1b[31mred"]


@pytest.fixture
def run(quick, composed, tmp_path):
    """A run on pictures in folders with such names."""
    pictures(tmp_path / "photos", NAMES, 12)
    train(composed(
        "data=image_folder", f"data.root={tmp_path / 'photos'}", "trainer=cpu", "trainer.max_epochs=1",
        "model.image_size=16", "trainer.enable_progress_bar=false", "report=true",
    ))  # fmt: skip
    return tmp_path / "run"


def asked(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.slow
def test_all_commands_keep_them_as_they_are(capfd, caplog, run, tmp_path):
    best = run / "checkpoints/best.ckpt"
    assert list(json.loads((run / "classes.json").read_text())) == sorted(NAMES)
    evaluate(asked("evaluate", f"run={run}"), best)
    with (run / "evaluation_test/classes.csv").open(newline="") as stream:
        assert {row["class"] for row in csv.DictReader(stream)} == set(NAMES)
    predict(asked("predict", f"run={run}", f"input={tmp_path / 'photos'}", f"output={tmp_path / 'rows.jsonl'}"), best)
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert {each["class"] for each in first["predictions"]} <= set(NAMES)
    export(asked("export", f"run={run}", "format=safetensors"), best)
    printed = "".join(capfd.readouterr()) + caplog.text
    assert [line for line in printed.splitlines() if "\x1b[31m" in line] == [], "a name must not control the terminal"
