"""What is read from a source file must be what the imported object says."""

import re
import sys

import pytest
from hydra.utils import get_object

from headstart.cli.check import PLAIN, _plain_types, call_parameters
from headstart.cli.run import CONF
from headstart.cli.signatures import Unreadable, read_parameters

TARGETS = sorted({target for file in CONF.rglob("*.yaml")
                  for target in re.findall(r"_target_: ([\w.]+)", file.read_text(encoding="utf-8"))
                  if not target.startswith("optuna")})  # fmt: skip
MORE = [
    "lightning_fabric.Fabric",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.StochasticWeightAveraging",
    "torch.optim.RMSprop",
    "torch.optim.lr_scheduler.SequentialLR",
    "torchvision.transforms.v2.RandomResizedCrop",
]


@pytest.mark.parametrize("target", [*TARGETS, *MORE])
def test_reading_agrees_with_importing(target):
    read, imported = read_parameters(target), call_parameters(get_object(target))
    assert read.keys() == imported.keys()
    for name, parameter in imported.items():
        empty = parameter.empty
        assert (read[name].default is empty) == (parameter.default is empty), name
        if read[name].default is not ...:  # what is no constant, as an environment variable, is not read
            assert (read[name].default is None) == (parameter.default is None), name
        types = _plain_types(read[name].annotation)
        # an alias or a class of the library's own is not read: no type is refused then
        assert not types or types & PLAIN.keys() == _plain_types(parameter.annotation) & PLAIN.keys(), name


@pytest.mark.parametrize(
    "target",
    [
        "nonsense",
        "nowhere.Thing",
        "headstart.heads.linear.Lineer",
        "headstart.heads.linear",
        "torch.optim.adam",
        "torch.Tensor.add",
        "headstart.errors.UsageError.mro",
        "torch.nn.Linear",  # a star import
        "math.sqrt",
    ],
)
def test_what_only_importing_tells_is_left_to_it(target):
    with pytest.raises(Unreadable):
        read_parameters(target)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a package called `read_here`, which must not be run."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> None:
        folder = tmp_path / "read_here"
        folder.mkdir()
        for name, source in {"__init__": "", **modules}.items():
            (folder / f"{name}.py").write_text(f"{source}\n")

    yield write
    assert not any(name.startswith("read_here") for name in sys.modules)
    for cached in (read_parameters.__globals__["_names"], read_parameters.__globals__["_spec"]):
        cached.cache_clear()


def test_imports_and_base_classes_are_followed(package):
    package(
        __init__="from .deep import Part as Piece",
        base="class Base:\n def __init__(self, width: int, depth: int = 2): ...",
        deep="import read_here.base as b\nclass Part(b.Base):\n def __init__(self, *, lr: int | None = None, **kw): 0",
    )
    read = read_parameters("read_here.Piece")
    assert list(read) == ["lr", "width", "depth"]
    assert read["lr"].annotation == int | None
    assert read["width"].default is None  # the class itself may give it


@pytest.mark.parametrize(
    "source",
    [
        "from dataclasses import dataclass\n@dataclass\nclass Part:\n x: int = 0",
        "class Part:\n ...\nPart = change(Part)",
        "try:\n from fast import Part\nexcept ImportError:\n class Part: ...",
        "class Part(make_base()):\n ...",
        "def change(f): return f\nclass Part:\n @change\n def __init__(self, x): ...",
        "class Part:\n def __init__(self, x, /): ...",
        "class Part(:",
    ],
)
def test_what_running_would_decide_is_not_guessed(source, package):
    package(parts=source)
    with pytest.raises(Unreadable):
        read_parameters("read_here.parts.Part")
