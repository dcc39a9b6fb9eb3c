"""Measures one part of `gpu_campaign.py` in this process.

    PYTHONPATH=scripts:src python -m gpu_parts fit --out <folder>

A part is a module with a function of its name. It measures cases; the result of a case is a flat dictionary, written to
`<out>/<part>.json` as soon as it is known. A case that is already there is not measured again. The part `settings`
measures nothing: it only writes `<out>/settings.json`, or compares it with this command, as every part does.
"""

import argparse
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import headstart.cli.run  # noqa: F401 - memory and threads as in the entry points; before torch is imported

from gpu_parts.bench import CUDA, FULL, PICTURES, TINY, Bench  # isort: skip
from gpu_parts.settings import keep_settings  # isort: skip


def main() -> None:
    """Measures one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="other networks of conf/model")
    parser.add_argument("--photos", type=Path, help="a folder with train/<class> and val/<class>")
    options = parser.parse_args()
    sizes = FULL if CUDA else TINY
    if options.networks:
        sizes = replace(sizes, networks=tuple(options.networks))
    out, photos = options.out.resolve(), options.photos and options.photos.resolve()
    keep_settings(out, sizes, photos)
    if options.part == "settings":
        return
    measure = getattr(import_module(f"gpu_parts.{options.part}"), options.part)
    bench = Bench(options.part, sizes, out, photos)
    os.environ["HEADSTART_LOGS"] = str(bench.work / "logs")
    os.environ["HEADSTART_CACHE"] = str(bench.cache(PICTURES))
    os.environ["HEADSTART_TRUST"] = "gpu_parts.watching"
    measure(bench)


if __name__ == "__main__":
    main()
