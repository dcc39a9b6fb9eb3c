"""Measures the cost of prediction besides the network: `python scripts/bench_predict.py speed|memory <run> ...`.

`speed <run> <folder> [--rounds 5]`: pictures per second of the whole prediction (files, decoding, resizing, network,
rows), of loading only, and of a bare forward pass over batches in memory; in turns in one process, on the device that
`predict.py` uses. Prints medians, and the median and range of the ratios within a round.

`memory <run> [--counts 1000 10000 50000]`: peak memory (RSS) of `predict.py` for each number of files; all files are
links to one small picture.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def speed(run: Path, folder: Path, rounds: int) -> None:
    """Prints pictures per second of all three, and ratios."""
    from headstart.cli.allocator import keep_freed_memory

    keep_freed_memory()  # as the entry points do
    import torch
    from omegaconf import OmegaConf

    from headstart.inference.answers import answers_of
    from headstart.inference.batches import batches
    from headstart.inference.predict import Predictor, Tally, classify, probabilities
    from headstart.inference.rows import CSVRows
    from headstart.inference.unlabelled import find_samples
    from headstart.progress import progress_bar
    from headstart.runs.directory import find_checkpoint

    device = OmegaConf.create({"accelerator": None, "precision": None})
    predictor = Predictor.load(find_checkpoint(str(run)), device)
    model, fabric, network = predictor.model, predictor.fabric, predictor.network
    size = predictor.trained.data.batch_size

    def pictures():
        return batches(find_samples(str(folder), model.preprocess).samples, model.preprocess, size)

    ready = [batch.inputs for batch in pictures() if batch.inputs is not None]
    count = sum(map(len, ready))

    def whole() -> None:
        rows = CSVRows(io.StringIO(), answers_of(model, model.classes, 5))
        bar = progress_bar("Predicting", None, "pictures", hidden=True)
        classify(predictor, pictures(), rows.answers, rows, Tally(), bar)

    def loading() -> None:
        for _ in pictures():
            pass

    def forward() -> None:
        for batch in ready:
            probabilities(fabric, network, batch)

    ways = {"whole prediction": whole, "loading only": loading, "bare forward pass": forward}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first round is the warm-up
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    print(f"{count} pictures, batches of {size}, {torch.get_num_threads()} threads, {fabric.device}, {rounds} rounds")
    for name, times in taken.items():
        print(f"{name}: {count / statistics.median(times[1:]):.1f} pictures per second")
    whole_s, load_s, net_s = (times[1:] for times in taken.values())
    _ratio("bare forward pass / whole prediction", [net / all_ for net, all_ in zip(net_s, whole_s, strict=True)])
    both = zip(net_s, load_s, whole_s, strict=True)
    _ratio("(loading only + bare forward pass) / whole prediction", [(net + load) / all_ for net, load, all_ in both])


def _ratio(name: str, ratios: list[float]) -> None:
    print(f"time of {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def memory(run: Path, counts: list[int]) -> None:
    """Prints the peak memory of the process for each number of files."""
    from PIL import Image

    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "pictures"
            folder.mkdir()
            first = Path(scratch) / "picture.jpg"
            Image.effect_noise((48, 40), 80).save(first)
            for index in range(count):
                os.link(first, folder / f"{index:06d}.jpg")
            output = Path(scratch) / "rows.csv"
            command = [sys.executable, str(ROOT / "src/predict.py"), f"run={run}", f"input={folder}"]
            start = time.monotonic()
            process = os.posix_spawn(sys.executable, [*command, f"output={output}"], os.environ)
            _, status, usage = os.wait4(process, 0)
            rows = sum(1 for _ in output.open()) - 1
            assert status == 0, f"predict.py ended with exit code {os.waitstatus_to_exitcode(status)}"
            assert rows == count
        print(f"{count} files: peak {usage.ru_maxrss / 1024:.0f} MiB, {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 50_000])
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.run, given.counts)
    elif given.folder is None:
        parser.error("speed needs a folder of pictures")
    else:
        speed(given.run, given.folder, given.rounds)


if __name__ == "__main__":
    main()
