"""What all parts of the GPU campaign share: sizes, photos, training runs, and results that are kept."""

import gc
import json
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from headstart.backbones.base import Backbone
from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.files import as_json, replacing
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.runs.directory import Run

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
PICTURES = "pictures"  # name of the cache that all parts share


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


FULL = Sizes(
    networks=("resnet50", "vit_b_16", "convnext_tiny"),
    side=224,
    batch=128,
    photo=(500, 375),
    photos=2048,
    steps=30,
    matrix=8192,
    rounds=3,
    workers=(0, 4, 8, 16),
)
TINY = Sizes(
    networks=("resnet18",),
    side=32,
    batch=8,
    photo=(50, 38),
    photos=64,
    steps=3,
    matrix=256,
    rounds=1,
    workers=(0, 2),
)


class LeftOut(Exception):  # noqa: N818 - no error
    """A case that this machine cannot measure; the message says why."""


def require_gpu() -> None:
    """Leaves out a case that needs a GPU, where there is none."""
    if not CUDA:
        raise LeftOut("needs a GPU")


class Bench:
    """Sizes, folders and results of a campaign.

    Args:
        photos: folder with `train/<class>` and `val/<class>`; None: made-up photos.

    Attributes:
        results: case -> result. Cases that failed or were left out are tried again by the next process.
    """

    def __init__(self, part: str, sizes: Sizes, out: Path, photos: Path | None):
        self.sizes, self.out = sizes, out
        self.work = out / "work"
        self.runs = self.work / "runs"
        shutil.rmtree(self.runs, ignore_errors=True)  # of a process that was killed
        self.runs.mkdir(parents=True)
        self.results_file = out / f"{part}.json"
        results = json.loads(self.results_file.read_text()) if self.results_file.exists() else {}
        self.results: dict[str, Any] = {case: found for case, found in results.items() if is_measured(found)}
        self.made_up = photos is None
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
            traceback.print_exc()
            while error.__cause__ is not None:
                error = error.__cause__
            result = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        self.results[case] = result
        with replacing(self.results_file) as stream:
            stream.write(as_json(self.results))
        free_memory()

    def weights(self, network: str) -> list[str]:
        """Overrides that choose a network, with random weights in a file in place of pretrained ones."""
        if network == "tiny_resnet":  # it brings its weights along
            return ["model=tiny_resnet"]
        from torchvision.models import get_model

        file = self.work / f"{network}.pth"
        if not file.exists():
            with replacing(file, binary=True) as stream:
                torch.save(get_model(network, weights=None).state_dict(), stream)
        return [f"model={network}", f"model.weights={file}"]

    def overrides(self, network: str, *more: str) -> list[str]:
        """The overrides of a training run on the photos."""
        side, batch = self.sizes.side, self.sizes.batch
        return [
            *("~experiment", "data=image_folder", f"data.root={self.photos}", "data.test_fraction=0", "test=false"),
            *("compare_scratch=false", f"data.batch_size={batch}", f"model.image_size={side}"),
            *("trainer.enable_progress_bar=false", *self.weights(network), *more),
        ]

    def config(self, *overrides: str, name: str = "train") -> DictConfig:
        """A composed config."""
        resolvers.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, list(overrides))

    def backbone(self, network: str) -> Backbone:
        """A network without its head."""
        return instantiate(self.config(*self.overrides(network)).model)

    def folder(self) -> TemporaryDirectory:
        """A new folder for a run; `with` gives its path and removes it at the end."""
        return TemporaryDirectory(dir=self.runs)

    def cache(self, name: str) -> Path:
        """The folder of a cache."""
        return self.work / "caches" / name

    def train(
        self, network: str, *overrides: str, cache: str | None, watch: str = "Clock", apart: bool = False
    ) -> dict[str, Any]:
        """One whole training run.

        Args:
            cache: the name of its cache; None: one that is empty and removed afterwards.
            watch: the class in `watching` that measures it from inside.
            apart: whether it runs in a process of its own.

        Returns:
            what `watch` wrote, the `total` seconds, and `val/loss`.
        """
        from headstart.training.run import train

        with self.folder() as name:
            folder = Path(name)
            settings = [
                *self.overrides(network, *overrides),
                f"paths.cache={self.cache(cache) if cache else folder / 'cache'}",
                f"+callbacks.watch._target_=gpu_parts.watching.{watch}",
                f"+callbacks.watch.file={folder / 'watched.json'}",
            ]
            start = time.perf_counter()
            if apart:
                process("src/train.py", f"hydra.run.dir={folder / 'run'}", *settings)
            else:
                train(self.config(f"paths.run={folder / 'run'}", *settings))
            total = time.perf_counter() - start
            watched = json.loads((folder / "watched.json").read_text())
            return watched | {"total": total, "val/loss": Run(folder / "run").metrics.get("val/loss")}


def is_measured(result: dict[str, Any]) -> bool:
    """Whether a case has neither failed nor been left out."""
    return not {"failed", "left out"} & result.keys()


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
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout[-3000:], flush=True)
    if done.returncode != status:
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"{last[0]} (exit code {done.returncode} of {' '.join(arguments)})")
    return done.stdout


def count_photos(folder: Path) -> int:
    """Number of pictures below a folder."""
    return sum(1 for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def synchronise() -> None:
    """Waits until the GPU has done everything."""
    if CUDA:
        torch.cuda.synchronize()


def free_memory() -> None:
    """Gives memory that nothing uses back to the GPU."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def reset_peak_memory() -> None:
    """Begins a new measurement of `peak_memory`."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float | None:
    """Largest memory in use since the last reset, in GB; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if CUDA else None
