"""Measures the speed of training, relative to a plain loop, a bare forward pass, and other libraries.

    python scripts/benchmark.py frozen     --data cats_dogs --weights mobilenet_v2.pth   feature extraction
    python scripts/benchmark.py efficiency --data ... --weights ...                      full finetuning
    python scripts/benchmark.py staged     --data ... --weights ...                      gradual, cached and uncached
    python scripts/benchmark.py growth     --data ... --weights ...                      epochs, pictures, memory

The cases run in turns, `--rounds` times, each in a separate process; "cold" means with empty caches. The table has
median and range of each case, and its ratio to the first row. `--data` holds train/<class>/ and val/<class>/;
`--weights` is a state_dict of torchvision's mobilenet_v2. `rivals.py` describes the other libraries. `--out` also
writes a figure, and the numbers as JSON, into a folder.
"""

import argparse
import csv
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytorch_lightning.callbacks import Callback

from headstart.runs.directory import find_runs

ROOT = Path(__file__).parents[1]
MANY_EPOCHS = 12  # with more epochs, only the first ones are listed


@dataclass
class Run:
    """One process: wall time and processor time in seconds, peak memory in GB, and its results."""

    seconds: float
    cpu: float
    peak: float
    facts: dict = field(default_factory=dict)


def timed(command: list[str], **environment: str) -> tuple[Run, str]:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; the message is its output.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{' '.join(command)} failed:\n{printed}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6), printed


class Clock(Callback):
    """Records the seconds of each epoch, without validation, and the number of pictures through the network.

    Args:
        file: the JSON file to write.
    """

    def __init__(self, file: str):
        self.file, self.epochs, self.seen = Path(file), [], 0

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Counts pictures, but not cached activations: the cache has counted their pictures."""
        inputs, _ = batch
        self.seen += len(inputs) if hasattr(inputs, "ndim") else 0
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Records the seconds up to the last step."""
        self.epochs.append(self.end - self.start)

    def on_fit_end(self, trainer, pl_module) -> None:
        """Writes the file."""
        frozen = sum(getattr(callback, "passes", 0) for callback in trainer.callbacks)
        self.file.write_text(json.dumps({"epochs": self.epochs, "passes": self.seen + frozen}))


