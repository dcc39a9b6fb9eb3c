"""Documents cannot lie: commands fit the code, options exist, outputs are as shown, links lead somewhere.

Every command is parsed. Ours are composed and checked as the entry points check them, without data.
`pytest -s tests/test_docs.py` prints how many.
"""

import argparse
import contextlib
import importlib
import inspect
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from documents import ROOT, Shown, anchors, commands, commands_in_conf, inline_code, links, simple_commands
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from photos import pictures

from headstart.cli.check import check_config
from headstart.cli.conf_files import CONF, choices_by_group
from headstart.cli.early_checks import late_mistakes
from headstart.cli.options import groups, run_options
from headstart.cli.overrides import translate_null_choices
from headstart.cli.schemas import ROOTS
from headstart.cli.settings import check_settings, settings_of
from headstart.cli.train_help import asked_for, train_help

MISTAKES = ("modle=resnet50",)
"""Words that a document shows because they are refused."""
OTHER_TOOLS = {
    "curl": "", "cp": "", "hf": "", "find": "", "echo": "", "head": "", "grep": "", ".": "", "cd": "", "git": "",
    "tensorboard": "tensorboard", "wandb": "", "pre-commit": "", "mkdocs": "", "export": "", "mkdir": "", "docker": "",
}  # fmt: skip
"""Commands that are not of this project."""
NO_OPTIONS = {
    "max_time",
    "max_epochs",
    "overrides",
    "num_classes",
    "HEADSTART_TRUST",
    "HEADSTART_SCREENSHOTS",
    "WANDB_MODE",
    "weights_only",
}
"""Words before an equals sign, in inline code, that are no options of ours: of Python, libraries, the environment."""
FILES = (".csv", ".json", ".html", ".png", ".log", ".yaml", ".ckpt", ".safetensors", ".md", ".py", ".jsonl", ".onnx",
         ".txt", ".pth", ".tsv", ".pt", ".pt2", ".npz", ".db", ".parquet")  # fmt: skip


class ParsedError(Exception):
    """Ends a script when its arguments have been read."""


def problem_of(words: list[str], checked: Counter) -> str | None:
    """What is wrong with a command; None if it fits."""
    entry = next((word for word in words if re.fullmatch(r"(src|scripts)/\w+\.py", word)), None)
    if entry and words[0] in ("python", "torchrun", entry):
        arguments = words[words.index(entry) + 1 :]
        name = entry.split("/")[1].removesuffix(".py").replace("preview", "train")  # it takes the same words
        if not (ROOT / entry).is_file():
            return f"there is no {entry}"
        if entry.startswith("src/") and name in ROOTS:
            checked["composed"] += 1
            return composing_problem(name, arguments)
        checked["read by argparse"] += 1
        return script_problem(entry, arguments)
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"the Makefile has no {unknown}" if unknown else None
    if words[0] in ("pip", "python") and "install" in words:
        text = (ROOT / "pyproject.toml").read_text()
        extras = re.findall(r"\[(\w+)\]", " ".join(words))
        unknown = [extra for extra in extras if not re.search(rf"^{extra} = \[", text, re.M)]
        return f"pyproject.toml has no extra {unknown}" if unknown else None
    if words[:3] == ["python", "-m", "headstart"]:
        words = words[2:]
    if words[0] == "headstart":
        return problem_of(["python", f"src/{words[1]}.py", *words[2:]], checked) if words[1][0] != "-" else None
    if words[0] == "pytest" or words[:3] == ["python", "-m", "pytest"]:
        return None
    return None if words[0] in OTHER_TOOLS else f"what is {words[0]!r}?"


def composing_problem(name: str, arguments: list[str]) -> str | None:
    if any(word in MISTAKES for word in arguments):
        return None
    try:
        if asked_for(arguments):
            if name == "train":
                train_help(arguments)
            return None
        overrides = [word for word in translate_null_choices(arguments) if not word.startswith("-")]
        overrides = [word for word in overrides if not word.startswith("hydra/launcher=joblib")]
        if name != "train":
            check_settings(compose(name, overrides))
            return None
        if "hparams_search=optuna" in overrides:  # needs the extra; tests/test_configs.py composes it
            return None
        if "-m" in arguments:
            parsed = OverridesParser.create().parse_overrides(overrides)
            jobs = BasicSweeper.split_arguments(parsed, None)[0]
        else:
            jobs = [overrides]
        for job in {tuple(job): job for job in (jobs[0], jobs[-1])}.values():
            config = compose("train", ["paths.run=run", *(word for word in job if not word.startswith("hydra."))])
            check_config(config)
            if problems := [each for each in late_mistakes(config) if "no such" not in each]:
                return "; ".join(problems)
    except Exception as error:
        return " ".join(str(error).split())
    return None


