"""The wheel holds everything that an installed package needs; `.ci/wheel` installs and uses it."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="builds the wheel")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    program = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as archive:
        yield archive


def tracked(folder: str) -> set[str]:
    """The files of a folder, without what Python makes while it runs."""
    files = (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(ROOT / folder).as_posix() for file in files}


def test_it_holds_all_files_of_the_package(wheel):
    inside = {name.removeprefix("headstart/") for name in wheel.namelist() if name.startswith("headstart/")}
    assert tracked("src/headstart") <= inside
    assert {"py.typed", "backbones/weights/tiny_resnet_letters.safetensors", "inference/page.html"} <= inside


def test_it_holds_all_configs_as_they_are(wheel):
    for name in tracked("conf"):
        assert wheel.read(f"headstart/conf/{name}") == (ROOT / "conf" / name).read_bytes()


def test_it_holds_all_entry_points_as_they_are(wheel):
    """A new file in src/ belongs into pyproject.toml, too."""
    scripts = sorted((ROOT / "src").glob("*.py"))
    assert scripts
    for file in scripts:
        assert wheel.read(f"headstart/entry_points/{file.name}") == file.read_bytes()


def test_it_holds_nothing_else(wheel):
    allowed = ("headstart/", "headstart-")
    assert [name for name in wheel.namelist() if not name.startswith(allowed) or "__pycache__" in name] == []


def test_it_gives_the_command_and_the_extras(wheel):
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if name.split("/")[0].endswith(".dist-info")}
    assert "headstart = headstart.cli.command:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    about = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert {"pandas", "notebook", "onnx", "serve"} <= set(about.get_all("Provides-Extra"))


def test_an_unpacked_wheel_finds_its_configs_and_speaks_of_the_command(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()

    def headstart(*words):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADSTART_")}
        return subprocess.run(
            [sys.executable, "-m", "headstart", *words], cwd=tmp_path / "elsewhere", capture_output=True, text=True,
            env=environment | {"PYTHONPATH": str(tmp_path / "site")},
        )  # fmt: skip

    shown = headstart("train", "model=resnet18", "--cfg", "job")
    assert "name: resnet18" in shown.stdout, shown.stderr
    help_text = headstart("export", "--help").stdout
    assert "headstart export run=" in help_text
    assert "src/export.py" not in help_text
    assert "pip install onnx onnxruntime onnxscript" in " ".join(help_text.split())
    refused = headstart("train", "data=image_folder", "data.root=nowhere")
    assert refused.returncode == 2
    assert "data.root=nowhere: no such folder" in refused.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == [tmp_path / "elsewhere" / "logs"]