class Bench:
    """The data and weights of a comparison, and a folder for the runs."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder = options, folder
        self.data, self.weights = (str(Path(given).resolve()) for given in (options.data, options.weights))

    def ours(self, *words: str, cache: str = "cold", data: str | None = None) -> Run:
        """`src/train.py` on the whole training folder; the cache `cold` is emptied first, others are kept."""
        place = self.folder / "caches" / cache
        if cache == "cold":
            shutil.rmtree(place, ignore_errors=True)
        logs = Path(tempfile.mkdtemp(dir=self.folder))
        command = [
            *(
                sys.executable,
                "src/train.py",
                "data=image_folder",
                f"data.root={data or self.data}",
                "data.test_fraction=0",
            ),
            *(f"model={self.options.model}", f"model.weights={self.weights}", "trainer.enable_progress_bar=false"),
            *("logger=csv", "test=false", f"seed={self.options.seed}", f"+callbacks.clock.file={logs / 'clock.json'}"),
            *("+callbacks.clock._target_=benchmark.Clock", *words),
        ]
        scripts = str(Path(__file__).parent)
        run, _ = timed(command, HEADSTART_LOGS=str(logs), HEADSTART_CACHE=str(place), PYTHONPATH=scripts)
        (made,) = find_runs(logs)
        with made.history_file.open() as stream:
            scores = [float(row["val/acc"]) for row in csv.DictReader(stream) if row.get("val/acc")]
        run.facts = json.loads((logs / "clock.json").read_text()) | {"val_acc": scores}
        shutil.rmtree(logs)
        return run

    def rival(self, kind: str, epochs: int) -> Run:
        """`scripts/rivals.py`; it does not get the allocator settings of this project."""
        words = [
            "--data",
            self.data,
            "--weights",
            self.weights,
            "--epochs",
            str(epochs),
            "--seed",
            str(self.options.seed),
        ]
        run, printed = timed([sys.executable, "scripts/rivals.py", kind, *words])
        run.facts = json.loads(printed.strip().splitlines()[-1])
        return run


def compared(cases: dict[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Runs every case once per round, in turns."""
    found: dict[str, list[Run]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            found[name].append(case())
    return found


def frozen(bench: Bench) -> dict[str, list[Run]]:
    """Feature extraction over `--epochs` epochs."""
    epochs = bench.options.epochs
    words = ["finetuning=feature_extraction", "finetuning.patience=null", f"trainer.max_epochs={epochs}"]
    quick = {
        "one plain forward pass": lambda: bench.rival("forward", 1),
        f"feature_extraction, {epochs} epochs, cold": lambda: bench.ours(*words),
        f"feature_extraction, {epochs} epochs, again": lambda: bench.ours(*words, cache="warm"),
        "probe, cold": lambda: bench.ours("finetuning=probe"),
        "probe, again": lambda: bench.ours("finetuning=probe", cache="warm"),
    }
    bench.ours(*words, "trainer.max_epochs=1", cache="warm")
    found = compared(quick, bench.options.rounds)
    few = bench.options.rival_epochs or epochs
    rivals = {
        f"tutorial, frozen, {few} epochs": lambda: bench.rival("tutorial_frozen", few),
        f"Lightning's BackboneFinetuning, {few} epochs": lambda: bench.rival("lightning", few),
    }
    if importlib.util.find_spec("fastai"):
        rivals |= {f"fastai's fine_tune, {few} epochs": lambda: bench.rival("fastai", few)}
    return found | compared(rivals, bench.options.slow_rounds)


def efficiency(bench: Bench) -> dict[str, list[Run]]:
    """Full finetuning: seconds of an epoch with cached pictures, against bare steps of the same model."""
    words = ["finetuning=full", "finetuning.patience=null", "trainer.max_epochs=2"]

    def second_epoch() -> Run:
        run = bench.ours(*words, cache="pictures")
        return Run(run.facts["epochs"][1], run.cpu, run.peak, run.facts)

    def tutorial() -> Run:
        run = bench.rival("tutorial_full", 1)
        return Run(run.facts["epochs"][0], run.cpu, run.peak, run.facts)

    def bare_steps() -> Run:
        run, printed = timed([sys.executable, __file__, "steps", "--data", bench.data, "--weights", bench.weights])
        facts = json.loads(printed.strip().splitlines()[-1])
        return Run(facts["seconds"], run.cpu, run.peak, facts)

    cases = {
        "bare steps, random pictures": bare_steps,
        "full, one epoch": second_epoch,
        "tutorial, one epoch": tutorial,
    }
    return compared(cases, bench.options.rounds)


def steps(options: argparse.Namespace) -> None:
    """Bare training steps on random pictures, with the model, batch size and optimizer of `finetuning=full`.

    Prints the seconds for the number of training pictures in `--data`, as JSON.
    """
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    import headstart.cli.run  # noqa: F401 - memory and threads as in the entry points
    from headstart.cli import resolvers
    from headstart.cli.conf_files import CONF

    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["model=mobilenet_v2", f"model.weights={options.weights}"])
    import torch

    pictures = sum(1 for path in Path(options.data, "train").rglob("*") if path.is_file())
    from headstart.finetuning.full import Full
    from headstart.tasks.from_config import task_from_config

    task = task_from_config(cfg, instantiate(cfg.model), ["a", "b"], class_weights=None)

    strategy = Full()
    strategy.make_plan(task)
    strategy.apply(task)
    optimizer = task.make_optimizer(task.parameters())
    size = cfg.data.batch_size
    side = task.backbone.preprocess.image_size
    inputs = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    targets = torch.arange(size) % 2
    taken = []
    for _ in range(15):
        start = time.perf_counter()
        optimizer.zero_grad()
        task.objective.loss(task(inputs), targets).backward()
        optimizer.step()
        taken.append(time.perf_counter() - start)
    print(json.dumps({"seconds": statistics.median(taken[3:]) * pictures / size}))


def staged(bench: Bench) -> dict[str, list[Run]]:
    """Gradual unfreezing in four stages, with and without the activation cache."""
    every = bench.options.stage_epochs
    words = [f"finetuning.{word}" for word in (f"groups={bench.options.groups}", f"every={every}", "patience=null")]
    words += ["finetuning=gradual", f"trainer.max_epochs={4 * every}"]
    cases = {
        "gradual, nothing cached": lambda: bench.ours(*words, "cache=off"),
        "gradual, cached, cold": lambda: bench.ours(*words),
        "gradual, cached, again": lambda: bench.ours(*words, cache="staged"),
    }
    bench.ours(*words, cache="staged")
    return compared(cases, bench.options.rounds)


