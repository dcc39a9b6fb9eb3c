"""Checks that an interrupted and resumed run ends bitwise equal to an uninterrupted one.

python scripts/check_resume.py                      every epoch boundary, 18 signals and 20 kills: about five minutes
python scripts/check_resume.py --kills 100 --seed 1
python scripts/check_resume.py --setups plateau --set trainer.max_epochs=8 optimizer.lr=0.01

Each set-up is trained once without interruption, in a separate process: the reference run. Then it is trained again
many times, each time interrupted, resumed with `resume=<run directory>`, and compared with the reference: all of
last.ckpt and best.ckpt (weights, optimizer, schedulers, callbacks, progress), metrics.json, the rows of metrics.csv and
TensorBoard's scalars. A signal at the end of the last epoch leaves a last.ckpt from after this epoch; the last.ckpt of
the reference may be from the validation in it. If only last.ckpt differs, both runs therefore go on for another epoch,
and must be equal then.

The interrupted runs are also `src/train.py`, but forked from a process that has already imported torch: 1 second
instead of 6. A callback in the fork sends the signal at an exact moment; for half-written files the parent process
watches the folder and sends it. torch has one thread, because a fork cannot use the threads of its parent. Linux only.
"""

import argparse
import csv
import importlib
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from headstart.runs.directory import Run

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "src" / "train.py"
COMMON = (
    *("data=digits", "data.shots_per_class=4", "data.batch_size=7", "compare_scratch=false", "trainer=cpu"),
    *("data.val_fraction=0.05", "data.test_fraction=0.05", "trainer.max_epochs=4", "trainer.log_every_n_steps=2"),
)
# Together: both dropouts, every kind of BatchNorm and stage, both optimizers, schedulers that count steps, epochs and
# validations, accumulation, validation within epochs
SETUPS = {
    "unfreeze": (
        *("finetuning=unfreeze_at", "finetuning.epoch=1", "finetuning.batch_norm=[frozen,train]", "head=mlp"),
        *("augmentation=trivial_augment", "optimizer=sgd", "scheduler=onecycle", "task.unfreeze_warmup_steps=3"),
    ),
    "gradual": (
        *("finetuning=gradual", "finetuning.batch_norm=[frozen,affine,adapt_stats,train]", "head.dropout=0.2"),
        *("augmentation=flip_crop", "scheduler=warmup_cosine", "callbacks=ema", "callbacks.ema.decay=0.9"),
        "trainer.accumulate_grad_batches=2",
    ),
    "plateau": (
        *("finetuning=lp_ft", "finetuning.head_patience=1", "finetuning.batch_norm=train", "head.dropout=0.2"),
        *("augmentation=flip_crop", "scheduler=plateau", "scheduler.patience=0", "monitor=val/loss"),
        *("+trainer.val_check_interval=0.5", "data.sampler=balanced", "optimizer.lr=0.01"),
    ),
    # batches balanced by class, and a head that is fitted again at each validation
    "contrastive": (
        *("finetuning=lp_ft", "finetuning.contrastive=true", "finetuning.batch_norm=train", "head.dropout=0.2"),
        *("augmentation=flip_crop", "+trainer.val_check_interval=0.5", "optimizer.lr=0.01"),
        "scheduler=none",  # another schedule would refuse to go on for an epoch, see above
    ),
    # batches of texts of similar lengths, rows of different lengths in the cache; needs the package tokenizers
    "texts": (
        *("data=text_table", "data.root={made}/texts.csv", "data.shots_per_class=20", "model=transformers"),
        *("model.name={made}/model", "model.weights=null", "finetuning=gradual", "scheduler=slanted_triangular"),
    ),
}
# Modules that are slow to import; they must not compute anything before the fork
PRELOADED = (
    "headstart.training.run",
    "headstart.datasets.digits",
    "headstart.backbones.tiny_resnet",
    "headstart.callbacks.ema",
    "headstart.callbacks.interruption",
    "headstart.callbacks.csv_logger",
    "torch.utils.tensorboard",
    "sklearn.datasets",
)
STEP = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
VALIDATION = ("on_validation_start", "on_validation_batch_end", "on_validation_end")
EPOCH = ("on_train_epoch_start", "on_train_epoch_end")
TEST = ("on_test_start", "on_test_batch_end")
# Not callback hooks: a checkpoint is complete under its temporary name; it has just been renamed; its temporary file
# exists, completely written or not
BEFORE, AFTER, HALF = "before_replacing_a_checkpoint", "after_replacing_a_checkpoint", "half_written_file"
WRITTEN_BY_HYDRA = {".hydra", "train.log"}
# Lightning writes it into checkpoints, but nothing reads it
NEVER_RESTORED = "current_score"


