"""Samples that may carry a wrong label, by confident learning.

Northcutt et al. 2021, https://arxiv.org/abs/1911.00068, with their own library cleanlab. From probabilities by models
that have not learned from a sample it estimates how many samples of each class truly are of which other, and suspects
so many of the least likely ones, by their class as well as by the pair of classes ("C+NR" there).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headstart.errors import UsageError
from headstart.files import write_table


@dataclass(frozen=True)
class LabelError:
    """A suspected one.

    Attributes:
        position: of the sample in its split.
        given, suggested: class names.
        score: probability of the given class less that of the suggested one; the lower, the more likely an error.
    """

    position: int
    given: str
    suggested: str
    score: float


def require_cleanlab() -> None:
    """Raises a UsageError where the library is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise UsageError(
            'label_errors needs the library cleanlab: pip install -e ".[label_errors]", or leave label_errors out'
        )


def find_label_errors(probabilities: Tensor, targets: Tensor, classes: list[str]) -> list[LabelError]:
    """The suspected samples, the likeliest errors first.

    Args:
        probabilities: `(samples, classes)`, each row of a model that has not learned from its sample.
        targets: class indices `(samples,)`, the labels in doubt.
        classes: their names.

    Raises:
        UsageError: cleanlab is not installed.
    """
    require_cleanlab()
    from cleanlab.filter import find_label_issues

    suspected = find_label_issues(targets.numpy(), probabilities.numpy(), filter_by="both", n_jobs=1)
    given = probabilities.gather(1, targets[:, None])[:, 0]
    others = probabilities.scatter(1, targets[:, None], -1)
    highest, suggested = others.max(dim=1)
    found = [
        LabelError(i, classes[targets[i]], classes[suggested[i]], (given[i] - highest[i]).item())
        for i in torch.from_numpy(suspected).nonzero()[:, 0].tolist()
    ]
    return sorted(found, key=lambda error: error.score)


def write_label_errors(file: Path, errors: list[LabelError], paths: list[str]) -> None:
    """Writes `path,given,suggested,score`, the likeliest errors first; `paths` are those of the whole split."""
    rows = ([paths[e.position], e.given, e.suggested, f"{e.score:.6f}"] for e in errors)
    write_table(file, [["path", "given", "suggested", "score"], *rows])
