"""Samples that may carry a wrong label, by confident learning.

Northcutt et al. 2021, https://arxiv.org/abs/1911.00068, with their own library cleanlab. Each sample is predicted by a
model that was not trained on it. From these probabilities the method estimates how many samples of each class belong
to each other class, and reports that number of the least likely samples, both per class and per pair of classes (their
method "C+NR").
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headstart.errors import UsageError
from headstart.files import Column, with_column, write_table


@dataclass(frozen=True)
class LabelError:
    """A label that may be wrong.

    Attributes:
        position: of the sample in its split.
        given, suggested: class names.
        score: probability of the given class minus probability of the suggested class; an error is likelier the lower
            it is.
    """

    position: int
    given: str
    suggested: str
    score: float


def require_cleanlab() -> None:
    """Raises a UsageError if the library is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise UsageError(
            'label_errors needs the library cleanlab: pip install -e ".[label_errors]", or leave label_errors out'
        )


def find_label_errors(probabilities: Tensor, targets: Tensor, classes: list[str]) -> list[LabelError]:
    """The labels that may be wrong, the most likely errors first.

    Args:
        probabilities: `(samples, classes)`; each row is predicted by a model that was not trained on this sample.
        targets: class indices `(samples,)`, the given labels.
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


def write_label_errors(file: Path, errors: list[LabelError], paths: list[str], contents: Column | None = None) -> None:
    """Writes `path,given,suggested,score`, the most likely errors first.

    Args:
        file: a CSV file.
        errors: the rows.
        paths: of all samples of the split.
        contents: the sample of each error, for one more column.
    """
    rows = [[paths[e.position], e.given, e.suggested, f"{e.score:.6f}"] for e in errors]
    write_table(file, with_column([["path", "given", "suggested", "score"], *rows], contents))
