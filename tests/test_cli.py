"""What a person sees who types something that cannot work: a sentence, what to type instead, and exit code 2."""

import errno
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs an entry point in this process as the shell would; returns exit code and what it wrote to stderr."""

    def run(script: str, *arguments: str) -> tuple[int, str]:
        import importlib

        from headstart.cli import sweep_table as sweep
        from headstart.cli.run import run_entry_point

        module = importlib.import_module(script)
        monkeypatch.chdir(tmp_path)
        # Hydra adds handlers that write to the streams of this test, which are closed after it
        monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        # the sweep table belongs to the end of a process
        monkeypatch.setattr(sweep, "atexit", SimpleNamespace(register=lambda *_: None))
        monkeypatch.setattr(sys, "argv", [str(ROOT / "src" / f"{script}.py"), *arguments])
        code = 0
        try:
            run_entry_point(module.main, script)
        except SystemExit as leaving:
            code = leaving.code
        return code, capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("model=resnet51", "conf/model has no such file, did you mean 'resnet50'?"),
        ("modle=resnet50", "there is no 'modle', did you mean 'model'?"),
        ("trainer.max_epoch=3", "there is no 'trainer.max_epoch', did you mean 'trainer.max_epochs'?"),
        ("+seeed=3", "there is no key 'seeed', did you mean 'seed'?"),
        ("seed=abc", "Value 'abc' of type 'str' could not be converted to Integer"),
        ("scheduler=null", "scheduler=null: choose a file of conf/scheduler; scheduler=none switches it off"),
        ("data=image_folder", "data.root must be given: add data.root=<value>"),
        ("data=image_folder data.root=nowhere", "data.root=nowhere: no such folder"),
        ("data.shots_per_class=5 data.train_fraction=0.1", "both choose the training samples: give one"),
        ("data.fold=5 data.num_folds=5", "fold from 0 to num_folds - 1"),
        ("data.shots_per_class=500", "has only"),
        ("task=binary", "the data has 10: use task=classification"),
        ("monitor=val/accuracy", "did you mean 'val/acc'?"),
        ("monitor=val/loss mode=max", "mode=max contradicts monitor=val/loss"),
        pytest.param(
            "model=resnet18 model.weights=IMAGENET1K_V3",
            "resnet18 has no weights 'IMAGENET1K_V3'",
            marks=pytest.mark.slow,
        ),
        ("model=torchvision model.name=resnet51", "torchvision has no classifier 'resnet51', did you mean 'resnet"),
        ("model=resnet18 model.weights=gone.pth", "model.weights=gone.pth: there is no such file or folder"),
        ("trainer=gpu", "gpu"),
        ("optimizer.lr=fast", "optimizer.lr=fast: this must be a number"),
        ("task=multilabel", "the data have one class per sample: use task=classification"),
        ("data=fake data.multi_label=true", "the data have several labels per sample: use task=multilabel"),
        ("trainer=ddp_cpu -m seed=0", "a sweep (-m) runs on one device per job"),
        ("trainer=ddp_cpu report=true", "report=true needs one process, but this run has 2"),
        ("callbacks.best_checkpoint.save_top_k=3", "files cannot all be called 'best'"),
        ("trainer.val_check_intervall=0.5", "+trainer.val_check_intervall=0.5"),
        ("task.backbone_lr_ratio=0", "finetuning=feature_extraction"),
    ],
    ids=lambda value: value if "=" in value else "",
)
def test_train_refuses_in_a_sentence(arguments, told, command):
    if arguments == "trainer=gpu":
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    code, error = command("train", "compare_scratch=false", "trainer.max_epochs=1", *arguments.split())
    assert code == 2
    assert told in re.sub(r"\s+", " ", error)
    assert "Traceback" not in error
    assert ("Error executing job" in error) == ("-m" in arguments.split())  # in a sweep it names the job


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "add run=<run>\n  run=<run>  "),
        ("run=nowhere split=tset", "split=tset, did you mean 'test'?: choose one of train, val, test"),
        ("run=nowhere", "run=nowhere: no such file or folder"),
        ("rnu=nowhere", "there is no 'rnu', did you mean 'run'?"),
        ("run=last logs=nowhere", "run=last: there is no run with a checkpoint in nowhere yet"),
        ("run=nowhere explian=3", "there is no 'explian', did you mean 'explain'?"),
        ("run=nowhere explain=many", "Value 'many' of type 'str'"),
        ("run=nowhere explain=-1", "explain=-1: give a whole number of at least 0"),
        ("run=nowhere data.batch_size=0", "data.batch_size=0: give a whole number of at least 1"),
    ],
)
def test_evaluate_refuses_in_a_sentence(arguments, told, command):
    code, error = command("evaluate", *arguments.split())
    assert code == 2
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("run=nowhere", "run=nowhere: no such file or folder"),
        ("run=last logs=nowhere", "run=last: there is no run with a checkpoint in nowhere yet"),
        ("", "add run=<run>"),
        ("run=nowhere worst=-1", "worst=-1: give a whole number of at least 0"),
        ("run=nowhere exampels=3", "there is no 'exampels', did you mean 'examples'?"),
    ],
)
def test_report_refuses_in_a_sentence(arguments, told, command):
    code, error = command("report", *arguments.split())
    assert code == 2
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["~/x", "Bücher", "it's", 'a"b', "a(1).jpg", "x=y", "a{b", "#1"])
def test_a_path_that_hydra_cannot_read_is_to_be_quoted(name, command):
    code, error = command("predict", "run=nowhere", f"input={name}")
    assert code == 2
    assert "Traceback" not in error
    (quoted,) = shlex.split(error.rsplit("taken as it is: ", 1)[1])
    code, error = command("predict", "run=nowhere", quoted)
    assert (code, "run=nowhere: no such file or folder" in error) == (2, True), error
    assert compose_override(quoted) == name


def compose_override(override):
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "add run=<run> and input=<files>"),
        ("run=nowhere", "add input=<files>"),
        ("run=nowhere input=x", "run=nowhere: no such file or folder"),
        ("run=nowhere inptu=x", "there is no 'inptu', did you mean 'input'?"),
        ("run=nowhere input=x top_k=0", "top_k=0: give a whole number of at least 1"),
        ("run=nowhere input=x format=cvs", "format=cvs, did you mean 'csv'?: choose one of csv, json, jsonl"),
        ("run=nowhere input=[a.txt,-] column=review", "column=review is for tables (.csv, .tsv"),
        ("run=nowhere input=new/* column=review", "run=nowhere: no such file or folder"),  # tables may match
        ("run=nowhere input=x output=a.txt", "ends in none of .csv, .json, .jsonl"),
        ("run=nowhere input=x output=.", "output=. is a folder"),
        ("run=nowhere input=x batch_size=0", "batch_size=0"),
    ],
)
def test_predict_refuses_in_a_sentence(arguments, told, command):
    code, error = command("predict", *arguments.split())
    assert code == 2
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "add run=<run> and format=onnx"),
        ("run=nowhere format=torchscript", "run=nowhere: no such file or folder"),
        ("run=nowhere format=onx", "format=onx, did you mean 'onnx'?"),
        ("run=nowhere format=torchscript resize=within", "resize=within: choose one of inside, outside"),
        ("run=nowhere format=torchscript quantize=int8", "only format=onnx can be quantized"),
        ("run=nowhere format=torchscript tolerance=2", "tolerance=2.0: give a number from 0 to 1"),
        ("run=nowhere format=torchscript pictures=0", "pictures=0: give a whole number of at least 1"),
        ("run=nowhere format=torchscript output=.", "output=. is a folder: give a file such as model.pt"),
        ("run=nowhere format=torchscript quantise=int8", "did you mean 'quantize'?"),
    ],
)
def test_export_refuses_in_a_sentence(arguments, told, command):
    code, error = command("export", *arguments.split())
    assert code == 2
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [("nowhere", "nowhere is neither a run nor a folder of runs"), ("", "folders"), ("x --split=train", "--split")],
)
def test_compare_refuses_in_a_sentence(arguments, told, command):
    code, error = command("compare", *arguments.split())
    assert code == 2
    assert told in error
    assert "Traceback" not in error


def test_export_says_how_to_get_what_onnx_needs(command, monkeypatch):
    from headstart.cli import schemas

    monkeypatch.setattr(schemas, "find_spec", lambda name: None)
    code, error = command("export", "run=nowhere", "format=onnx")
    assert code == 2
    assert 'format=onnx needs onnx, onnxscript, onnxruntime: pip install -e ".[onnx]"' in error


def test_our_own_faults_show_a_traceback_and_exit_with_1(command, monkeypatch):
    from headstart.training import run as training

    monkeypatch.setattr(training, "train", lambda cfg: 1 / 0)
    code, error = command("train")
    assert code == 1
    assert "Traceback" in error
    assert "ZeroDivisionError" in error


def test_a_failed_run_leaves_no_folder_unless_it_wrote_something(command, tmp_path, monkeypatch):
    from headstart.training import run as training

    monkeypatch.setattr(training, "train", lambda cfg: 1 / 0)
    runs = tmp_path / "logs/train/runs"
    assert command("train", f"paths.logs={tmp_path / 'logs'}")[0] == 1
    assert list(runs.iterdir()) == []

    def fails_late(cfg):
        (Path(cfg.paths.run) / "checkpoints").mkdir()
        (Path(cfg.paths.run) / "checkpoints/last.ckpt").touch()
        raise ZeroDivisionError

    monkeypatch.setattr(training, "train", fails_late)
    assert command("train", f"paths.logs={tmp_path / 'logs'}")[0] == 1
    assert len(list(runs.iterdir())) == 1


@pytest.mark.parametrize("with_config", [False, True])
def test_an_interrupted_run_stays_if_it_can_be_continued(command, tmp_path, monkeypatch, with_config):
    from headstart.training import run as training

    def interrupted(cfg):
        if with_config:
            (Path(cfg.paths.run) / "config.yaml").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert command("train", f"paths.logs={tmp_path / 'logs'}")[0] == 130
    assert len(list((tmp_path / "logs/train/runs").iterdir())) == with_config


def shell(*arguments, **variables):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables}
    )


def test_a_full_disk_is_told_without_a_traceback(command, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")

    monkeypatch.setattr("headstart.training.run.train", full)
    code, told = command("train")
    assert code == 1
    assert told.strip().endswith("error: [Errno 28] No space left on device: 'metrics.csv'")
    assert "Traceback" not in told


def test_help_is_a_help():
    done = shell("src/train.py", "--help")
    assert done.returncode == 0
    assert "python src/train.py model=resnet50 data=image_folder data.root=my/pictures" in done.stdout
    assert re.search(r"^finetuning: .*\n  auto, .*feature_extraction, full", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("word", "auto"), [("optimizer=adam", "true"), ("finetuning=full", "false"), ("experiment=null", "false")]
)
def test_the_default_recipe_is_in_what_cfg_shows(word, auto):
    done = shell("src/train.py", "data=image_folder", "data.root=x", word, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert f"\nauto: {auto}\n" in done.stdout


@pytest.mark.parametrize("name", ["evaluate", "predict", "export", "report", "serve", "push"])
def test_the_help_tells_every_word(name):
    from headstart.cli.schemas import ROOTS
    from headstart.cli.settings import settings_of

    done = shell(f"src/{name}.py", "--help")
    assert done.returncode == 0
    examples, settings = done.stdout.split("\nSettings:\n")
    assert f"  python src/{name}.py run=" in examples
    told = set(re.findall(r"^  ([\w.]+)=", settings, re.MULTILINE))
    assert told == {name for name, _ in settings_of(ROOTS[name])}
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("+seeed=3", "did you mean 'seed'"),
        ("modle=resnet50", "did you mean 'model'"),
        ("model=resnet51", "did you mean 'resnet50'"),
        ("trainer.max_epoch=3", "did you mean 'trainer.max_epochs'"),
        ("data=image_folder", "add data.root=<value>"),
        ("optimizer.lr=fast", "optimizer.lr=fast: this must be a number"),
        ("optimizer=sgd optimizer.nesterov=on_sundays", "this must be true or false"),
        (
            "finetuning=gradual finetuning.every=lots data.batch_size=lots",
            "finetuning.every=lots: this must be a number",
        ),
        ("monitor=val/loss mode=max", "contradicts"),
    ],
)
def test_a_mistake_is_told_without_loading_torch(mistake, told):
    """In a second: torch, Lightning and torchvision take several to import."""
    arguments = ["src/train.py", *mistake.split()]
    start = f"""
