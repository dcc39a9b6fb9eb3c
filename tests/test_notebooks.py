"""The notebooks run from their beginning, and hold the outputs of a run in small form."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason='needs pip install -e ".[notebook]"')
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(file):
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_its_outputs_are_of_one_run_and_small(file):
    assert [cell.execution_count for cell in cells(file)] == list(range(1, len(cells(file)) + 1))
    assert file.stat().st_size < 200_000
    text = file.read_text()
    assert [folder for folder in ("/tmp/", "/root/", "/home/") if folder in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs(file):
    command = [sys.executable, str(ROOT / "scripts/run_notebook.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr


def test_there_is_one():
    assert NOTEBOOKS
