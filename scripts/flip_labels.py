"""Measures how many wrong labels `evaluate.py label_errors=true` finds, with labels that are made wrong on purpose.

python scripts/flip_labels.py logs/train/runs/<date> [--share 0.05] [--draws 5]

Assumes that the training labels of the run are right, changes a random share of them, and compares the suspected labels
with the changed ones. Prints precision and recall, mean (lowest to highest) over the draws.
"""

import argparse
import statistics
import sys

import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.functional import cross_entropy

from headstart.caching.features import features_of
from headstart.callbacks.logit_collector import LogitCollector
from headstart.cli import resolvers
from headstart.cli.run import quiet
from headstart.data.trained_run import load_data
from headstart.errors import UsageError
from headstart.evaluation.evaluate import build_trainer
from headstart.evaluation.inspection import starting_backbone
from headstart.evaluation.label_errors import find_label_errors
from headstart.heads.logistic_regression import out_of_fold
from headstart.runs.directory import Run, find_checkpoint
from headstart.tasks import checkpoint


def features_and_labels(run: str) -> tuple[Tensor, Tensor]:
    """Features and labels of the training samples of a run."""
    path = find_checkpoint(run)
    task, trained = checkpoint.load_task(path)
    trained.data.split_file = str(Run(path.parents[1]).split_file)
    data = load_data(trained.data, task.classes, task.backbone.preprocess, "train")
    cache = instantiate(trained.cache.activations) if trained.cache and trained.cache.activations else None
    backbone = starting_backbone(trained, task)
    features = features_of(backbone, data, "train", build_trainer(trained, LogitCollector()), cache)
    return features, data.targets("train", range(len(features)))


def found(features: Tensor, labels: Tensor, share: float, seed: int) -> tuple[float, float]:
    """Precision and recall of one draw; `share` of the labels are changed."""
    random = torch.Generator().manual_seed(seed)
    number, classes = round(share * len(labels)), int(labels.max()) + 1
    flipped = torch.randperm(len(labels), generator=random)[:number]
    given = labels.clone()
    given[flipped] = (given[flipped] + torch.randint(1, classes, (number,), generator=random)) % classes
    logits = out_of_fold(features, given, cross_entropy, classes, seed)
    errors = find_label_errors(logits.softmax(dim=1), given, [str(c) for c in range(classes)])
    hits = len({error.position for error in errors} & set(flipped.tolist()))
    return hits / max(len(errors), 1), hits / number


def main() -> None:
    """Prints precision and recall."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--share", type=float, default=0.05, help="share of the labels that are changed")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    resolvers.register()
    quiet()
    try:
        features, labels = features_and_labels(given.run)
    except UsageError as reason:
        sys.exit(f"error: {reason}")
    results = [found(features, labels, given.share, seed) for seed in range(given.draws)]
    print(f"{round(given.share * len(labels))} of {len(labels)} labels changed, {given.draws} draws")
    for name, values in zip(("precision", "recall"), zip(*results, strict=True), strict=True):
        print(f"{name} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