import runpy, sys
sys.argv = {arguments}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(sorted({{"torch", "pytorch_lightning", "torchvision"}} & set(sys.modules)))
"""
    done = shell("-c", start, PYTHONPATH=str(ROOT / "src"))
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == "[]\n"


QUICK = (
    "data=fake", "data.num_samples=60", "data.image_size=16", "model.image_size=16", "trainer=cpu",
    "trainer.max_epochs=1",
)  # fmt: skip


@pytest.mark.slow
def test_a_failing_job_does_not_take_the_sweep_along(tmp_path):
    done = shell("src/train.py", "-m", "data.shots_per_class=5,500", *QUICK, HEADSTART_LOGS=str(tmp_path))
    assert done.returncode == 2
    assert "data.shots_per_class=500: class" in done.stderr
    assert re.search(r"data.shots_per_class=500.*not ended", done.stderr)
    (table,) = tmp_path.glob("train/multiruns/*/sweep.csv")
    scores = [row.split(",")[1] for row in table.read_text().splitlines()[1:]]
    assert scores[0]
    assert not scores[1]
    again = shell("src/train.py", f"resume={table.parent}", HEADSTART_LOGS=str(tmp_path))
    assert again.returncode == 1
    assert "1 of 2 jobs have ended" in again.stderr
    assert "1 of 2 jobs failed: 1. Their messages are above" in again.stderr


@pytest.mark.slow
def test_a_parallel_launcher_has_a_table_of_all_jobs(tmp_path):
    words = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "experiment=null")
    done = shell("src/train.py", *words, *QUICK, HEADSTART_LOGS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (table,) = tmp_path.glob("train/multiruns/*/sweep.csv")
    rows = [row.split(",") for row in table.read_text().splitlines()[1:]]
    assert [row[0].split()[0] for row in rows] == ["seed=0", "seed=1"]
    assert all(row[1] for row in rows)
    assert "sweep: best val/acc of each job" in done.stderr


@pytest.mark.slow
def test_train_then_evaluate_then_sweep_as_processes(tmp_path):
    logs = str(tmp_path / "logs")
    done = shell("src/train.py", *QUICK, HEADSTART_LOGS=logs)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert re.search(r"^test/acc: [01]\.\d{4}$", done.stdout, re.MULTILINE)
    (run,) = (tmp_path / "logs/train/runs").iterdir()
    again = shell("src/evaluate.py", f"run={run}", "split=test", HEADSTART_LOGS=logs)
    assert not (ROOT / "evaluate.log").exists()
    assert again.returncode == 0, again.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("test/")] == again.stdout.splitlines()

    sweep = shell("src/train.py", "-m", "seed=0,1", "optimizer.lr=1e-3,1e-2", *QUICK, HEADSTART_LOGS=logs)
    assert sweep.returncode == 0, sweep.stderr
    (folder,) = (tmp_path / "logs/train/multiruns").iterdir()
    rows = (folder / "sweep.csv").read_text().splitlines()
    assert rows[0] == "job,score,run,seconds,parameters"
    assert len(rows) == 5
    scores = [float(row.split(",")[1]) for row in rows[1:]]
    assert [row.split(",")[2] for row in rows[1:]] == [str(folder / str(job)) for job in range(4)]
    assert all(float(row.split(",")[3]) > 0 and int(row.split(",")[4]) > 300_000 for row in rows[1:])
    assert "seed=1 optimizer.lr=0.01" in sweep.stderr
    assert "data=fake" not in sweep.stderr.split("sweep: best val/acc")[1]
    kept = [json.loads((folder / str(job) / "metrics.json").read_text())["score"] for job in range(4)]
    assert scores == pytest.approx(kept, abs=1e-5)


def test_a_reader_that_goes_away_is_no_error():
    """As with `python src/predict.py ... | head`, where the pipe breaks within the job."""
    program = (
        "from headstart.cli import run\n"
        "def main():\n"
        "    raise run.JobFailed from BrokenPipeError(32, 'Broken pipe')\n"
        "run.run_entry_point(main, 'predict')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == ""
