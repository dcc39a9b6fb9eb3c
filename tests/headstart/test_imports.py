"""Imports run one way."""

import ast
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
# what each part may import of this project, beside errors and itself
ALLOWED = {
    "allocator": set(),
    "errors": set(),
    "activations": set(),
    "schemas": set(),
    "config": {"resume", "schemas", "signatures"},
    "files": set(),
    "hardware": {"backbones", "files"},
    "logistic_regression": set(),
    "randomness": set(),
    "heads": set(),
    "backbones": {"files"},
    "data": {"activations", "files", "randomness"},
    "callbacks": {
        *("activations", "backbones", "checkpoint", "data", "files", "finetuning", "logistic_regression", "randomness"),
    },
    "optim": {"backbones"},
    "schedules": set(),
    "signatures": set(),
    "finetuning": {"backbones", "config"},
    "tasks": {"activations", "backbones", "optim", "schedules"},
    "caching": {"backbones", "data", "files", "finetuning"},
    "calibration": set(),
    "reporting": {"backbones", "config", "files", "finetuning"},
    "checkpoint_io": {"files"},
    "checkpoint": {"backbones", "checkpoint_io", "files", "tasks"},
    "resume": set(),
    "cli": {"allocator"},
    "auto": {"callbacks", "config", "data", "files", "hardware"},
    "building": {
        *("callbacks", "checkpoint", "checkpoint_io", "config", "data", "finetuning", "hardware", "loggers", "tasks"),
    },
    "lr_find": {"building", "callbacks", "data"},
    "training": {
        *("auto", "building", "callbacks", "checkpoint", "data", "files", "loggers", "lr_find", "report", "reporting"),
        *("resume", "tasks"),
    },
    "loggers": {"checkpoint", "reporting"},
    "report": {
        *("callbacks", "checkpoint", "data", "evaluation", "files", "finetuning", "reporting", "run_data", "schemas"),
        "tasks",
    },
    "comparison": set(),
    "significance": {"comparison"},
    "inspection": {"backbones", "caching", "data", "logistic_regression", "reporting", "tasks"},
    "evaluation": {
        *("calibration", "callbacks", "checkpoint", "config", "data", "files", "hardware", "inspection", "reporting"),
        *("run_data", "schemas", "tasks"),
    },
    "run_data": {"data", "tasks"},
    "choices": set(),
    "inference": {"backbones", "tasks"},
    "prediction": {"checkpoint", "choices", "data", "files", "hardware", "inference", "reporting"},
    "formats": {"backbones", "checkpoint", "inference"},
    "serving": {"checkpoint", "data", "inference", "reporting"},
    "held_out": {"data", "run_data", "tasks"},
    "exporting": {"checkpoint", "choices", "files", "formats", "held_out", "inference"},
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "headstart":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
            assert node.level == 0, f"{path}: relative import"
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("headstart.")}
    return found


def test_every_part_imports_only_what_it_may():
    for path in (SRC / "headstart").rglob("*.py"):
        part = path.relative_to(SRC / "headstart").parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        extra = imported(path) - ALLOWED[part] - {part, "errors"}
        assert not extra, f"{path.relative_to(SRC)} imports {sorted(extra)}"


def test_packages_re_export_nothing():
    for path in (SRC / "headstart").rglob("__init__.py"):
        assert not imported(path), path


def test_the_command_line_is_checked_before_torch_is_loaded():
    """`--help` and a misspelt word are answered at once."""
    heavy = {"torch", "pytorch_lightning", "torchvision", "torchmetrics"}
    for name in ("allocator", "choices", "errors", "config", "cli", "resume", "signatures"):
        tree = ast.parse((SRC / "headstart" / f"{name}.py").read_text(encoding="utf-8"))
        names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not names & heavy
