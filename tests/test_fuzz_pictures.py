"""Damaged pictures are read or refused, everywhere; `scripts/fuzz_pictures.py` tries more of them."""

import sys

import pytest

from headstart.cli.conf_files import CONF

pytest.importorskip("fastapi", reason="serving needs the extra 'serve'")
sys.path.insert(0, str(CONF.parent / "scripts"))
import fuzz_pictures


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_damaged_pictures_are_read_or_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz_pictures.py", "--files", "60", "--seed", "7"])
    assert fuzz_pictures.main() == 0
    told = capsys.readouterr().out
    assert "decode: read" in told
    assert "decode: refused" in told


def test_a_reader_that_fails_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fuzz_pictures, "readers", lambda folder: {"broken": lambda content: content.index(b"never")})
    monkeypatch.setattr(sys, "argv", ["fuzz_pictures.py", "--files", "2", "--keep", str(tmp_path / "kept")])
    assert fuzz_pictures.main() == 1
    assert "file 0, broken: FAILED: ValueError" in capsys.readouterr().out
    assert len(list((tmp_path / "kept").iterdir())) == 2
