"""Measures how fast the command line answers: `python scripts/bench_startup.py [--rounds 5]`.

All cases run in turns, so that other work on the machine slows all of them equally. The table shows the median wall
time and processor time of each case. The last two cases are for comparison.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CASES = {
    "--help": ["src/train.py", "--help"],
    "misspelt group": ["src/train.py", "modle=resnet50"],
    "misspelt setting": ["src/train.py", "trainer.max_epoch=3"],
    "unknown key": ["src/train.py", "+seeed=3"],
    "wrong type": ["src/train.py", "optimizer.lr=fast"],
    "contradiction": ["src/train.py", "monitor=val/loss", "mode=max"],
    "evaluate, no such run": ["src/evaluate.py", "run=nowhere"],
    "import hydra": ["-c", "import hydra"],
    "import headstart.training.run": ["-c", "import headstart.training.run"],
}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Wall time and processor time of `python <arguments>`, in seconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True)
    wall, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def main() -> None:
    """Measures every case in each round and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, arguments in CASES.items():
            found[name].append(measure(arguments))
    print(f"{'median of ' + str(rounds):26} {'wall s':>8} {'cpu s':>8}")
    for name, times in found.items():
        wall, used = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:26} {wall:8.2f} {used:8.2f}")


if __name__ == "__main__":
    main()
