"""Measures how fast the command line answers: `python scripts/bench_startup.py [--rounds 5] [--before <checkout>]`.

All cases run in turns, in this checkout and in the one to compare with, so that other work on the machine slows all of
them equally. The table shows the median and the range of the processor time (user and system) of each case, which other
work changes less than the wall time, and the median seconds to the first word and to the end.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
TINY = ("data=fake", "experiment=null", "model=tiny_resnet", "trainer=cpu", "debug=fast")
CASES = {
    "--help": ["src/train.py", "--help"],
    "misspelt group": ["src/train.py", "modle=resnet50"],
    "misspelt setting": ["src/train.py", "trainer.max_epoch=3"],
    "contradiction": ["src/train.py", "monitor=val/loss", "mode=max"],
    "evaluate, no such run": ["src/evaluate.py", "run=nowhere"],
    "one batch of everything": ["src/train.py", *TINY],
    "one batch, linear probe": ["src/train.py", *TINY, "finetuning=probe"],
    "import headstart.training.run": ["-c", "import headstart.training.run"],
    "import headstart.inference.predict": ["-c", "import headstart.inference.predict"],
    "import torch": ["-c", "import torch"],
    "import hydra": ["-c", "import hydra"],
}


def measure(root: Path, arguments: list[str]) -> tuple[float, float, float]:
    """Processor seconds of `python <arguments>` in a checkout, seconds to its first word, and to its end."""
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(root / "src"), "HEADSTART_LOGS": folder}
        before, started = os.times(), time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        process.stdout.read(1)
        first_word = time.perf_counter() - started
        process.communicate()
        wall, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, first_word, wall


def main() -> None:
    """Measures every case in each round and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout, such as a git worktree of an earlier commit")
    parser.add_argument("--cases", default="", help="only cases whose name has this text in it")
    given = parser.parse_args()
    roots = {"before": given.before.resolve(), "now": ROOT} if given.before else {"now": ROOT}
    cases = {name: arguments for name, arguments in CASES.items() if given.cases in name}
    found = {(name, when): [] for name in cases for when in roots}
    for _ in range(given.rounds):
        for name, when in found:
            found[name, when].append(measure(roots[when], cases[name]))
    print(f"{'median of ' + str(given.rounds):36} {'cpu s (range)':>24} {'first word s':>13} {'end s':>7}")
    for (name, when), times in found.items():
        used, first_word, wall = zip(*times, strict=True)
        spread = f"{statistics.median(used):.2f} ({min(used):.2f} to {max(used):.2f})"
        shown = f"{name}, {when}" if given.before else name
        print(f"{shown:36} {spread:>24} {statistics.median(first_word):13.2f} {statistics.median(wall):7.2f}")


if __name__ == "__main__":
    main()
