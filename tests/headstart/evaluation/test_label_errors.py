"""Wrong labels are found where they were put."""

import csv

import pytest
import torch
from torch.nn.functional import cross_entropy

from headstart.errors import UsageError
from headstart.evaluation.label_errors import find_label_errors, require_cleanlab, write_label_errors
from headstart.heads.logistic_regression import out_of_fold


def test_flipped_labels_are_found(tmp_path):
    pytest.importorskip("cleanlab")
    random = torch.Generator().manual_seed(0)
    truth = torch.arange(3).repeat(60)
    features = torch.randn(180, 8, generator=random) + 5 * torch.nn.functional.one_hot(truth, 8)
    given = truth.clone()
    flipped = torch.tensor([3, 50, 77, 120, 150])
    given[flipped] = (given[flipped] + 1) % 3
    probabilities = out_of_fold(features, given, cross_entropy, 3).softmax(dim=1)
    errors = find_label_errors(probabilities, given, ["a", "b", "c"])
    found = {error.position for error in errors}
    assert found <= set(flipped.tolist())  # the rule is careful: of few it may leave one out
    assert len(found) >= 4
    assert all(error.suggested == "abc"[truth[error.position]] for error in errors)
    assert all(error.given == "abc"[given[error.position]] for error in errors)
    assert [error.score for error in errors] == sorted(error.score for error in errors)
    write_label_errors(tmp_path / "l.csv", errors, [f"{i}.jpg" for i in range(180)])
    with (tmp_path / "l.csv").open(newline="") as stream:
        assert {row["path"] for row in csv.DictReader(stream)} == {f"{i}.jpg" for i in found}


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[label_errors\]"'):
        require_cleanlab()
