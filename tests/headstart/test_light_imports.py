import importlib
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from headstart import light_imports
from headstart.light_imports import REPLACED, loaded, without_compiler
from headstart.optim.without_compiler import step_without_compiler

SLOW = """
from functools import wraps
class Thing:
    tone = "blue"
    class Inner:
        tone = "red"
def twice(function=None):
    return wraps(function)(lambda *given: 2 * function(*given)) if function else twice
"""
USER = """
import slowlib
import slowlib.part as part
from slowlib import Thing
Kind = tuple[Thing, slowlib.Thing.Inner]
marked = slowlib.twice
@marked()
def three(): return 3
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Imports a module that imports a slow one."""

    def imported(code):
        (tmp_path / "slowlib").mkdir()
        (tmp_path / "slowlib" / "__init__.py").write_text(SLOW)
        (tmp_path / "slowlib" / "part.py").write_text("name = 'part'")
        (tmp_path / "slowuser.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(REPLACED, "slowuser", ("slowlib", "slowlib.part"))
        return importlib.import_module("slowuser")

    yield imported
    for name in ("slowuser", "slowlib", "slowlib.part"):
        sys.modules.pop(name, None)


def test_a_replaced_module_is_loaded_at_its_first_use(user):
    module = user(USER)
    assert "slowlib" not in sys.modules
    assert not isinstance(3, module.Thing), "a check of a type loads nothing"
    assert "slowlib" not in sys.modules
    assert isinstance(module.Thing(), sys.modules["slowlib"].Thing)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda module: module.three(), 6),
        (lambda module: module.part.name, "part"),
        (lambda module: module.slowlib.Thing.tone, "blue"),
        (lambda module: module.Thing.tone, "blue"),
        (lambda module: module.Kind.__args__[1].tone, "red"),
    ],
)
def test_a_stand_in_behaves_like_the_module_that_it_stands_for(user, use, expected):
    module = user(USER)
    assert "slowlib" not in sys.modules
    assert use(module) == expected
    assert loaded("slowlib")


def test_types_are_checked_once_the_module_is_loaded(user):
    module = user(USER)
    import slowlib

    assert isinstance(slowlib.Thing(), module.Thing)
    assert issubclass(slowlib.Thing, module.Thing)
    assert not isinstance(3, module.Thing)


def test_a_module_that_needs_the_real_one_is_imported_as_usual(user):
    module = user("from slowlib import Thing\nclass Mine(Thing): pass\n")
    assert module.Mine.tone == "blue"


def test_a_module_keeps_its_own_loader(user):
    assert user(USER).__loader__.get_source("slowuser") == USER


def test_an_error_in_a_module_is_its_own(user):
    with pytest.raises(ZeroDivisionError):
        user("1 / 0")


def test_begin_twice_changes_nothing():
    before = list(sys.meta_path)
    light_imports.begin()
    assert sys.meta_path == before


def test_metrics_of_torchmetrics_can_still_be_drawn():
    import torchmetrics

    metric = torchmetrics.MeanMetric()
    metric.update(3.0)
    figure, _ = metric.plot()
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_a_light_step_is_the_step_of_torch(kind):
    def trained(step):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = kind(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).sum().backward()
            step(optimizer)
        assert torch.is_grad_enabled()
        return layer.weight

    def of_torch(optimizer):
        with torch.no_grad():
            inspect.unwrap(kind.step)(optimizer)

    step_without_compiler()
    assert torch.equal(trained(lambda optimizer: optimizer.step()), trained(of_torch))


@pytest.mark.slow
def test_a_training_step_loads_neither_the_compiler_nor_what_draws():
    """These and what they load take more than half of the time to the first step."""
    code = """
import sys
sys.argv[1:] = "data=fake experiment=null model=tiny_resnet debug=fast trainer=cpu logger=none".split()
from pathlib import Path
import runpy
try: runpy.run_path("src/train.py", run_name="__main__")
finally: print("loaded:", *[name for name in
    ("torch._dynamo", "sympy", "matplotlib", "transformers", "scipy.signal", "scipy.stats", "sklearn", "pandas",
     "triton.runtime") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_code_that_the_compiler_leaves_out_does_not_load_it(monkeypatch):
    """As torch's `_disable_dynamo` does it."""
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.delitem(vars(torch), "_dynamo", raising=False)
    function = torch._disable_dynamo(lambda number: number + 1)
    with without_compiler():
        assert function(1) == 2
    assert function(2) == 3
    assert "torch._dynamo" not in sys.modules
