"""The speed of the data loaders."""

import json
import shutil
from typing import Any

from gpu_parts.bench import Bench, count_photos
from headstart.caching.activation_store import INDEX


def loaders(bench: Bench) -> None:
    """Augmented training batches a second, from JPEG files and from the picture cache, by number of workers."""
    network = bench.sizes.networks[0]
    number = count_photos(bench.photos / "train")

    def speed(workers: int, *more: str) -> dict[str, Any]:
        options = ["finetuning=full", "augmentation=flip_crop", f"data.num_workers={workers}"]
        # two epochs, because the picture cache is not used for one
        options += ["trainer.max_epochs=2", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"]
        run = bench.train(network, *options, *more, cache="loaders", watch="LoaderClock")
        return {"pictures/s": number / run["seconds"]} | network_limits(bench, number / run["seconds"])

    def cached(workers: int) -> dict[str, Any]:
        place = bench.cache("loaders")
        shutil.rmtree(place, ignore_errors=True)
        found = speed(workers)
        if not list(place.rglob(INDEX)):
            raise RuntimeError("the picture cache was not used: see the log")
        return found

    for workers in bench.sizes.workers:
        bench.measure(f"picture cache, {workers} workers", lambda workers=workers: cached(workers))
    for workers in bench.sizes.workers:
        bench.measure(f"JPEG files, {workers} workers", lambda workers=workers: speed(workers, "cache=off"))


def network_limits(bench: Bench, loaded: float) -> dict[str, str]:
    """For which of the measured networks the loader is the limit."""
    file = bench.out / "fit.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    limits = {}
    for network in bench.sizes.networks:
        bare = results.get(f"{network}, bf16-mixed, round 1", {}).get("pictures/s, bare")
        if bare:
            limits[f"share of what {network} takes"] = f"{loaded / bare:.0%}"
    return limits
