"""What lies in a run directory, and how runs and checkpoints are found."""

import ast
import json
import os
from pathlib import Path

import pytest

from headstart.errors import UsageError
from headstart.runs import directory, evaluations
from headstart.runs.directory import Run, find_checkpoint, find_runs, latest

SRC = Path(directory.__file__).parents[1]
NAMES = (
    *("config.yaml", "overrides.yaml", "metrics.json", "classes.json", "split.csv", "bad_files.csv", "auto.txt"),
    *("csv/metrics.csv", "report.html", "MODEL_CARD.md", "best.ckpt", "last.ckpt", "probe.ckpt", "*.ckpt"),
    *("evaluation.json", "predictions.csv", "evaluation_", "metrics_", "/scratch", "/checkpoints", "checkpoints/"),
)
"""Names and parts of names of files of a run directory."""
NAMED_BY_A_PERSON = ("cli/schemas.py", "predictions.csv")


def make_run(folder: Path, config: int = 0, overrides: int | None = None, checkpoints: tuple[str, ...] = ()) -> Run:
    """A run directory whose config and record of the command line were written at these times."""
    run = Run(folder)
    run.checkpoints_folder.mkdir(parents=True)
    run.config_file.touch()
    os.utime(run.config_file, (config, config))
    if overrides is not None:
        run.overrides_file.parent.mkdir()
        run.overrides_file.write_text("- seed=3\n- data=fake\n")
        os.utime(run.overrides_file, (overrides, overrides))
    for name in checkpoints:
        (run.checkpoints_folder / f"{name}.ckpt").touch()
    return run