@dataclass(frozen=True)
class Moment:
    """When to send a signal, and which: at occurrence `count` (from 0) of an event in a process."""

    event: str
    count: int
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{signal.Signals(self.signal).name} {self.event} {self.count}"


@dataclass(frozen=True)
class Scenario:
    """One run: one interruption per process, in order, and the number of loader processes."""

    setup: str
    moments: tuple[Moment, ...]
    workers: int

    def __str__(self) -> str:
        return f"{self.setup}, {self.workers} workers: {', then '.join(map(str, self.moments))}"


# --- one process --------------------------------------------------------------------------------------------------


def run_forked(arguments: list[str], log: Path, prepare: Callable[[], None], watch: Moment | None = None) -> int:
    """Runs `src/train.py` in a fork of this process; returns its exit code, -9 if it was killed."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _become_train(arguments, log, prepare)
    if watch and watch.event == HALF:
        _kill_while_saving(process, Run(Path(arguments[0].split("=", 1)[1])).checkpoints_folder, watch)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _become_train(arguments: list[str], log: Path, prepare: Callable[[], None]) -> None:
    """In the fork: sends the output to the log and runs `python src/train.py <arguments>`. Does not return."""
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        print("\n$ python src/train.py", *arguments, flush=True)
        sys.argv = [str(TRAIN), *arguments]
        prepare()
        runpy.run_path(str(TRAIN), run_name="__main__")
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_while_saving(process: int, folder: Path, moment: Moment) -> None:
    """Waits for the temporary file of save number `count`, then sends the signal at once."""
    seen: set[int] = set()
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        # one by one: a file may be renamed while the folder is listed
        names = os.listdir(folder) if folder.is_dir() else []
        for name in names:
            if name.endswith(".tmp"):
                try:
                    seen.add((folder / name).stat().st_ino)
                except FileNotFoundError:
                    continue
        if len(seen) > moment.count:
            os.kill(process, moment.signal)
            return
        time.sleep(0.0002)


def arm(moment: Moment | None) -> Callable[[], None]:
    """A function for the fork that prepares the signal at this moment; the parent sends the signal of HALF."""

    def prepare() -> None:
        if moment is None or moment.event == HALF:
            return
        signaller = _Signaller(moment)
        if moment.event in (BEFORE, AFTER):
            _around_replace(signaller, moment.event)
        else:
            _add_callback(signaller.at)

    return prepare


class _Signaller:
    """Sends the signal of a moment to this process when its event has happened often enough."""

    def __init__(self, moment: Moment):
        self.moment, self.seen = moment, 0

    def at(self, event: str) -> None:
        if event != self.moment.event:
            return
        self.seen += 1
        if self.seen == self.moment.count + 1:
            os.kill(os.getpid(), self.moment.signal)


def _around_replace(signaller: _Signaller, when: str) -> None:
    replace = os.replace

    def replacing(source: Any, target: Any) -> None:
        checkpoint = str(target).endswith(".ckpt")
        if checkpoint and when == BEFORE:
            signaller.at(BEFORE)
        replace(source, target)
        if checkpoint and when == AFTER:
            signaller.at(AFTER)

    os.replace = replacing


def _add_callback(notify: Callable[[str], None]) -> None:
    """Calls `notify` for the events of every trainer in this process, after the callbacks of the project."""
    from pytorch_lightning.callbacks import Callback

    from headstart.training import run as training

    def hook(event: str) -> Callable[..., None]:
        return lambda *_, **__: notify(event)

    hooks = {event: hook(event) for event in (*STEP, *VALIDATION, *EPOCH, *TEST)}
    build = training.build_trainer

    def build_trainer(*arguments: Any, **options: Any) -> Any:
        trainer = build(*arguments, **options)
        trainer.callbacks.append(type("Notifier", (Callback,), hooks)())
        return trainer

    training.build_trainer = build_trainer


# --- files of a run --------------------------------------------------------------------------------------------------


def content(run: Path) -> dict[str, Any]:
    """The files of a run as far as they must not depend on interruptions, without the path of the run."""
    import torch

    files, found = Run(run), dict[str, Any]()
    for file in files.checkpoints:
        found[file.name] = torch.load(file, map_location="cpu", weights_only=True)
        # may differ between two commands for the same run
        settings = found[file.name]["hyper_parameters"]["config"]
        settings["resume"] = settings["paths"] = settings["cache"] = settings["data"]["num_workers"] = None
        found[file.name]["callbacks"].pop("ForwardPassCounter")  # counts passes again after an interruption
        for key, state in found[file.name]["callbacks"].items():
            state.pop(NEVER_RESTORED, None)
            if key.startswith("ModelCheckpoint{'monitor': None"):  # empty until last.ckpt is written for the first time
                state.pop("best_model_path")
    names = {file.name for folder in (run, files.checkpoints_folder) for file in folder.iterdir()}
    found["files"] = sorted(names - WRITTEN_BY_HYDRA)
    found["metrics"] = files.metrics
    for cost in ("seconds", "passes"):  # after an interruption some work is repeated or already done
        found["metrics"].pop(cost)
    with files.history_file.open(newline="", encoding="utf-8") as stream:
        found["history"] = list(csv.DictReader(stream))
    found["tensorboard"] = _scalars(run / "tensorboard")
    return _without(str(run.resolve()), found)


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point of every curve; identical points count once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"scalars": 0}, purge_orphaned_data=False).Reload()
    return {tag: sorted({(e.step, e.value) for e in events.Scalars(tag)}) for tag in events.Tags()["scalars"]}


def _without(run: str, value: Any) -> Any:
    """The same value, with `<run>` for the path of the run directory in all strings."""
    if isinstance(value, dict):
        return {_without(run, key): _without(run, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without(run, item) for item in value)
    return value.replace(run, "<run>") if isinstance(value, str) else value


def differences(expected: Any, found: Any, place: str = "") -> Iterator[str]:
    """Every place where two contents are not bitwise equal."""
    import torch

    if type(expected) is not type(found):
        yield f"{place}: {_short(expected)} became {_short(found)}"
    elif isinstance(expected, dict):
        for key in {**expected, **found}:
            if key not in expected or key not in found:
                yield f"{place}/{key}: {'is new' if key in found else 'is missing'}"
            else:
                yield from differences(expected[key], found[key], f"{place}/{key}")
    elif isinstance(expected, (list, tuple)):
        if len(expected) != len(found):
            yield f"{place}: {len(expected)} entries became {len(found)}"
        for index, pair in enumerate(zip(expected, found, strict=False)):
            yield from differences(*pair, f"{place}/{index}")
    elif isinstance(expected, torch.Tensor):
        if not _same_bits(expected, found):
            yield f"{place}: the tensor differs"
    elif expected != found and (expected == expected or found == found):  # NaN equals NaN
        yield f"{place}: {_short(expected)} became {_short(found)}"


def _same_bits(expected: Any, found: Any) -> bool:
    import torch

    if expected.dtype != found.dtype or expected.shape != found.shape:
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (expected, found)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- scenarios ----------------------------------------------------------------------------------------------------


def plan(happens: Counter[str], kills: int, signals: int, rng: random.Random) -> list[tuple[Moment, ...]]:
    """Every epoch boundary once, signals at random moments of training, and kills.

    Args:
        happens: number of times each event happens without interruptions.
        kills: number of runs that are killed, one to three times each.
        signals: number of runs that get SIGTERM or SIGINT within an epoch.
        rng: source of the random moments.
    """
    polite = (signal.SIGTERM, signal.SIGINT)
    found: list[tuple[Moment, ...]] = [
        (Moment("on_train_epoch_end", epoch, polite[epoch % 2]),) for epoch in range(happens["on_train_epoch_end"])
    ]
    # all boundaries in one run: each process trains one epoch and is killed at the start of the next one
    found.append((Moment("on_train_epoch_start", 1),) * (happens["on_train_epoch_start"] - 1))
    for number in range(signals):
        event = rng.choice((*STEP, *VALIDATION))
        found.append((Moment(event, rng.randrange(happens[event]), polite[number % 2]),))
    kinds = (STEP, (HALF,), VALIDATION, (BEFORE, AFTER), EPOCH, (HALF,), STEP, TEST)
    for number in range(kills):
        events = [rng.choice(kinds[number % len(kinds)])]
        events += [rng.choice((*STEP, *VALIDATION, BEFORE, AFTER, HALF)) for _ in range(rng.randrange(3))]
        found.append(tuple(Moment(event, _any_of(happens[event], place, rng)) for place, event in enumerate(events)))
    return found


def _any_of(times: int, place: int, rng: random.Random) -> int:
    """A random occurrence out of `times`; an early one for a resumed run, which has fewer left."""
    return rng.randrange(max(times // (1 + 3 * place), 1))


def survey(overrides: list[str], folder: Path) -> Counter[str]:
    """Trains without interruption in a fork, and counts the events; the run is in `folder/survey`."""
    counted = folder / "events.json"

    def prepare() -> None:
        events: Counter[str] = Counter()

        def count(event: str) -> None:
            events[event] += 1
            if event in ("on_test_batch_end", "on_train_epoch_end"):
                counted.write_text(json.dumps(events), encoding="utf-8")

        _add_callback(count)
        replace = os.replace

        def replacing(source: Any, target: Any) -> None:
            for event in (BEFORE, AFTER, HALF):
                events[event] += str(target).endswith(".ckpt")
            replace(source, target)

        os.replace = replacing

    code = run_forked([f"hydra.run.dir={folder / 'survey'}", *overrides], folder / "survey.log", prepare)
    if code:
        sys.exit(f"the set-up itself fails with exit code {code}, see {folder / 'survey.log'}")
    return Counter(json.loads(counted.read_text(encoding="utf-8")))


def reference(overrides: list[str], folder: Path) -> dict[str, Any]:
    """The content of the run when an ordinary process trains the set-up without interruption."""
    run = folder / "reference"
    with (folder / "reference.log").open("wb") as log:
        command = [sys.executable, str(TRAIN), f"hydra.run.dir={run}", *overrides]
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.exit(f"the set-up itself fails with exit code {code}, see {folder / 'reference.log'}")
    return content(run)


def play(scenario: Scenario, overrides: list[str], run: Path) -> tuple[list[int], str | None]:
    """Trains with all interruptions, then to the end.

    Returns:
        the exit codes of all processes, and the problem with them, if any.
    """
    log, codes = run.with_suffix(".log"), []
    for moment in (*scenario.moments, None):
        begun = Run(run).exists
        first = [f"resume={run}"] if begun else [f"hydra.run.dir={run}", *overrides]
        arguments = [*first, f"data.num_workers={scenario.workers}"]
        codes.append(run_forked(arguments, log, arm(moment), moment))
        if codes[-1] not in (0, _code(moment)):
            return codes, f"a process ended with {codes[-1]} instead of {_code(moment)}"
    return codes, None


def _code(moment: Moment | None) -> int:
    """The exit code of a process after the signal of this moment."""
    if moment is None:
        return 0
    return -moment.signal if moment.signal == signal.SIGKILL else 128 + moment.signal


def make_texts(folder: Path) -> None:
    """Writes reviews and the folder of a text encoder, both made up."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_text

    tiny_text.write_model(folder / "model")
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as stream:
        names = [tiny_text.CLASSES[place % 2] for place in range(60)]
        rows = [(tiny_text.review(place, name), name) for place, name in enumerate(names)]
        csv.writer(stream).writerows([("text", "label"), *rows])


