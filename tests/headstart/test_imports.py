"""Imports run one way: a part imports only what lies in a layer below its own."""

import ast
import re
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "headstart"
LAYERS = [
    {"errors", "light_imports", "progress", "seeds"},
    {"files"},
    {"runs", "metrics"},
    {"cli"},
    {"inputs", "heads"},
    {"display"},
    {"data", "backbones"},
    {"datasets", "optim"},
    {"tasks"},
    {"finetuning"},
    {"caching"},
    {"callbacks"},
    {"evaluation"},
    {"inference"},
    {"export", "report"},
    {"training"},
    {"api"},
    {"__init__", "__main__"},
]
"""From the leaves up. Parts of one layer know nothing of each other."""
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}
HEAVY = {"torch", "pytorch_lightning", "torchvision", "torchmetrics", "sklearn", "matplotlib"}


def part_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole_package = node.module == "headstart"
            found |= {f"headstart.{alias.name}" for alias in node.names} if whole_package else {node.module}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def parts_of_ours(modules: set[str]) -> set[str]:
    return {module.split(".")[1] for module in modules if module.startswith("headstart.")}


def test_the_layers_name_every_part():
    assert LEVELS.keys() == {part_of(path) for path in SRC.rglob("*.py")}


def test_a_part_imports_only_from_layers_below():
    wrong = [
        f"{path.relative_to(SRC)} imports {other}"
        for path in SRC.rglob("*.py")
        for other in parts_of_ours(imported(path)) - {part_of(path)}
        if LEVELS[other] >= LEVELS[part_of(path)]
    ]
    assert not wrong


def test_only_data_sets_backbones_and_what_shows_samples_know_the_kind_of_input():
    """So that another kind of input needs no change elsewhere."""
    knowing = {
        part_of(path)
        for path in SRC.rglob("*.py")
        if any(re.match(r"headstart\.inputs\.\w+\.", module) for module in imported(path))
    }
    assert knowing == {"inputs", "datasets", "backbones", "display", "evaluation", "report"}


def test_packages_re_export_nothing():
    """But the front door, `import headstart`: see docs/python.md."""
    for path in SRC.glob("*/**/__init__.py"):
        assert not parts_of_ours(imported(path)), path


def test_the_command_line_is_checked_before_torch_is_loaded():
    """`--help` and a misspelt word are answered at once: nothing in `cli/` and `runs/` imports what is slow to load."""
    for path in [*(SRC / "cli").glob("*.py"), *(SRC / "runs").glob("*.py"), SRC / "errors.py"]:
        assert not {module.split(".")[0] for module in imported(path)} & HEAVY, path