def script_problem(entry: str, arguments: list[str]) -> str | None:
    """Lets the script read its arguments, and nothing else."""
    name = Path(entry).stem
    module = importlib.import_module(name)
    if "argparse" not in vars(module):
        try:
            inspect.signature(module.main).bind(*arguments)
        except TypeError as error:
            return str(error)
        return None
    read = argparse.ArgumentParser.parse_args

    def then_stop(self, *given, **options):
        read(self, *given, **options)
        raise ParsedError

    def refuse(_, message):
        raise ValueError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [entry, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", then_stop)
        patch.setattr(argparse.ArgumentParser, "error", refuse)
        try:
            module.main()
        except ParsedError:
            return None
        except ValueError as error:
            return str(error)
    return "the script did not read its arguments"


@pytest.fixture
def composing(read_once):
    """Hydra, ready to compose."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def test_every_command_fits_the_code(monkeypatch, composing):
    checked, problems = problems_of(commands(), monkeypatch)
    assert checked["composed"] > 50, "the documents have more commands than were found"
    assert not problems, "\n".join(["", *problems])


@pytest.mark.slow
def test_every_command_in_comments_fits_the_code(monkeypatch, composing):
    checked, problems = problems_of(commands_in_conf(), monkeypatch)
    assert checked["composed"] > 20, "conf/ has more commands than were found"
    assert not problems, "\n".join(["", *problems])


def problems_of(found: Iterable[Shown], monkeypatch: pytest.MonkeyPatch) -> tuple[Counter, list[str]]:
    """How many commands there are, and one text for each that does not fit."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    checked, known, problems = Counter(), {}, []
    for shown in found:
        checked["commands"] += 1
        try:
            parts = simple_commands(shown.text)
        except ValueError as error:
            problems.append(f"{shown}: {error}")
            continue
        for words in map(tuple, parts):
            if words not in known:
                checked["different"] += 1
                known[words] = problem_of(list(words), checked)
            if known[words]:
                problems.append(f"{shown}\n    {known[words]}")
    print(dict(checked))
    return checked, problems


def known_options() -> set[str]:
    found = {option.name for group in groups() for option, _ in group.options} | {each.name for each in run_options()}
    found |= {name for root in ROOTS for name, _ in settings_of(ROOTS[root])} | set(choices_by_group())
    return found | {name.rpartition(".")[0] for name in found}


def test_every_option_in_inline_code_exists():
    known, chosen, problems, number = known_options(), choices_by_group(), [], 0
    for place, code in inline_code():
        for word in code.split():
            word = word.strip("\"'[]")
            key, equals, value = word.lstrip("~(").partition("=")
            key = key.replace("__", ".")  # as one types it in Python
            is_option = re.fullmatch(r"[a-z_]+(\.\w+)*", key) and (
                equals or ("." in key and key.split(".")[0] in chosen and not key.endswith(FILES))
            )
            if not is_option or key in NO_OPTIONS or word in MISTAKES or key.startswith(("hydra", "torch.")):
                continue
            number += 1
            if key not in known:
                problems.append(f"{place}: {word}: there is no {key}")
            elif key in chosen and value:
                names = re.split(r"[,|]", value.strip("[]:;.,)\"'"))
                if key == "report":
                    names = []
                allowed = {*chosen[key], "null", "..."}
                problems += [
                    f"{place}: {word}: conf/{key} has no {name}"
                    for name in names
                    if name not in allowed and not name.startswith(("<", "${"))
                ]
    print(number, "options")
    assert number > 300
    assert not problems, "\n".join(["", *problems])


def test_every_link_leads_somewhere():
    problems = []
    for document, target in links():
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists():
            problems.append(f"{document.relative_to(ROOT)}: {target}: there is no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            problems.append(f"{document.relative_to(ROOT)}: {target}: no heading gives this anchor")
    assert not problems, "\n".join(["", *problems])


SECONDS = ("modle=resnet50",)
"""Words of commands that run in a second or two: part of the default tests."""
HALF_A_MINUTE = ("experiment=letters_to_digits",)
"""Words of commands that train offline, or that show what `make train` prints: slow tests."""


def shown_with_output(words: tuple[str, ...]) -> list[Shown]:
    return [each for each in commands() if each.output and any(word in each.text.split() for word in words)]


def loose(text: str) -> str:
    """A text without what differs between machines and terminals: numbers, lines of tables, spaces, colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = re.sub(r"[\u2500-\u257f|]", " ", text)
    text = re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text)
    return " ".join(text.split())


def missing_lines(expected: tuple[str, ...], printed: str) -> list[str]:
    """The shown lines that were not printed, or not in this order; `...` stands for anything."""
    printed, position, missing = loose(printed), 0, []
    for line in expected:
        for piece in filter(None, map(str.strip, re.split(r"\.\.\.|<[^<>]+>", loose(line)))):
            found = printed.find(piece, position)
            if found < 0:
                missing.append(line)
                break
            position = found + len(piece)
    return missing


def run(text: str, folder: Path, **variables: str) -> str:
    """What a command prints to a terminal, run in this folder."""
    words = [sys.executable, *simple_commands(text)[0][1:]]
    words[1] = str(ROOT / words[1])
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm", "PYTHONUNBUFFERED": "1", **variables}
    ours, theirs = pty.openpty()  # a terminal, because some tables are for a person only
    process = subprocess.Popen(words, cwd=folder, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while chunk := os.read(ours, 65536):
            printed += chunk
    os.close(ours)
    process.wait()
    return printed.decode()


def test_a_shown_line_that_is_not_printed_is_found():
    assert missing_lines(("acc: 0.5", "...", "done"), "acc: 0.75\nmore\ndone") == []
    assert missing_lines(("acc: 0.5 │ x", "gone"), "acc:  1 x") == ["gone"]
    assert missing_lines(("b", "a"), "a b") == ["a"]


@pytest.mark.parametrize("shown", shown_with_output(SECONDS), ids=str)
def test_output_of_quick_commands_is_as_shown(shown, tmp_path):
    assert missing_lines(shown.output, run(shown.text, tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("shown", shown_with_output(HALF_A_MINUTE), ids=str)
def test_output_of_training_is_as_shown(shown, tmp_path):
    assert missing_lines(shown.output, run(shown.text, tmp_path)) == []


AFTER_TRAINING = ("evaluate", "predict", "export", "report")
"""The commands that are run on a small run, in slow tests."""


def commands_after_training() -> list[tuple[str, ...]]:
    """The different commands in the documents that read a trained run, without those on other data."""
    found: dict[tuple[str, ...], None] = {}
    for words in (words for shown in commands() for words in simple_commands(shown.text)):
        entry = next((word for word in words if re.fullmatch(rf"src/({'|'.join(AFTER_TRAINING)})\.py", word)), None)
        arguments = tuple(words[words.index(entry) + 1 :]) if entry else ()
        if any(word.startswith("run=") for word in arguments) and not any("data.root=" in word for word in arguments):
            rest = (word for word in arguments if not word.startswith(("run=", "input=", "output=")))
            found[(Path(entry).stem, *rest)] = None
    return list(found)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run on a few pictures, with the embedded network."""
    folder = tmp_path_factory.mktemp("small")
    pictures(folder / "my/pictures", ["cat", "dog"], 12)
    options = ["data=image_folder", "data.root=my/pictures", "finetuning=probe", "trainer=cpu", "model.image_size=16"]
    printed = run(" ".join(["python src/train.py", *options]), folder, HEADSTART_LOGS=str(folder / "logs"))
    assert "evaluate again" in printed, printed
    return folder


@pytest.mark.exhaustive
@pytest.mark.parametrize("words", commands_after_training(), ids=" ".join)
def test_commands_after_training_run(words, small_run):
    name, *arguments = words
    arguments += ["input=my/pictures"] if name == "predict" else []
    text = shlex.join(["python", f"src/{name}.py", "run=last", *arguments])
    printed = run(text, small_run, HEADSTART_LOGS=str(small_run / "logs"))
    assert not re.search(r"\n(\x1b\[[\d;]*m)*error: ", printed), printed


@pytest.mark.exhaustive  # CI runs `make train` anyway
def test_the_readme_shows_what_make_train_prints(tmp_path):
    block = re.search(r"```\n(transfer against scratch.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    printed = run("python src/train.py experiment=letters_to_digits", tmp_path)
    assert missing_lines(tuple(block[1].splitlines()), printed) == []


TOO_LONG = "trainer.max_time="
"""In commands of the tutorial that take minutes; they are composed only."""


@pytest.mark.real
def test_the_tutorial_can_be_followed(real, tmp_path):
    """With 60 photos of each class of TrashNet as `my/pictures`; predictions depend on the long run."""
    photos = real / "data/trashnet"
    if not photos.is_dir():
        pytest.skip("there is no TrashNet")
    for folder in sorted((photos / "train").iterdir()):
        shutil.copytree(folder, tmp_path / "my/pictures" / folder.name, ignore=lambda _, names: sorted(names)[60:])
    (tmp_path / "my/new").mkdir()
    for number, photo in enumerate(sorted((photos / "test").glob("*/*.jpg"))[::200], 1):
        shutil.copy(photo, tmp_path / f"my/new/{number}.jpg")
    followed = 0
    for shown in commands():
        if shown.file != "docs/tutorial.md" or not shown.output or TOO_LONG in shown.text:
            continue
        weights = f" model.weights={real / 'weights/mobilenet_v2_imagenet.pth'}" if "train.py" in shown.text else ""
        printed = run(shown.text + weights, tmp_path, HEADSTART_LOGS=str(tmp_path / "logs"))
        expected = shown.output[:1] if "predict.py" in shown.text else shown.output
        assert missing_lines(expected, printed) == [], printed
        followed += 1
    assert followed == 4