def texts(path: Path) -> set[str]:
    """All texts in a Python file that are not docstrings, the constant parts of f-strings among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone)
    return {node.value for node in constants if isinstance(node.value, str)}


def test_file_names_of_a_run_are_spelt_in_runs_alone():
    found = {
        (path.relative_to(SRC).as_posix(), text)
        for path in SRC.rglob("*.py")
        if path.parent != SRC / "runs"
        for text in texts(path)
        if any(name in text for name in NAMES)
    }
    assert found == {NAMED_BY_A_PERSON, ("backbones/hub.py", "checkpoints/best.ckpt")}  # in a repository of the hub


def test_no_template_and_no_comment_names_them_either():
    names = [name for name in NAMES if "." in name]
    files = [path for path in SRC.rglob("*") if path.suffix in (".py", ".html", ".md") and path.parent != SRC / "runs"]
    found = {
        (path.relative_to(SRC).as_posix(), name)
        for path in files
        for name in names
        if name in path.read_text(encoding="utf-8")
    }
    in_a_repository = {("backbones/hub.py", "best.ckpt"), ("display/templates/MODEL_CARD.md", "best.ckpt")}
    assert found == {NAMED_BY_A_PERSON, *in_a_repository}


def test_the_home_of_a_checkpoint(tmp_path):
    run = make_run(tmp_path / "run", checkpoints=("best",))
    assert Run.of(run.best) == run
    (tmp_path / "best.ckpt").touch()
    assert Run.of(tmp_path / "best.ckpt") is None
    assert Run.of(Path("/best.ckpt")) is None


def test_the_home_of_a_checkpoint_does_not_depend_on_how_it_is_called(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", checkpoints=("best",))
    monkeypatch.chdir(run.checkpoints_folder)
    assert Run.of(Path("best.ckpt")) == run


def test_a_checkpoint_by_name(tmp_path):
    run = make_run(tmp_path / "run", checkpoints=("best", "last"))
    assert run.checkpoint("last") == run.last
    with pytest.raises(UsageError, match="no checkpoint 'bset' in its checkpoints folder; there are: best, last"):
        run.checkpoint("bset")


def test_a_run_has_ended_when_its_metrics_are_written(tmp_path):
    run = make_run(tmp_path / "run")
    assert not run.has_ended
    assert run.metrics_of("val") == {}
    run.metrics_file.write_text('{"score": null, "seconds": 3.5, "val/acc": 0.5, "val/loss": NaN, "test/acc": 0.25}')
    assert run.has_ended
    assert run.metrics == {"score": None, "seconds": 3.5, "val/acc": 0.5, "val/loss": None, "test/acc": 0.25}
    assert run.metrics_of("val") == {"acc": 0.5}


def test_classes_are_in_the_order_of_the_outputs(tmp_path):
    run = make_run(tmp_path / "run")
    run.classes_file.write_text('{"b": 1, "a": 0, "\xff": 2}', encoding="utf-8")
    assert run.classes == ["a", "b", "\xff"]


def test_what_was_typed(tmp_path):
    assert make_run(tmp_path / "a", overrides=1).overrides == ["seed=3", "data=fake"]
    assert make_run(tmp_path / "b").overrides is None


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "evaluation_test"),
        ({"checkpoint": "last"}, "evaluation_test_last"),
        ({"other_data": "/some/pictures"}, "evaluation_test_on_pictures"),
        ({"test_time": "with_mirror_image"}, "evaluation_test_with_mirror_image"),
        ({"test_time": "plain"}, "evaluation_test_plain"),
        (
            {"checkpoint": "last", "other_data": "x", "test_time": "with_mirror_image"},
            "evaluation_test_last_on_x_with_mirror_image",
        ),
    ],
)
def test_an_evaluation_has_a_folder_of_its_own(asked, name):
    assert Run(Path("run")).evaluation_folder("test", **asked) == Path("run") / name


def test_metrics_of_an_evaluation():
    run = Run(Path("run"))
    assert run.evaluated_metrics_file("val") == Path("run/metrics_val.json")
    assert run.evaluated_metrics_file("val", "last") == Path("run/metrics_val_last.json")


def evaluate(run: Run, kept: dict[str, float], evaluated: dict[str, float]) -> None:
    """Writes the metrics of a run and an evaluation of test."""
    run.metrics_file.write_text(json.dumps({"score": 0.5, **{f"test/{name}": value for name, value in kept.items()}}))
    folder = run.evaluation_folder("test")
    folder.mkdir()
    content = {"metrics": {name: {"value": value} for name, value in evaluated.items()}}
    evaluations.evaluation_file(folder).write_text(json.dumps(content))
    evaluations.predictions_file(folder).write_text("path,true,predicted,right\nx,a,a,1\ny,a,b,0\n")


@pytest.mark.parametrize(
    ("evaluated", "belongs"),
    [
        ({"acc": 0.9, "loss": 0.5, "ece": 0.1}, True),
        ({"acc": 0.901, "loss": 0.505, "ece": 0.1}, True),  # another precision
        ({"acc": 0.9, "loss": 0.5, "ece": 0.3}, True),  # a temperature
        ({"acc": 0.8, "loss": 0.5, "ece": 0.1}, False),
        ({"acc": 0.9, "loss": 0.7, "ece": 0.1}, False),
    ],
)
def test_an_evaluation_of_other_weights_does_not_count(evaluated, belongs, tmp_path):
    run = make_run(tmp_path)
    evaluate(run, {"acc": 0.9, "loss": 0.5, "ece": 0.1}, evaluated)
    assert (run.evaluation("test") is not None) == belongs
    assert run.predictions("test") == ({"x": ("a", True), "y": ("a", False)} if belongs else None)
    assert run.evaluation("val") is None
    assert run.predictions("val") is None


def folders(runs: list[Run], root: Path) -> list[str]:
    return [run.folder.relative_to(root).as_posix() for run in runs]


def test_runs_are_found_wherever_they_lie_the_jobs_of_a_sweep_in_their_order(tmp_path):
    places = ["team/alice/runs/a", "train/multiruns/today/2", "train/multiruns/today/10", "train/runs/a"]
    for place in reversed(places):
        make_run(tmp_path / place)
    make_run(tmp_path / "train/runs/a/scratch")  # a part of that run
    (tmp_path / "train/runs/failed/.hydra").mkdir(parents=True)
    assert folders(find_runs(tmp_path), tmp_path) == places
    assert find_runs(tmp_path / "train/runs/a") == [Run(tmp_path / "train/runs/a")]
    assert find_runs(tmp_path / "nowhere") == []


def test_links_to_runs_are_followed_and_links_that_lead_in_a_circle_are_not(tmp_path):
    run = make_run(tmp_path / "elsewhere/a")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/0").symlink_to(run.folder)
    (tmp_path / "sweep/up").symlink_to(tmp_path)
    assert folders(find_runs(tmp_path / "sweep"), tmp_path) == ["sweep/0"]


def test_the_latest_run_is_the_one_that_was_started_last(tmp_path):
    """Not the one whose config was written last: resuming writes it anew."""
    make_run(tmp_path / "resumed", config=9, overrides=1)
    newest = make_run(tmp_path / "newest", config=3, overrides=3)
    make_run(tmp_path / "without_record", config=2)
    assert latest(find_runs(tmp_path)) == newest
    assert latest([]) is None


def test_the_last_run_is_the_one_started_last_of_those_with_a_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="run=last: there is no run with a checkpoint in"):
        find_checkpoint("last", logs=str(tmp_path))
    make_run(tmp_path / "train/runs/b", config=0, checkpoints=("best",))
    make_run(tmp_path / "other/runs/c", config=9)  # it failed before it saved anything
    expected = make_run(tmp_path / "other/runs/a", config=1, checkpoints=("best",))
    assert find_checkpoint("last", logs=str(tmp_path)) == expected.best
    job = make_run(tmp_path / "other/multiruns/today/0", config=2, checkpoints=("best", "last"))
    assert find_checkpoint("last", "last", str(tmp_path)) == job.last
    nested = make_run(tmp_path / "team/alice/runs/a", config=3, checkpoints=("best",))
    make_run(nested.scratch.folder, config=4, checkpoints=("best",))
    assert find_checkpoint("last", logs=str(tmp_path)) == nested.best


def test_a_checkpoint_by_its_run_or_its_file(tmp_path):
    run = make_run(tmp_path / "run", checkpoints=("best", "last"))
    assert find_checkpoint(str(run.folder), "last") == run.last
    assert find_checkpoint(str(run.best)) == run.best
    with pytest.raises(UsageError, match="run=nowhere: no such file or folder"):
        find_checkpoint("nowhere")


@pytest.mark.parametrize(
    ("files", "is_worthless"),
    [
        ((), True),
        ((".hydra/overrides.yaml", "train.log", "config.yaml", "classes.json", "split.csv", "auto.txt"), True),
        (("csv/hparams.yaml", "tensorboard/events.out.tfevents.1"), True),
        (("tensorboard/events.out.tfevents.1",), False),
        (("csv/hparams.yaml", "csv/metrics.csv", "tensorboard/events.out.tfevents.1"), False),
        (("config.yaml", "metrics.json"), False),
        (("config.yaml", "checkpoints/last.ckpt"), False),
        (("train.log", "my_notes.txt"), False),
        (("train.log", "mine/server.log"), False),
    ],
)
def test_only_what_each_start_writes_is_worthless(tmp_path, files, is_worthless):
    (tmp_path / "run").mkdir()
    for file in files:
        (tmp_path / "run" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / file).write_text("x")
    run = Run(tmp_path / "run")
    assert run.is_worthless == is_worthless
    run.remove_if_worthless()
    assert run.folder.exists() != is_worthless
    assert is_worthless or all((run.folder / file).exists() for file in files)


def test_the_choices_of_a_run_are_those_of_its_command_line(tmp_path):
    assert Run(tmp_path).choices == {}
    run = Run(tmp_path)
    run.launch_file.parent.mkdir()
    run.launch_file.write_text(
        "hydra:\n  run: {dir: '${unknown:x}'}\n  runtime: {choices: {finetuning: lp_ft, debug: null, "
        "model: '${oc.env:HOME}', head: 5}}\n"
    )
    assert run.choices == {"finetuning": "lp_ft", "head": "5"}


@pytest.mark.parametrize(
    ("file", "content", "read", "message"),
    [
        ("metrics.json", "{", "metrics", "a JSON object was expected"),
        ("metrics.json", "[1]", "metrics", "it is a list"),
        ("metrics.json", '{"score": "high"}', "metrics", "score is no number"),
        ("metrics.json", '{"kept": {"any": 1}}', "kept", "kept: .*any"),
        ("classes.json", '{"cat": 0, "dog": 0}', "classes", "does not number the classes"),
        ("classes.json", '{"cat": 0, "dog": "x"}', "classes", "does not number the classes"),
        ("config.yaml", "a: [", "config", "a YAML file was expected"),
        ("config.yaml", "[" * 2000, "config", "a YAML file was expected"),
        ("config.yaml", "a: &a [1, 1]\nb: [*a, *a]", "config", "it has references"),
        ("config.yaml", "5", "config", "a YAML file was expected"),
        ("config.yaml", "a: !!timestamp x", "config", "a YAML file was expected"),
        ("config.yaml", "a: " + "x" * 10**6, "config", "at most 1,000,000 are read"),
        ("config.yaml", "- a", "config", "it is no config of a run"),
        (".hydra/hydra.yaml", "a: &a [1, 1]\nb: [*a, *a]", "choices", "it has references"),
        (".hydra/overrides.yaml", "- &a [1, 1]\n- [*a, *a]", "overrides", "it has references"),
    ],
)
def test_a_damaged_file_is_named(file, content, read, message, tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / file).write_text(content)
    with pytest.raises(UsageError, match=f"{file.split('/')[-1]} is damaged: .*{message}"):
        getattr(Run(tmp_path), read)