# --- all set-ups -----------------------------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed, one to three times each (20)")
    parser.add_argument("--signals", type=int, default=18, help="runs that get SIGTERM or SIGINT in an epoch (18)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (0)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="loader processes, in turn (0 2)")
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS), help="set-ups to train (all)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further overrides of every set-up")
    parser.add_argument("--folder", type=Path, help="keep all runs here (a temporary folder)")
    return parser.parse_args()


def check_setup(name: str, asked: argparse.Namespace, folder: Path) -> Counter[str]:
    """Runs all scenarios of one set-up; returns counts of scenarios, processes and interruptions."""
    overrides = [*(word.format(made=folder / "made") for word in (*COMMON, *SETUPS[name])), *asked.set]
    folder.mkdir(parents=True)
    if name == "texts":
        make_texts(folder / "made")
    expected = reference([*overrides, "data.num_workers=0"], folder)
    happens = survey([*overrides, "data.num_workers=0"], folder)
    require_equal(f"{name}: forked instead of started", expected, folder / "survey")
    share = [amount // len(asked.setups) + (asked.setups.index(name) < amount % len(asked.setups))
             for amount in (asked.kills, asked.signals)]  # fmt: skip
    planned = plan(happens, *share, random.Random(f"{asked.seed} {name}"))
    totals: Counter[str] = Counter()
    to_continue: list[Path] = []
    for number, moments in enumerate(planned):
        scenario = Scenario(name, moments, asked.workers[number % len(asked.workers)])
        started, run = time.monotonic(), folder / f"{number:03}"
        codes, wrong = play(scenario, overrides, run)
        differ = [wrong] if wrong else list(differences(expected, content(run)))
        seconds = time.monotonic() - started
        totals += Counter(killed=codes.count(-9), terminated=codes.count(143), interrupted=codes.count(130))
        totals += Counter(processes=len(codes))
        print(f"[{number + 1}/{len(planned)}] {scenario}: exit codes {codes}, {seconds:.0f} s: ", end="")
        if differ and not wrong and all(place.startswith("/last.ckpt/") for place in differ):
            print("only last.ckpt differs, so it goes on in the end", flush=True)
            to_continue.append(run)
            continue
        _tell(differ, run)
        totals += Counter(scenarios=1, unequal=bool(differ))
        if not differ:
            shutil.rmtree(run)
    expected = _continued(folder / "reference") if to_continue else {}
    for run in to_continue:
        print(f"{run.name} and the reference, one epoch more: ", end="")
        differ = list(differences(expected, _continued(run)))
        _tell(differ, run)
        totals += Counter(scenarios=1, unequal=bool(differ))
    return totals


