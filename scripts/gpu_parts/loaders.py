"""The speed of the data loaders."""

import json
from typing import Any

from gpu_parts.bench import Bench, count_photos


def loaders(bench: Bench) -> None:
    """Augmented training batches a second, from JPEG files and from the picture cache, by number of workers."""
    network = bench.sizes.networks[0]
    number = count_photos(bench.photos / "train")

    def speed(workers: int, *words: str) -> dict[str, Any]:
        options = ["finetuning=full", "augmentation=flip_crop", f"data.num_workers={workers}", "trainer.max_epochs=1"]
        limit = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=0", "monitor=val/loss"]
        run = bench.train(network, *options, *limit, *words, cache="pictures", watch="LoaderClock")
        return {"pictures/s": round(number / run["seconds"])} | network_limits(bench, number / run["seconds"])

    for source, words in {"picture cache": (), "JPEG files": ("cache=off",)}.items():
        for workers in bench.sizes.workers:
            bench.measure(f"{source}, {workers} workers", lambda w=workers, more=words: speed(w, *more))


def network_limits(bench: Bench, loaded: float) -> dict[str, str]:
    """For which of the measured networks the loader is the limit."""
    file = bench.out / "fit.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    limits = {}
    for network in bench.sizes.networks:
        bare = results.get(f"{network}, bf16-mixed", {}).get("pictures/s, bare")
        if bare:
            limits[f"share of what {network} takes"] = f"{loaded / float(bare.split()[0]):.0%}"
    return limits
