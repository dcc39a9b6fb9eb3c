"""The results on a split are those that are recorded."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from headstart.metrics.mistakes import worst_mistakes, write_mistakes
from headstart.metrics.predictions import Predictions, read_predictions, write_predictions
from headstart.report.results import SplitResults, results_of, without_repeats
from headstart.runs.directory import Run


def recorded(home, kept, evaluated):
    (home / "evaluation_test").mkdir(parents=True)
    (home / "metrics.json").write_text(json.dumps({"score": 0.5, **kept}))
    content = {"metrics": {name: {"value": value} for name, value in evaluated.items()}}
    (home / "evaluation_test/evaluation.json").write_text(json.dumps(content))


def result_of(home, metrics, classes, targets, probabilities, **facts):
    """The results of a test with these predictions."""
    recorded(home, {"test/acc": 0.5}, {})
    folder = home / "evaluation_test"
    content = {"metrics": metrics, "samples": len(targets), "classes": [], "confused": [], **facts}
    (folder / "evaluation.json").write_text(json.dumps(content))
    predictions = Predictions(["x", "y"], classes, targets, probabilities, False)
    write_predictions(folder / "predictions.csv", predictions)
    write_mistakes(folder / "mistakes.csv", worst_mistakes(predictions))
    Image.new("RGB", (2, 2)).save(folder / "reliability.png")
    task = SimpleNamespace(classes=classes, objective=SimpleNamespace(temperature=1.0, worst_name="mistakes"))
    return results_of(Run(home), "test", task, "the data are gone", 0)


ACCURACY = {"acc": {"value": 0.5, "low": 0.4, "high": 0.6}}


def test_a_metric_that_the_samples_leave_undefined_is_told_as_such(tmp_path):
    """For example the AUROC of a split with one class, or the loss of a diverged run."""
    undefined = {"loss": {"value": None, "low": None, "high": None},
                 "auroc_macro": {"value": 0.0, "low": None, "high": None}}  # fmt: skip
    found = result_of(tmp_path, ACCURACY | undefined, ["a", "b"], torch.tensor([0, 0]), torch.eye(2))
    assert [(metric.key, metric.value) for metric in found.metrics] == [("acc", 0.5)]
    assert found.notes == ["Undefined on these samples: AUROC, mean over classes, loss."]


@pytest.mark.parametrize(("before", "notes"), [({}, 0), ({"temperature": 1.0}, 0), ({"temperature": 1.5}, 1)])
def test_results_of_another_temperature_name_both(before, notes, tmp_path):
    found = result_of(tmp_path, ACCURACY, ["a", "b"], torch.tensor([0, 1]), torch.eye(2).flip(0), **before)
    assert len(found.notes) == notes
    for note in found.notes:
        assert "now has the temperature 1.000, but was evaluated with 1.500: the probabilities" in note


def test_numbers_alone_come_with_a_command_that_works_from_here(tmp_path):
    recorded(tmp_path, {"val/acc": 0.5, "val/loss": float("nan")}, {})
    found = results_of(Run(tmp_path), "val", SimpleNamespace(classes=["a", "b"]), "the data are gone", 0)
    assert [metric.key for metric in found.metrics] == ["acc"]
    assert f"run={tmp_path} split=val" in found.notes[0]


@pytest.mark.parametrize(("number", "drawn"), [(3, True), (101, False)])
def test_of_many_classes_calibration_is_shown_too(number, drawn, tmp_path):
    probabilities = torch.full((2, number), 1 / number)
    found = result_of(tmp_path, ACCURACY, [str(c) for c in range(number)], torch.tensor([2, 0]), probabilities)
    assert (found.calibration is not None) == drawn
    assert [label for _, label in found.pictures] == ([] if drawn else ["Calibration"])


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


def test_a_picture_of_both_splits_is_shown_once():
    test, val = without_repeats(
        [SplitResults("test", [], pictures=[("a", "")]), SplitResults("val", [], pictures=[("b", ""), ("a", "")])]
    )
    assert (test.pictures, val.pictures) == ([("a", "")], [("b", "")])