def growth(bench: Bench) -> dict[str, list[Run]]:
    """More epochs, and ten times the pictures (copies of each file with another byte at the end)."""
    many = bench.folder / "many"
    for split in ("train", "val"):
        for path in sorted(Path(bench.data, split).glob("*/*")):
            for copy in range(10):
                place = many / split / path.parent.name / f"{copy}_{path.name}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes() + bytes([copy]))
    words = ["finetuning=feature_extraction", "finetuning.patience=null"]
    cases = {
        "5 epochs": lambda: bench.ours(*words, "trainer.max_epochs=5"),
        "20 epochs": lambda: bench.ours(*words, "trainer.max_epochs=20"),
        "80 epochs": lambda: bench.ours(*words, "trainer.max_epochs=80"),
        "5 epochs, 10 times the pictures": lambda: bench.ours(*words, "trainer.max_epochs=5", data=str(many)),
    }
    return compared(cases, bench.options.rounds)


def reached(run: Run, accuracy: float) -> str:
    """Epochs and seconds until the validation accuracy was first at least this high."""
    scores, epochs = run.facts.get("val_acc", []), run.facts.get("epochs", [])
    place = next((i for i, score in enumerate(scores) if score >= accuracy), None)
    if place is None:
        return "never" if scores else ""
    return f"{place + 1} epochs, {run.seconds - sum(epochs[place + 1 :]):.0f} s"


def show(found: dict[str, list[Run]], accuracy: float) -> None:
    """Prints a table in Markdown; ratios are relative to the first row."""
    first = statistics.median(run.seconds for run in next(iter(found.values())))
    print(
        "| | seconds | range | ratio | processor s | peak GB | pictures through the network | val acc: best, last "
        f"| {accuracy} reached after |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, runs in found.items():
        seconds = [run.seconds for run in runs]
        middle = statistics.median(seconds)
        scores = runs[0].facts.get("val_acc")
        shown = f"{max(scores):.3f}, {scores[-1]:.3f}" if scores else ""
        print(
            f"| {name} | {middle:.1f} | {min(seconds):.1f}-{max(seconds):.1f} | {middle / first:.2f} "
            f"| {statistics.median(run.cpu for run in runs):.0f} | {max(run.peak for run in runs):.2f} "
            f"| {runs[0].facts.get('passes', '')} | {shown} | {reached(runs[0], accuracy)} |"
        )
    for name, runs in found.items():
        if epochs := runs[0].facts.get("epochs"):
            more = ", ..." if len(epochs) > MANY_EPOCHS else ""
            shown = ", ".join(f"{seconds:.1f}" for seconds in epochs[:MANY_EPOCHS])
            print(f"\nseconds of each epoch, {name}: {shown}{more}", end="")
    print()


def draw(found: dict[str, list[Run]], target: Path) -> None:
    """Draws the medians as bars, and their range as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, ranges = list(found), [[run.seconds for run in runs] for runs in found.values()]
    middles = [statistics.median(seconds) for seconds in ranges]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(names) + 1))
    pairs = list(zip(middles, ranges, strict=True))
    errors = [[m - min(r) for m, r in pairs], [max(r) - m for m, r in pairs]]
    bars = axes.barh(names, middles, xerr=errors, color="#4477aa", ecolor="#222222", capsize=3)
    axes.bar_label(bars, [f"{middle:.1f} s" for middle in middles], padding=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds, median and range")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=150, bbox_inches="tight")


PARTS = {"frozen": frozen, "efficiency": efficiency, "staged": staged, "growth": growth}


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "steps"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="mobilenet_v2", help="for staged and growth another one is possible")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of the slow rivals")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of feature extraction")
    parser.add_argument("--stage-epochs", type=int, default=1, help="epochs of each stage of `staged`")
    parser.add_argument("--groups", type=int, default=3, help="layer groups that each stage of `staged` unfreezes")
    parser.add_argument("--rival-epochs", type=int, help="epochs of the rivals, if --epochs takes too long")
    parser.add_argument("--accuracy", type=float, default=0.95, help="validation accuracy whose time is shown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for <part>.png and <part>.json")
    options = parser.parse_args()
    if options.part == "steps":
        steps(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = PARTS[options.part](Bench(options, Path(folder)))
    show(found, options.accuracy)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        content = {name: [asdict(run) for run in runs] for name, runs in found.items()}
        (options.out / f"{options.part}.json").write_text(json.dumps(content, indent=1) + "\n")
        draw(found, options.out / f"{options.part}.png")


if __name__ == "__main__":
    main()
