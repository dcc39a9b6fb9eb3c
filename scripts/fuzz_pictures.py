"""Feeds damaged picture files to everything that reads pictures: scan, decoding, prediction and the server.

python scripts/fuzz_pictures.py                        500 files
python scripts/fuzz_pictures.py --files 5000 --seed 1 --keep failed

Each file is a small picture of one of the formats that are read, with changed, missing or added bytes. It must be read
or refused with a reason. Any other exception, a wrong answer of the server, or a file that takes longer than
`--seconds` is a failure: it is printed, kept in the folder `--keep`, and the exit code is 1.
"""

import argparse
import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from fastapi.testclient import TestClient
from PIL import Image

from headstart.backbones.tiny_resnet import TinyResNet
from headstart.inference.app import Model, build_app
from headstart.inference.batches import prepared
from headstart.inference.classifier import Classifier
from headstart.inputs.base import UnreadableInput
from headstart.inputs.images.decode import FORMATS, picture_size, read_picture
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.inputs.images.scan import scan_pictures
from headstart.tasks.objectives import Softmax

OPTIONS = {"JPEG": {"quality": 80, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"}}
MODES = {"PNG": ("RGB", "RGBA", "P", "I;16", "LA"), "TIFF": ("RGB", "CMYK", "I;16"), "GIF": ("P",)}
PREPROCESS = ImagePreprocess(32, 32)
HERE = "http://127.0.0.1:8000"


def whole_files(seed: int) -> list[bytes]:
    """One small picture of each format and mode that this Pillow can write."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = []
    for form in FORMATS:
        for mode in MODES.get(form, ("RGB",)):
            stream = io.BytesIO()
            picture = (
                Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(noise)
            )
            try:
                (picture if mode == "I;16" else picture.convert(mode)).save(stream, form, **OPTIONS.get(form, {}))
            except (OSError, KeyError, ValueError):  # this Pillow was built without it
                continue
            found.append(stream.getvalue())
    return found


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The file with one or two kinds of damage."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 2)):
        kind, place = chance.randrange(6), chance.randrange(max(len(data), 1))
        if kind == 0:  # bytes of the header decide sizes and counts
            place = chance.randrange(min(64, len(data)))
        if kind in (0, 1):
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            data[place : place + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        elif kind == 3:
            del data[max(place, 1) :]
        elif kind == 4:
            del data[place : place + chance.randint(1, 40)]
        else:
            data[place:place] = data[: chance.randint(1, 200)]
        if not data:
            return b""
    return bytes(data)


class RandomClassifier(torch.nn.Module):
    """A small network with random weights: what it answers does not matter here."""

    classes = ("a", "b")
    preprocess = PREPROCESS
    objective = Softmax(2)
    labels = Classifier.labels

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyResNet(weights=None)
        self.head = torch.nn.Linear(self.backbone.num_features, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pictures -> probabilities."""
        return self.head(self.backbone(inputs)).softmax(dim=1)


def readers(folder: Path) -> dict[str, Callable[[bytes], None]]:
    """Name -> function that reads one file and raises only `UnreadableInput`."""
    network = RandomClassifier().eval()
    model = Model(network, torch.device("cpu"), max_pixels=1_000_000)
    client = TestClient(build_app(model, 20_000_000, 2, maps=False), base_url=HERE, raise_server_exceptions=True)

    def scan(content: bytes) -> None:
        file = folder / "picture.jpg"
        file.write_bytes(content)
        result = scan_pictures([file])
        assert (file in result.bad) != (file in result.digests)

    def predict(content: bytes) -> None:
        with torch.inference_mode():
            assert network(prepared(io.BytesIO(content), PREPROCESS)[None]).isfinite().all()

    def serve(content: bytes) -> None:
        answer = client.post("/predict", content=content, headers={"Content-Type": "image/jpeg"})
        assert answer.status_code in (200, 413, 422), (answer.status_code, answer.text[:200])

    return {
        "scan": scan,
        "decode": lambda content: assert_picture(read_picture(io.BytesIO(content))),
        "size": lambda content: assert_size(picture_size(io.BytesIO(content))),
        "predict": predict,
        "serve": serve,
    }


def assert_picture(picture: torch.Tensor) -> None:
    """Raises an AssertionError if a decoded picture is not uint8 RGB."""
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3


def assert_size(size: tuple[int, int]) -> None:
    """Raises an AssertionError if a picture has no pixels."""
    assert min(size) > 0


def files(number: int, seed: int) -> Iterator[bytes]:
    """Damaged files; the same for the same seed."""
    chance, whole = random.Random(seed), whole_files(seed)
    for _ in range(number):
        yield damaged(chance.choice(whole), chance)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5, help="longest time for one file and reader (5)")
    parser.add_argument("--keep", type=Path, help="folder for files that fail")
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        known = readers(Path(temporary))
        for number, content in enumerate(files(options.files, options.seed)):
            for name, read in known.items():
                started = time.monotonic()
                try:
                    read(content)
                    outcome = "read"
                except UnreadableInput:
                    outcome = "refused"
                except Exception as error:
                    outcome = f"FAILED: {type(error).__name__}: {error}"[:200]
                if time.monotonic() - started > options.seconds:
                    outcome = f"FAILED: took {time.monotonic() - started:.1f} s"
                outcomes[f"{name}: {outcome.partition(':')[0]}"] += 1
                if outcome.startswith("FAILED"):
                    print(f"file {number}, {name}: {outcome}")
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{number}_{name}").write_bytes(content)
    for name, count in sorted(outcomes.items()):
        print(f"{count:6,}  {name}")
    return 1 if any("FAILED" in name for name in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
