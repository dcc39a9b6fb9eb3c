"""Measures how fast pictures are loaded: `python scripts/bench_pictures.py <folder> [--rounds 5]`.

The folder holds pictures, for example photos of 100 kB; some of them are also enlarged to JPEGs of 12 megapixels.
Each picture is prepared for a network with 224 px input (resize 256) in three ways: decoded at full size, decoded at
the reduced size that the network needs, and read from the picture cache; with `augmentation=none` (deterministic) and
`flip_crop` (random crop). All ways run in turns, with one thread and with the files in the memory of the system. The
output has the median and quartiles over pictures and rounds, the speed-up over decoding at full size (median and
quartiles of the ratio within a picture and round), and the change of the 224-px input by decoding at a reduced size
(pixel values from 0 to 255).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from headstart.caching.picture_cache import CachedPictures
from headstart.caching.picture_store import PictureStore
from headstart.inputs.images.augmentation import flip_crop
from headstart.inputs.images.decode import PICTURE_SUFFIXES
from headstart.inputs.images.files import PictureFiles
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.inputs.transforms import Deterministic, Load, Transform, as_it_is

PREPROCESS = ImagePreprocess(224, 256)
MEGAPIXELS = 12
FULL, REDUCED, CACHED = "in full", "reduced", "cached"
TRANSFORMS: dict[str, tuple[Transform, Transform]] = {
    "none": (PREPROCESS, as_it_is),
    "flip_crop": (flip_crop(PREPROCESS).deterministic, flip_crop(PREPROCESS).random),
}


def main() -> None:
    """Measures photos and enlarged photos, and prints a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--large", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    found.sort(key=lambda path: path.stat().st_size, reverse=True)
    with tempfile.TemporaryDirectory() as scratch:
        large = [enlarge(path, Path(scratch)) for path in found[: given.large]]
        for title, files in ((f"{given.photos} largest photos", found[: given.photos]), ("enlarged photos", large)):
            size = sum(path.stat().st_size for path in files) / len(files)
            print(f"\n{title}, {size / 1e3:.0f} kB on average")
            compare([str(path) for path in files], Path(scratch) / f"cache of {title}", given.rounds)


def enlarge(path: Path, folder: Path) -> Path:
    """A JPEG of 12 megapixels, enlarged from another picture."""
    with Image.open(path) as image:
        factor = (MEGAPIXELS * 1e6 / (image.width * image.height)) ** 0.5
        size = round(image.width * factor), round(image.height * factor)
        target = folder / f"{path.parent.name}_{path.stem}.jpg"
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
    return target


def compare(files: list[str], cache: Path, rounds: int) -> None:
    """Prints times, ratios and differences."""
    side = PREPROCESS.decode_side
    for name, (deterministic, random) in TRANSFORMS.items():
        reduced = Deterministic(PictureFiles(files, side), deterministic)
        kept = CachedPictures(reduced, [f"{i:040x}" for i in range(len(files))], PictureStore(cache, name, 1e10))
        full = Deterministic(PictureFiles(files), deterministic)
        ways: dict[str, Load] = {FULL: full, REDUCED: reduced, CACHED: kept}
        for load in ways.values():  # warm-up: files are read into memory, pictures into the cache
            for index in range(len(files)):
                load(index)
        taken = {way: [] for way in ways}
        for _ in range(rounds):
            for index in range(len(files)):
                for way, load in ways.items():
                    taken[way].append(seconds(random, load, index))
        for way, times in taken.items():
            ratios = [full / own for full, own in zip(taken[FULL], times, strict=True)]
            each = 1 / statistics.median(times)
            print(f"  {name:9} {way:8} {spread(times, 1e3)} ms  {spread(ratios)} x  {each:6.0f} per second")
    deltas = [difference(file) for file in files]
    mean, most = (statistics.mean(column) for column in zip(*deltas, strict=True))
    print(
        f"  decoding at the smaller scale changes the input by {mean:.2f} on average, at most {most:.1f} (mean of the"
    )
    print(
        f"  pictures' maxima; of all {max(d for _, d in deltas):.0f}); {sum(d > 0 for _, d in deltas)} pictures change"
    )


def seconds(random: Transform, load: Load, index: int) -> float:
    """Seconds to load one picture."""
    started = time.perf_counter()
    random(load(index))
    return time.perf_counter() - started


def spread(values: list[float], factor: float = 1) -> str:
    """Median and quartiles."""
    low, middle, high = (factor * value for value in statistics.quantiles(values, n=4))
    return f"{middle:7.2f} ({low:.2f} to {high:.2f})".ljust(26)


def difference(file: str) -> tuple[float, float]:
    """Mean and maximum absolute difference between the inputs from both decoding sizes."""
    inputs = [PREPROCESS(PictureFiles([file], side)(0)).float() for side in (None, PREPROCESS.decode_side)]
    delta = (inputs[0] - inputs[1]).abs()
    return delta.mean().item(), delta.max().item()


if __name__ == "__main__":
    main()
