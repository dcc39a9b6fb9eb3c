"""What is told of a split is what was recorded, and nothing of other weights."""

import json
from types import SimpleNamespace

import pytest
import torch

from headstart.report.results import evaluation_of, result, run_metrics
from headstart.reporting.mistakes import worst_mistakes, write_mistakes
from headstart.reporting.predictions import Predictions, read_predictions, write_predictions


def recorded(home, kept, evaluated):
    (home / "evaluation_test").mkdir(parents=True)
    (home / "metrics.json").write_text(json.dumps({"score": 0.5, **kept}))
    content = {"metrics": {name: {"value": value} for name, value in evaluated.items()}}
    (home / "evaluation_test/evaluation.json").write_text(json.dumps(content))


def test_metrics_are_those_of_the_end_of_training(tmp_path):
    recorded(tmp_path, {"test/acc": 0.9, "val/acc": 0.8}, {})
    assert run_metrics(tmp_path, "test") == {"acc": 0.9}


@pytest.mark.parametrize(
    ("evaluated", "belongs"),
    [
        ({"acc": 0.9, "loss": 0.5, "ece": 0.1}, True),
        ({"acc": 0.901, "loss": 0.505, "ece": 0.1}, True),  # another precision
        ({"acc": 0.9, "loss": 0.5, "ece": 0.3}, True),  # a temperature
        ({"acc": 0.8, "loss": 0.5, "ece": 0.1}, False),
        ({"acc": 0.9, "loss": 0.7, "ece": 0.1}, False),
    ],
)
def test_an_evaluation_of_other_weights_does_not_count(evaluated, belongs, tmp_path):
    recorded(tmp_path, {"test/acc": 0.9, "test/loss": 0.5, "test/ece": 0.1}, evaluated)
    assert (evaluation_of(tmp_path, "test") is not None) == belongs
    assert evaluation_of(tmp_path, "val") is None


def test_a_metric_that_the_samples_leave_undefined_is_told_as_such(tmp_path):
    """As the AUROC of a split with one class, or the loss of a run that went astray."""
    found = {"acc": {"value": 0.5, "low": 0.4, "high": 0.6}, "loss": {"value": None, "low": None, "high": None},
             "auroc_macro": {"value": 0.0, "low": None, "high": None}}  # fmt: skip
    recorded(tmp_path, {"test/acc": 0.5, "test/loss": float("nan"), "val/acc": 0.5, "val/loss": float("nan")}, {})
    folder = tmp_path / "evaluation_test"
    content = {"metrics": found, "samples": 2, "classes": [], "confused": []}
    (folder / "evaluation.json").write_text(json.dumps(content))
    predictions = Predictions(["x", "y"], ["a", "b"], torch.tensor([0, 0]), torch.eye(2), False)
    write_predictions(folder / "predictions.csv", predictions)
    write_mistakes(folder / "mistakes.csv", worst_mistakes(predictions))
    task = SimpleNamespace(classes=["a", "b"], objective=SimpleNamespace(temperature=1.0))
    on_test, on_val = (result(tmp_path, split, task, "the data are gone", 0) for split in ("test", "val"))
    assert [(metric.key, metric.value) for metric in on_test.metrics] == [("acc", 0.5)]
    assert on_test.notes == ["Undefined on these samples: AUROC, mean over classes, loss."]
    assert [metric.key for metric in on_val.metrics] == ["acc"]
    assert f"run={tmp_path} split=val" in on_val.notes[0], "what is to be typed works from where the person is"


@pytest.mark.parametrize("multi_label", [False, True])
def test_predictions_are_read_as_they_were_written(multi_label, tmp_path):
    classes = ["a, b", '"c"', "<d>"]
    targets = torch.tensor([[1, 0, 1], [0, 0, 0]]) if multi_label else torch.tensor([2, 0])
    probabilities = torch.tensor([[0.2, 0.1, 0.7], [0.25, 0.5, 0.25]])
    write_predictions(tmp_path / "p.csv", Predictions(["x", "y"], classes, targets, probabilities, multi_label))
    found = read_predictions(tmp_path / "p.csv", classes, multi_label)
    assert found.paths == ["x", "y"]
    assert torch.equal(found.targets, targets)
    assert torch.allclose(found.probabilities, probabilities, atol=1e-6)


def test_predictions_without_all_probabilities_are_none(tmp_path):
    classes = [str(number) for number in range(101)]
    probabilities = torch.full((2, 101), 1 / 101)
    write_predictions(tmp_path / "p.csv", Predictions(["x", "y"], classes, torch.tensor([2, 0]), probabilities, False))
    assert read_predictions(tmp_path / "p.csv", classes, False) is None
