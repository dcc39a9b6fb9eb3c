"""The campaign for a GPU runs to its end without one, keeps what it measured, and says what it left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: run scripts/gpu_campaign.py itself"),
]


def campaign(out, *words):
    command = [sys.executable, "scripts/gpu_campaign.py", "--out", str(out), "--networks", "tiny_resnet", *words]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True)


def test_every_part_runs_to_its_end_on_a_cpu(tmp_path):
    done = campaign(tmp_path, "--minutes", "20")
    table = (tmp_path / "table.md").read_text()
    assert done.returncode == 0, table
    assert "failed" not in table
    assert table.startswith("NO GPU: tiny sizes on the CPU, which say nothing about speed.")
    assert "| tiny_resnet, unfreeze_at | 12 | yes |" in table
    assert "tiny_resnet, 16-mixed: left out: fp16 with a scaler needs a GPU" in table
    fit = json.loads((tmp_path / "fit.json").read_text())["tiny_resnet, 32-true"]
    assert 0 < fit["ratio"] < 5
    again = campaign(tmp_path, "--minutes", "1")
    assert again.returncode == 0
    assert "at most" not in again.stdout  # nothing is measured twice


def test_what_was_cut_off_or_not_reached_is_named(tmp_path):
    done = campaign(tmp_path, "--minutes", "0.4", "--parts", "ddp")  # 2.4 s for this part
    assert done.returncode == 3
    assert "ddp: cut off after 2 s; the same command goes on with it" in done.stdout
    done = campaign(tmp_path, "--minutes", "0.3", "--parts", "predict", "tests")  # less than a part needs
    assert done.returncode == 3
    assert done.stdout.count("not reached") == 2
