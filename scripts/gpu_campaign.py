"""Measures everything that needs a GPU, the most important first, in a given number of minutes.

    python scripts/gpu_campaign.py                         all parts, in about 8 minutes on a fast GPU
    python scripts/gpu_campaign.py --minutes 4 --parts fit loaders
    python scripts/gpu_campaign.py --photos my/pictures    train/<class> and val/<class> instead of made-up photos

Each part runs in a process of its own and has a time limit. Results are kept after each case: the same command again
goes on with what is missing. It writes `<part>.json`, `<part>.log`, and all results as `table.md`. Without a GPU it
runs with tiny sizes, which tests the script and says nothing about speed. What needs a missing package is left out.
Exit code: 0 all measured or left out with a reason, 1 something failed, 3 the time was too short.

Parts: fit (whole training against a bare loop), probe, staged (gradual unfreezing), loaders, resume (after SIGKILL),
predict (and evaluate, ONNX), ddp, tests.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Share of the whole time that each part may take, in the order of their importance; what one leaves, the next may use
SHARES = {
    "fit": 0.5,
    "probe": 0.15,
    "staged": 0.15,
    "loaders": 0.15,
    "resume": 0.2,
    "predict": 0.1,
    "ddp": 0.1,
    "tests": 0.15,
}
MINIMUM = 20  # seconds; a part is not started with less
FAILED, NOT_REACHED = 1, 3


def main() -> int:
    """Runs the parts and writes the table."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    ends: dict[str, str] = {}
    for part in options.parts:
        left = end - time.monotonic()
        limit = min(left, 60 * options.minutes * SHARES[part])
        if left < MINIMUM:
            ends[part] = "not reached"
        elif not is_complete(options.out, part):
            print(f"{part}: at most {limit:.0f} s of {left:.0f} s", flush=True)
            ends[part] = run_part(part, limit, options)
            print(f"{part}: {ends[part]}", flush=True)
    table = report(options.out, options.parts, ends)
    (options.out / "table.md").write_text(table)
    print(f"\n{table}\nalso in {options.out / 'table.md'}")
    if any("failed" in result for part in options.parts for result in read_results(options.out, part).values()):
        return FAILED
    if any(how.startswith("failed") for how in ends.values()):
        return FAILED
    return NOT_REACHED if any(how != "complete" for how in ends.values()) else 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("logs/gpu_campaign"), help="folder of the results")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES), metavar="PART")
    parser.add_argument("--photos", type=Path, help="a folder with train/<class> and val/<class>")
    parser.add_argument("--networks", nargs="+", help="instead of resnet50 vit_b_16 convnext_tiny; files of conf/model")
    return parser.parse_args()


def run_part(part: str, limit: float, options: argparse.Namespace) -> str:
    """Runs one part to its end or its limit, and says in a few words how it ended."""
    command = [sys.executable, "-m", "gpu_parts", part, "--out", str(options.out)]
    command += ["--networks", *options.networks] if options.networks else []
    command += ["--photos", str(options.photos)] if options.photos else []
    scripts = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(scripts), str(scripts.parent / "src")])}
    with (options.out / f"{part}.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            status = process.wait(limit)
        except BaseException as reason:  # the limit, or Ctrl-C: the processes that the part started must end, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(reason, subprocess.TimeoutExpired):
                return f"cut off after {limit:.0f} s; the same command goes on with it"
            raise
    if status:
        return f"failed with exit code {status}: see {options.out / part}.log"
    (options.out / f"{part}.complete").touch()
    return "complete"


def is_complete(out: Path, part: str) -> bool:
    """Whether an earlier command measured all cases of a part."""
    return (out / f"{part}.complete").exists()


def read_results(out: Path, part: str) -> dict[str, dict]:
    """Case -> result, as far as measured."""
    file = out / f"{part}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def report(out: Path, parts: list[str], ends: dict[str, str]) -> str:
    """All results in Markdown."""
    texts = [f"{machine()}\n"]
    for part in parts:
        results = read_results(out, part)
        texts.append(f"## {part}")
        if ends.get(part, "complete") != "complete":
            texts.append(f"\n{ends[part]}")
        texts += tables(results)
    return "\n".join(texts)


def tables(results: dict[str, dict]) -> list[str]:
    """Cases with the same columns in one table; cases without a measurement as a list."""
    lines, columns = [], None
    for case, result in results.items():
        if {"failed", "left out"} & result.keys():
            continue
        if list(result) != columns:
            columns = list(result)
            lines += ["", f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
        cells = ("" if value is None else str(value) for value in result.values())
        lines.append(f"| {case} | {' | '.join(cells)} |")
    lines += [""] if lines else []
    for how in ("failed", "left out"):
        lines += [f"- {case}: {how}: {result[how]}" for case, result in results.items() if how in result]
    return [*lines, ""]


def machine() -> str:
    """GPU, driver and versions, or the plain statement that there is no GPU."""
    versions = ", ".join(f"{name} {installed(name)}" for name in ("torch", "torchvision", "pytorch-lightning"))
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        gpus = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        gpus = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    what = "; ".join(gpus) or "NO GPU: tiny sizes on the CPU, which say nothing about speed"
    return f"{what}. {cores} CPU cores, Python {platform.python_version()}, {versions}"


def installed(package: str) -> str:
    """The version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    sys.exit(main())
