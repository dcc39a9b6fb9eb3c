"""What a folder of results was measured with: one folder holds the results of one machine and one set of sizes."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import Sizes, count_photos
from headstart.files import as_json, replacing


def keep_settings(out: Path, sizes: Sizes, photos: Path | None) -> None:
    """Writes `settings.json`, or compares it with this command; exits with a message if they differ."""
    if photos and count_photos(photos / "train") < 3 * sizes.batch:
        sys.exit(f"{photos / 'train'} has fewer than three batches of {sizes.batch} pictures: nothing to measure")
    file, now = out / "settings.json", settings(sizes, photos)
    if not file.exists():
        with replacing(file) as stream:
            stream.write(as_json(now))
        return
    before = json.loads(file.read_text())
    changes = [f"{name}: {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value]
    if changes:
        sys.exit(
            f"{out} holds results that were measured otherwise ({'; '.join(changes)}). "
            "Give another folder with --out, or remove this one."
        )


def settings(sizes: Sizes, photos: Path | None) -> dict[str, Any]:
    """The machine, the versions, the sizes and the photos; in the types of JSON."""
    packages = ("torch", "torchvision", "pytorch-lightning")
    return {
        "device": device(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {"driver": driver(), "Python": platform.python_version()}
        | {name: installed(name) for name in packages},
        "pictures": str(photos) if photos else "made up",
        **json.loads(json.dumps(asdict(sizes))),
    }


def device() -> str:
    """The names of all GPUs, or the plain statement that there is none."""
    gpus = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    names = [f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for gpu in gpus]
    return "; ".join(names) or "NO GPU: tiny sizes on the CPU, which say nothing about speed"


def driver() -> str:
    """The version of the GPU driver."""
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none found"


def installed(package: str) -> str:
    """The version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
