"""What all parts of the GPU campaign share: sizes, photos, training runs, and results that are kept."""

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from headstart.cli import resolvers
from headstart.cli.conf_files import CONF

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        networks: the first one is also measured in other precisions, memory formats and compiled.
        side: pictures of `side` x `side` pixels go into the network.
        photo: width and height of the made-up JPEG files.
        photos: number of training files; an eighth as many for validation.
        steps: steps of the bare loop in each round.
        matrix: the matrix product whose speed counts as the peak is `matrix` x `matrix`.
    """

    networks: tuple[str, ...]
    side: int
    batch: int
    photo: tuple[int, int]
    photos: int
    steps: int
    matrix: int
    rounds: int
    workers: tuple[int, ...]


FULL = Sizes(("resnet50", "vit_b_16", "convnext_tiny"), 224, 128, (500, 375), 2048, 30, 8192, 3, (0, 4, 8, 16))
TINY = Sizes(("resnet18",), 32, 8, (50, 38), 64, 3, 256, 1, (0, 2))


class LeftOut(Exception):  # noqa: N818 - no error
    """A case that this machine cannot measure; the message says why."""


class Bench:
    """Sizes, folders and results of a campaign.

    Args:
        photos: folder with `train/<class>` and `val/<class>`; None: made-up photos.
    """

    def __init__(self, part: str, sizes: Sizes, out: Path, photos: Path | None):
        self.sizes, self.out = sizes, out
        self.work = out / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.results_file = out / f"{part}.json"
        self.results: dict[str, Any] = json.loads(self.results_file.read_text()) if self.results_file.exists() else {}
        self.photos = photos or make_photos(self.work / "photos", sizes)

    def measure(self, case: str, measurement: Callable[[], dict[str, Any]]) -> None:
        """Measures a case and writes its result; one that fails is written as such, and the others go on."""
        if case in self.results:
            return
        print(f"--- {case}", flush=True)
        try:
            result = measurement()
        except LeftOut as reason:
            result = {"left out": str(reason)}
        except ImportError as error:
            result = {"left out": f"{error.name} is not installed"}
        except Exception as error:
            result = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            print(result["failed"], flush=True)
        self.results[case] = result
        self.results_file.write_text(json.dumps(self.results, indent=1) + "\n")
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()

    def weights(self, network: str) -> list[str]:
        """Overrides that choose a network, with random weights in a file in place of pretrained ones."""
        if network == "tiny_resnet":  # it brings its weights along
            return ["model=tiny_resnet"]
        from torchvision.models import get_model

        file = self.work / f"{network}.pth"
        if not file.exists():
            torch.save(get_model(network, weights=None).state_dict(), file)
        return [f"model={network}", f"model.weights={file}"]

    def words(self, network: str, *overrides: str) -> list[str]:
        """The overrides of a training run on the photos."""
        side, batch = self.sizes.side, self.sizes.batch
        return [
            *("~experiment", "data=image_folder", f"data.root={self.photos}", "data.test_fraction=0", "test=false"),
            *("compare_scratch=false", f"data.batch_size={batch}", f"model.image_size={side}"),
            *("trainer.enable_progress_bar=false", *self.weights(network), *overrides),
        ]

    def config(self, *overrides: str, name: str = "train") -> DictConfig:
        """A composed config."""
        resolvers.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, list(overrides))

    @contextmanager
    def cache(self, name: str | None) -> Iterator[None]:
        """The cache folder for runs; None: an empty one."""
        place = self.work / "caches" / (name or "cold")
        if name is None:
            shutil.rmtree(place, ignore_errors=True)
        os.environ["HEADSTART_CACHE"] = str(place)
        yield

    def train(self, network: str, *overrides: str, cache: str | None, watch: str = "Clock") -> dict[str, Any]:
        """One whole training run in this process; what the watching callback wrote, and `total` seconds."""
        from headstart.training.run import train

        folder = Path(tempfile.mkdtemp(dir=self.work))
        watching = [
            f"+callbacks.watch._target_=gpu_parts.watching.{watch}",
            f"+callbacks.watch.file={folder / 'watched.json'}",
        ]
        with self.cache(cache):
            cfg = self.config(f"paths.run={folder / 'run'}", *self.words(network, *overrides), *watching)
            start = time.perf_counter()
            train(cfg)
        total = time.perf_counter() - start
        watched = json.loads((folder / "watched.json").read_text())
        shutil.rmtree(folder)
        return watched | {"total": total}


def make_photos(root: Path, sizes: Sizes) -> Path:
    """JPEG files in two classes, as large on the disk as photos of this size are."""
    if (root / "complete").exists():
        return root

    def write(split: str, number: int) -> None:
        import numpy
        from PIL import Image

        random = numpy.random.default_rng([number, split == "val"])
        kind = number % 2
        coarse = random.integers(0, 256, (6 + 6 * kind, 8 + 8 * kind, 3), dtype=numpy.uint8)
        picture = numpy.asarray(Image.fromarray(coarse).resize(sizes.photo, Image.Resampling.BICUBIC), numpy.int16)
        noise = random.integers(-12, 13, picture.shape, dtype=numpy.int16)
        file = root / split / "ab"[kind] / f"{number:05}.jpg"
        Image.fromarray((picture + noise).clip(0, 255).astype(numpy.uint8)).save(file, quality=85)

    jobs = [("train", number) for number in range(sizes.photos)]
    jobs += [("val", number) for number in range(sizes.photos // 8)]
    for split in ("train", "val"):
        for name in "ab":
            (root / split / name).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda job: write(*job), jobs))
    (root / "complete").touch()
    return root


def process(*arguments: str, status: int = 0) -> str:
    """Runs a command of this project in another process.

    Raises:
        RuntimeError: it ended otherwise than expected.
    """
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "HEADSTART_TRUST": "gpu_parts.watching"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout[-3000:], flush=True)
    if done.returncode != status:
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {last[0]}")
    return done.stdout


def timed(number: int, work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of a piece of work, and pictures a second."""
    start = time.perf_counter()
    work()
    synchronise()
    seconds = time.perf_counter() - start
    return {"pictures": number, "seconds": round(seconds, 2), "pictures/s": round(number / seconds)}


def middle_and_range(values: list[float]) -> str:
    """`median (least-largest)`, with three digits."""
    shown = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in (min(values), max(values))]
    middle = statistics.median(values)
    return f"{middle:.3g}" + f" ({shown[0]}-{shown[1]})" if middle < 100 else f"{middle:.0f} ({shown[0]}-{shown[1]})"


def count_photos(folder: Path) -> int:
    """Number of files below a folder."""
    return sum(1 for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def synchronise() -> None:
    """Waits until the GPU has done everything."""
    if CUDA:
        torch.cuda.synchronize()


def peak_memory() -> float | None:
    """Largest memory in use since the last reset, in GB; None on a CPU."""
    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if CUDA else None
