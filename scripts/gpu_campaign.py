"""Measures everything that needs a GPU, the most important first, in a given number of minutes.

    python scripts/gpu_campaign.py                         all parts, in about 8 minutes on a fast GPU
    python scripts/gpu_campaign.py --minutes 4 --parts fit loaders
    python scripts/gpu_campaign.py --photos my/pictures    train/<class> and val/<class> instead of made-up photos

Each part runs in a process of its own and has a time limit. What a part leaves of its time, the later parts may use;
what is left at the end, the parts that were cut off. Results are kept after each case: the same command again goes on
with what is missing, failed or was left out. It writes `<part>.json`, `<part>.log`, and all results as `table.md`; also
after Ctrl-C and SIGTERM. One folder holds the results of one machine, one set of networks and one set of photos
(`settings.json`). What needs a missing package is left out. Without a GPU it runs with tiny sizes, which tests the
script and says nothing about speed.
Exit code: 0 all measured or left out with a reason, 1 something failed, 2 the folder holds results of other settings,
3 the time was too short.

Parts: fit (whole training against a bare loop), probe, staged (gradual unfreezing), loaders, resume (after SIGKILL),
predict (and evaluate, ONNX), ddp, tests.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Shares of the time, in the order of their importance. A part gets its share of the time that is left, compared with
# the parts that are still to do
SHARES = {
    "fit": 0.35,
    "probe": 0.1,
    "staged": 0.1,
    "loaders": 0.1,
    "resume": 0.15,
    "predict": 0.07,
    "ddp": 0.07,
    "tests": 0.1,
}
MINIMUM = 20  # seconds that a part gets at least; with less, it is not started
FAILED, REFUSED, NOT_REACHED = 1, 2, 3


def main() -> int:
    """Runs the parts and writes the table."""
    options = read_options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    if subprocess.run(command("settings", options), env=environment()).returncode:
        return REFUSED
    missing = [part for part in options.parts if not is_complete(options.out, part)]
    outcomes = dict.fromkeys(missing, "not reached")
    try:
        run_parts(missing, outcomes, end, options)
        run_parts([part for part in missing if outcomes[part].startswith("cut off")], outcomes, end, options)
    finally:
        table = report(options.out, options.parts, outcomes)
        (options.out / "table.md").write_text(table)
        print(f"\n{table}\nalso in {options.out / 'table.md'}", flush=True)
    if any("failed" in result for part in options.parts for result in read_results(options.out, part).values()):
        return FAILED
    if any(outcome.startswith("failed") for outcome in outcomes.values()):
        return FAILED
    return NOT_REACHED if any(outcome != "complete" for outcome in outcomes.values()) else 0


def run_parts(parts: list[str], outcomes: dict[str, str], end: float, options: argparse.Namespace) -> None:
    """Runs parts until a time, and writes down how each of them ended."""
    for place, part in enumerate(parts):
        left = end - time.monotonic()
        if left < MINIMUM:
            return
        limit = max(MINIMUM, left * SHARES[part] / sum(SHARES[later] for later in parts[place:]))
        print(f"{part}: at most {limit:.0f} s of {left:.0f} s", flush=True)
        outcomes[part] = "interrupted; the same command goes on with it"
        outcomes[part] = run_part(part, limit, options)
        print(f"{part}: {outcomes[part]}", flush=True)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("logs/gpu_campaign"), help="folder of the results")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES), metavar="PART")
    parser.add_argument("--photos", type=Path, help="a folder with train/<class> and val/<class>")
    parser.add_argument("--networks", nargs="+", help="instead of resnet50 vit_b_16 convnext_tiny; files of conf/model")
    return parser.parse_args()


def command(part: str, options: argparse.Namespace) -> list[str]:
    """The command that measures one part."""
    arguments = [sys.executable, "-m", "gpu_parts", part, "--out", str(options.out)]
    arguments += ["--networks", *options.networks] if options.networks else []
    arguments += ["--photos", str(options.photos)] if options.photos else []
    return arguments


def environment() -> dict[str, str]:
    """The environment of the parts, and of the processes that they start."""
    scripts = Path(__file__).resolve().parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(scripts), str(scripts.parent / "src")])}


def run_part(part: str, limit: float, options: argparse.Namespace) -> str:
    """Runs one part to its end or its limit, and says in a few words how it ended."""
    with (options.out / f"{part}.log").open("a") as log:
        process = subprocess.Popen(
            command(part, options), stdout=log, stderr=log, env=environment(), start_new_session=True
        )
        try:
            status = process.wait(limit)
        except BaseException as reason:  # the limit, Ctrl-C or SIGTERM: the processes of the part must end, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(reason, subprocess.TimeoutExpired):
                return f"cut off after {limit:.0f} s; the same command goes on with it"
            raise
    if status:
        return f"failed with exit code {status}: see {options.out / part}.log"
    if all(is_measured(result) for result in read_results(options.out, part).values()):
        (options.out / f"{part}.complete").touch()
    return "complete"


def is_complete(out: Path, part: str) -> bool:
    """Whether an earlier command measured all cases of a part."""
    return (out / f"{part}.complete").exists()


def is_measured(result: dict[str, Any]) -> bool:
    """Whether a case has neither failed nor been left out."""
    return not {"failed", "left out"} & result.keys()


def read_results(out: Path, part: str) -> dict[str, dict[str, Any]]:
    """Case -> result, as far as measured."""
    file = out / f"{part}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def report(out: Path, parts: list[str], outcomes: dict[str, str]) -> str:
    """All results in Markdown."""
    texts = [f"{machine(json.loads((out / 'settings.json').read_text()))}\n"]
    for part in parts:
        texts.append(f"## {part}")
        if outcomes.get(part, "complete") != "complete":
            texts.append(f"\n{outcomes[part]}")
        texts += tables(read_results(out, part))
    return "\n".join(texts)


def machine(settings: dict[str, Any]) -> str:
    """What the results were measured with."""
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return f"{settings['device']}. {settings['cores']} CPU cores; {versions}; pictures: {settings['pictures']}"


def tables(results: dict[str, dict[str, Any]]) -> list[str]:
    """Cases with the same columns in one table; cases without a measurement as a list."""
    lines, columns = [], None
    for case, result in results.items():
        if not is_measured(result):
            continue
        if list(result) != columns:
            columns = list(result)
            lines += ["", f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
        lines.append(f"| {case} | {' | '.join(map(shown, result.values()))} |")
    lines += [""] if lines else []
    for outcome in ("failed", "left out"):
        lines += [f"- {case}: {outcome}: {found[outcome]}" for case, found in results.items() if outcome in found]
    return [*lines, ""]


def shown(value: Any) -> str:
    """A cell; numbers that are not whole have three digits."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
