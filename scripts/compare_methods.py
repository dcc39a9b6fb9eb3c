"""Compares strategies of this project with other libraries, on the same few training pictures.

    python scripts/compare_methods.py --data cats_dogs --weights mobilenet_v2.pth --draws 5 --out results
    python scripts/compare_methods.py --out results             only the table of existing results

`--data` is a folder with train/<class>/ and optionally val/ and test/. A draw takes `--shots` pictures of each class
from train. Val and test are the same for all draws; without such a folder, they are a part of train. All methods train
MobileNetV2 on the same pictures, keep the weights that are best on val, and are tested once. `rivals.py` describes the
other libraries (fastai only if it is installed; `--python` names an interpreter that has it). Each result is a line of
`<out>/results.jsonl`; existing results are not run again. The table has mean (lowest to highest) over the draws;
`<out>/accuracy.png` shows the accuracy on test against the pictures per class, and against the median of the seconds.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmark import timed
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from plot_sweep import show_in_plain_numbers

from headstart.runs.directory import find_runs

OURS = {
    "probe": ["finetuning=probe"],
    "feature_extraction": ["finetuning=feature_extraction"],
    "full": ["finetuning=full"],
    "gradual": ["experiment=gradual_unfreezing"],
    "lp_ft": ["finetuning=lp_ft"],
    "auto": ["experiment=auto"],
}
RIVALS = ("tutorial_frozen", "tutorial_full", "lightning", "fastai")


def links(pictures: list[Path], folder: Path) -> None:
    """Makes links to pictures in `folder/<class>/`."""
    for picture in pictures:
        place = folder / picture.parent.name / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(picture.resolve())


def draw(options: argparse.Namespace, shots: int, number: int, folder: Path) -> None:
    """Makes train, val and test of one draw."""
    for kind in sorted(path for path in (options.data / "train").iterdir() if path.is_dir()):
        pool = sorted(kind.iterdir())
        random.Random(0).shuffle(pool)
        for split, most in (("val", options.val), ("test", options.test)):
            own = options.data / split / kind.name
            if own.is_dir():
                chosen = sorted(own.iterdir())
                random.Random(0).shuffle(chosen)
                links(chosen[:most], folder / split)
            else:
                links(pool[:most], folder / split)
                pool = pool[most:]
        random.Random(number).shuffle(pool)
        links(pool[:shots], folder / "train")


def ours(options: argparse.Namespace, words: list[str], epochs: int, seed: int, folder: Path) -> dict:
    """Runs `src/train.py` with an empty cache."""
    command = [
        *(sys.executable, "src/train.py", "data=image_folder", f"data.root={folder}", f"seed={seed}", "logger=csv"),
        *("model=mobilenet_v2", f"model.weights={options.weights.resolve()}", "trainer.enable_progress_bar=false"),
        *(f"+callbacks.clock.file={folder / 'clock.json'}", "+callbacks.clock._target_=benchmark.Clock"),
        *([] if options.image_size == 224 else [f"model.image_size={options.image_size}"]),
        *([] if "experiment=auto" in words else [f"trainer.max_epochs={epochs}"]),
        *words,
    ]
    places = {"HEADSTART_LOGS": str(folder / "logs"), "HEADSTART_CACHE": str(folder / "cache")}
    run, printed = timed(command, PYTHONPATH=str(Path(__file__).parent), **places)
    (made,) = find_runs(folder / "logs")
    found = made.metrics
    passes = json.loads((folder / "clock.json").read_text())["passes"]
    kept = [line for line in printed.splitlines() if line.startswith("kept")]
    return {"seconds": run.seconds, "val": found["val/acc"], "test": found["test/acc"], "passes": passes, "kept": kept}


def rival(options: argparse.Namespace, kind: str, epochs: int, seed: int, folder: Path) -> dict:
    """Runs `scripts/rivals.py`."""
    words = ["--data", str(folder), "--weights", str(options.weights.resolve()), "--epochs", str(epochs)]
    words += ["--seed", str(seed), "--image-size", str(options.image_size), "--test"]
    if kind.startswith("tutorial"):
        words += ["--batch-size", "4"]  # as in the tutorial; 32 would mean an eighth of the steps
    run, printed = timed([options.python, "scripts/rivals.py", kind, *words])
    found = json.loads(printed.strip().splitlines()[-1])
    return {"seconds": run.seconds, "val": max(found["val_acc"]), "test": found["test_acc"], "passes": found["passes"]}


def has_fastai(python: str) -> bool:
    """Whether fastai is installed for this interpreter."""
    return not subprocess.run([python, "-c", "import fastai"], capture_output=True, check=False).returncode


def table(results: list[dict]) -> None:
    """Prints a Markdown table: one row per method and number of pictures."""
    print("| data | per class | method | val | test | seconds | pictures through the network |\n" + "|---" * 7 + "|")
    groups: dict[tuple, list[dict]] = {}
    for row in results:
        groups.setdefault((row["data"], row["shots"], row["method"]), []).append(row)
    for (data, shots, method), rows in sorted(groups.items()):
        shown = []
        for key in ("val", "test"):
            values = [row[key] for row in rows]
            shown.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        seconds = sorted(row["seconds"] for row in rows)[len(rows) // 2]
        passes = sum(row["passes"] for row in rows) / len(rows)
        print(f"| {data} | {shots} | {method}, {len(rows)} | {shown[0]} | {shown[1]} | {seconds:.0f} | {passes:.0f} |")


def draw_results(results: list[dict]) -> Figure:
    """For each data set: mean accuracy on test (range shaded) against the pictures per class, and the seconds."""
    names = sorted({row["data"] for row in results})
    methods = [m for m in dict.fromkeys([*OURS, *RIVALS, *(row["method"] for row in results)])
               if any(row["method"] == m for row in results)]  # fmt: skip
    figure = Figure(figsize=(11, 4.2 * len(names)), layout="constrained")
    for (by_shots, by_time), name in zip(
        figure.subplots(len(names), 2, sharey="row", squeeze=False), names, strict=True
    ):
        for place, method in enumerate(methods):
            cells: dict[int, list[dict]] = {}
            for row in results:
                if (row["data"], row["method"]) == (name, method):
                    cells.setdefault(row["shots"], []).append(row)
            shots = sorted(cells)
            scores = [[row["test"] for row in cells[n]] for n in shots]
            means = [statistics.mean(each) for each in scores]
            look = {"color": f"C{place}", "marker": "o", "ls": "--" if method in RIVALS else "-", "label": method}
            by_shots.plot(shots, means, **look)
            by_shots.fill_between(shots, list(map(min, scores)), list(map(max, scores)), color=look["color"], alpha=0.1)
            by_time.plot([statistics.median(row["seconds"] for row in cells[n]) for n in shots], means, **look)
        numbers = sorted({row["shots"] for row in results if row["data"] == name})
        by_shots.set(title=name, xlabel="pictures per class", ylabel="accuracy on test", xscale="log")
        by_shots.set_xticks(numbers, [str(n) for n in numbers])
        by_shots.xaxis.set_minor_locator(NullLocator())
        by_time.set(title=name, xlabel="seconds of the whole command (median)")
        show_in_plain_numbers(by_time)
        for axes in (by_shots, by_time):
            axes.grid(alpha=0.3)
        by_time.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def main() -> None:
    """Runs the missing cases, then shows all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="a state_dict of torchvision's mobilenet_v2")
    parser.add_argument("--methods", nargs="+", default=[*OURS, *RIVALS], choices=[*OURS, *RIVALS])
    parser.add_argument(
        "--with", nargs="+", default=[], dest="words", help="further overrides for the methods of this project"
    )
    parser.add_argument("--label", default="", help="suffix of the name of the method")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10, 25], help="training pictures per class")
    parser.add_argument(
        "--draws", type=int, nargs="+", default=[5], help="number of draws; or the seeds of several draws"
    )
    parser.add_argument("--epochs", type=int, default=20, help="epochs of all methods but probe and auto")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--val", type=int, default=100, help="most val pictures per class")
    parser.add_argument("--test", type=int, default=60, help="most test pictures per class")
    parser.add_argument("--python", default=sys.executable, help="the Python interpreter for rivals.py")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data and "fastai" in options.methods and not has_fastai(options.python):
        print(f"{options.python} has no fastai: it is left out", file=sys.stderr)
        options.methods.remove("fastai")
    file = options.out / "results.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    draws = range(options.draws[0]) if len(options.draws) == 1 else options.draws
    for number in draws if options.data else []:
        for shots in options.shots:
            for method in options.methods:
                name = f"{method}{options.label}"
                key = {"data": options.data.name, "shots": shots, "draw": number, "method": name}
                if any(key.items() <= row.items() for row in done):
                    continue
                print(key, file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as folder:
                    draw(options, shots, number, Path(folder))
                    if method in OURS:
                        words = [*OURS[method], *options.words]
                        result = ours(options, words, options.epochs, number, Path(folder))
                    else:
                        result = rival(options, method, options.epochs, number, Path(folder))
                done.append(key | result)
                with file.open("a") as stream:
                    stream.write(json.dumps(done[-1]) + "\n")
    if not done:
        sys.exit(f"there are no results in {file}: give --data and --weights")
    table(done)
    draw_results(done).savefig(options.out / "accuracy.png", dpi=110)


if __name__ == "__main__":
    main()