def _tell(differ: list[str], run: Path) -> None:
    print("equal" if not differ else f"NOT EQUAL, see {run}", *differ[:10], sep="\n      ", flush=True)


def _continued(run: Path) -> dict[str, Any]:
    """The content of a run that has ended, after one epoch more."""
    epochs = OmegaConf.load(run / "config.yaml").trainer.max_epochs + 1
    arguments = [f"resume={run}", f"trainer.max_epochs={epochs}"]
    if code := run_forked(arguments, run.with_suffix(".log"), arm(None)):
        sys.exit(f"{run} does not go on: exit code {code}, see {run.with_suffix('.log')}")
    return content(run)


def require_equal(title: str, expected: dict[str, Any], run: Path) -> None:
    """Exits if two uninterrupted runs differ: then the other comparisons mean nothing."""
    differ = list(differences(expected, content(run)))
    print(f"{title}: {'equal' if not differ else 'NOT EQUAL'}", *differ[:10], sep="\n      ", flush=True)
    if differ:
        sys.exit(1)


def main() -> None:
    """Checks all set-ups; exit code 0 only if everything is equal."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    asked, started = options(), time.monotonic()
    sys.path.insert(0, str(ROOT / "src"))
    for module in PRELOADED:
        importlib.import_module(module)
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="check_resume_"))).resolve()
    print(f"runs are in {folder}", flush=True)
    totals: Counter[str] = Counter()
    for name in asked.setups:
        totals += check_setup(name, asked, folder / name)
    print(
        f"{totals['scenarios']} scenarios, {totals['processes']} processes: {totals['killed']} killed, "
        f"{totals['terminated']} ended by SIGTERM, {totals['interrupted']} by SIGINT; "
        f"{totals['scenarios'] - totals['unequal']} equal, {totals['unequal']} not; {time.monotonic() - started:.0f} s"
    )
    if not totals["unequal"] and asked.folder is None:
        shutil.rmtree(folder)
    sys.exit(bool(totals["unequal"]))


if __name__ == "__main__":
    main()
