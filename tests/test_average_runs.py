"""`scripts/average_runs.py`, on made-up states and on small real runs."""

import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir

from headstart.cli.conf_files import CONF
from headstart.errors import UsageError
from headstart.evaluation.evaluate import evaluate
from headstart.runs.directory import find_checkpoint
from headstart.tasks import checkpoint
from headstart.training.run import train

SCRIPT = SimpleNamespace(**runpy.run_path(str(CONF.parent / "scripts" / "average_runs.py")))


def state(value):
    return {"weight": torch.tensor([value]), "counter": torch.tensor(round(value))}


def test_whoever_makes_it_worse_stays_out():
    scores = {1.0: 0.8, 2.0: 0.9, 3.0: 0.7}  # of the averages 1; (1 + 3) / 2; (1 + 3 + 5) / 3

    def validate(tried):
        return {"val/acc": scores[round(tried["weight"].item(), 3)]}

    joined, best, metrics = SCRIPT.soup([state(1.0), state(3.0), state(5.0)], validate, "val/acc", 1)
    assert (joined, best["weight"].item(), metrics["val/acc"]) == ([0, 1], 2.0, 0.9)
    assert best["counter"] == 1


def averaged(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["average_runs.py", *map(str, words)])
    SCRIPT.main()


def test_runs_of_several_seeds_become_one_that_can_be_evaluated(quick, tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        train(
            quick(f"seed={seed}", "data.seed=0", "trainer.max_epochs=1", f"paths.run={tmp_path / 'sweep' / str(seed)}")
        )
        checkpoint.keep_temperature(tmp_path / f"sweep/{seed}/checkpoints/best.ckpt", 3.0)
    averaged(monkeypatch, tmp_path / "sweep", "--out", tmp_path / "average")
    told = capsys.readouterr().out
    content = checkpoint.read(tmp_path / "average/checkpoints/best.ckpt")
    assert f"average of {len(content['averaged'])} of 2: val/acc {content['metrics']['val/acc']:.4f}" in told
    assert "temperature" not in content["hyper_parameters"], "it fitted the weights of a single run"
    singles = [checkpoint.read(tmp_path / f"sweep/{seed}/checkpoints/best.ckpt") for seed in (0, 1)]
    assert content["metrics"]["val/acc"] >= max(single["metrics"]["val/acc"] for single in singles)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [f"run={tmp_path / 'average'}", "split=val"])
    again = evaluate(cfg, find_checkpoint(cfg.run, cfg.checkpoint))
    assert again["val/loss"] == pytest.approx(content["metrics"]["val/loss"], rel=1e-4)
    with pytest.raises(UsageError, match="already exists"):
        averaged(monkeypatch, tmp_path / "sweep", "--out", tmp_path / "average")


def test_no_run_may_have_learned_what_another_held_out(quick, tmp_path, monkeypatch):
    for seed in (0, 1):
        train(quick(f"seed={seed}", "trainer.max_epochs=1", f"paths.run={tmp_path / str(seed)}"))
    with pytest.raises(UsageError, match=r"have different val and test samples, .* give all runs the same data\.seed"):
        averaged(monkeypatch, tmp_path / "0", tmp_path / "1", "--out", tmp_path / "average")
    # nor what another is tested on, where a folder of its own holds the validation pictures of both
    names = ["val/a", "train/b", "train/c"]
    for run, splits in (("0", ["val", "train", "test"]), ("1", ["val", "test", "train"])):
        rows = "".join(f"{split},{name},a\n" for split, name in zip(splits, names, strict=True))
        (tmp_path / run / "split.csv").write_text(f"split,name,class\n{rows}")
    with pytest.raises(UsageError, match="have different val and test samples"):
        averaged(monkeypatch, tmp_path / "0", tmp_path / "1", "--out", tmp_path / "average")
    with pytest.raises(UsageError, match="found 0 runs"):
        averaged(monkeypatch, tmp_path / "nowhere", "--out", tmp_path / "average")
    with pytest.raises(UsageError, match="found 1 runs"):
        averaged(monkeypatch, tmp_path / "0", "--out", tmp_path / "average")
