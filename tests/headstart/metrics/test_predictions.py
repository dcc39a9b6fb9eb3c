"""What is counted and written of predictions."""

import csv

import pytest
import torch
from sklearn.metrics import confusion_matrix as reference
from torchmetrics.functional.classification import binary_calibration_error

from headstart.metrics import predictions as module
from headstart.metrics.calibration import bin_of, calibration_error, calibration_errors, reliability_bins
from headstart.metrics.mistakes import worst_mistakes, write_mistakes
from headstart.metrics.per_class import class_rows, confused_pairs, confusion_matrix, write_confusion
from headstart.metrics.predictions import Predictions, write_predictions
from headstart.tasks.objectives import CALIBRATION_BINS


def rows(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def some(samples=200, classes=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(samples, classes, generator=random).softmax(dim=1)
    targets = torch.randint(0, classes, (samples,), generator=random)
    return Predictions(
        [f"p/{i}.jpg" for i in range(samples)], list("abcdefgh"[:classes]), targets, probabilities, False
    )


LABELS = Predictions(
    ["0", "1", "2"], ["x", "y"], torch.tensor([[1, 0], [0, 0], [1, 1]]),
    torch.tensor([[0.9, 0.2], [0.6, 0.97], [0.1, 0.8]]), True,
)  # fmt: skip


def test_predictions_as_a_table(tmp_path):
    probabilities = torch.tensor([[0.75, 0.25], [0.1, 0.9]])
    found = Predictions(["a/1.jpg", "b/ä.jpg"], ["cat", "dog"], torch.tensor([0, 0]), probabilities, False)
    write_predictions(tmp_path / "p.csv", found)
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").split() == [
        "path,true,predicted,right,p(cat),p(dog)",
        "a/1.jpg,cat,cat,1,0.750000,0.250000",
        "b/ä.jpg,cat,dog,0,0.100000,0.900000",
    ]


def test_of_many_classes_the_table_has_two_probabilities(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CLASSES_WITH_ALL_PROBABILITIES", 3)
    found = some()
    write_predictions(tmp_path / "p.csv", found)
    for i, row in enumerate(rows(tmp_path / "p.csv")):
        assert list(row) == ["path", "true", "predicted", "right", "p(true)", "p(predicted)"]
        assert float(row["p(true)"]) == pytest.approx(found.probabilities[i, found.targets[i]].item(), abs=1e-6)
        assert float(row["p(predicted)"]) == pytest.approx(found.probabilities[i].max().item(), abs=1e-6)


def test_several_labels_are_joined(tmp_path):
    write_predictions(tmp_path / "p.csv", LABELS)
    assert [(row["true"], row["predicted"], row["right"]) for row in rows(tmp_path / "p.csv")] == [
        ("x", "x", "1"), ("", "x|y", "0"), ("x|y", "y", "0"),
    ]  # fmt: skip


def test_scores_of_classes_by_their_definition():
    found = some()
    for c, row in enumerate(class_rows(found)):
        actual, predicted = found.targets == c, found.predicted == c
        both = (actual & predicted).sum().item()
        assert (row["support"], row["found"]) == (actual.sum().item(), both)
        precision, recall = both / predicted.sum().item(), both / row["support"]
        f1 = 2 * precision * recall / (precision + recall)
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision, recall, f1))


def test_a_class_that_is_not_there_has_no_recall():
    found = Predictions(["0"], ["a", "b", "c"], torch.tensor([0]), torch.tensor([[0.2, 0.7, 0.1]]), False)
    shares = {row["class"]: (row["support"], row["precision"], row["recall"], row["f1"]) for row in class_rows(found)}
    assert shares == {"a": (1, None, 0, 0), "b": (0, 0, None, 0), "c": (0, None, None, None)}


def test_labels_are_counted_each():
    counts = {row["class"]: (row["found"], row["missed"], row["seen where it is not"]) for row in class_rows(LABELS)}
    assert counts == {"x": (1, 1, 1), "y": (1, 0, 1)}
    scores = {row["class"]: (row["support"], row["precision"], row["recall"], row["f1"]) for row in class_rows(LABELS)}
    assert scores == {"x": (2, 0.5, 0.5, 0.5), "y": (1, 0.5, 1, pytest.approx(2 / 3))}


def test_a_label_that_nobody_has_and_nobody_predicts_has_no_scores():
    found = Predictions(["0"], ["x", "y"], torch.tensor([[1, 0]]), torch.tensor([[0.9, 0.2]]), True)
    assert [list(row.values()) for row in class_rows(found)] == [
        ["x", 1, 1, 0, 0, 1, 1, 1, 1, 0.5],
        ["y", 0, 0, 0, 0, None, None, None, None, 0.5],
    ]


def test_the_confusion_matrix_is_that_of_scikit_learn(tmp_path):
    found = some()
    matrix = confusion_matrix(found)
    assert matrix.tolist() == reference(found.targets, found.predicted).tolist()
    write_confusion(tmp_path / "c.csv", matrix, found.classes)
    assert [int(row["b"]) for row in rows(tmp_path / "c.csv")] == matrix[:, 1].tolist()


def test_most_confused_pairs_come_first():
    matrix = torch.tensor([[5, 1, 0], [4, 6, 0], [2, 0, 0]])
    targets = torch.arange(9).repeat_interleave(matrix.flatten()) // 3
    predicted = torch.arange(9).repeat_interleave(matrix.flatten()) % 3
    probabilities = torch.nn.functional.one_hot(predicted, 3).float()
    found = Predictions([""] * len(targets), ["a", "b", "c"], targets, probabilities, False)
    assert confused_pairs(found) == [
        {"true": "b", "predicted": "a", "samples": 4, "share": 0.4},
        {"true": "c", "predicted": "a", "samples": 2, "share": 1.0},
        {"true": "a", "predicted": "b", "samples": 1, "share": pytest.approx(1 / 6)},
    ]


def test_worst_mistakes_come_first(tmp_path):
    found = some()
    mistakes = worst_mistakes(found)
    assert {m.position for m in mistakes} == set((found.predicted != found.targets).nonzero()[:, 0].tolist())
    assert [m.probability for m in mistakes] == sorted((m.probability for m in mistakes), reverse=True)
    write_mistakes(tmp_path / "m.csv", mistakes)
    assert rows(tmp_path / "m.csv")[0]["path"] == found.paths[mistakes[0].position]


def test_of_several_labels_the_most_wrong_one_is_shown():
    first, second = worst_mistakes(LABELS)
    assert (first.path, first.true, first.predicted, first.shown_class) == ("1", "not y", "y", 1)
    assert first.probability == pytest.approx(0.97)
    assert (second.path, second.true, second.predicted, second.shown_class) == ("2", "x", "not x", 0)
    assert second.probability == pytest.approx(0.9)


def test_the_calibration_error_by_hand():
    """Bins of a tenth: two samples said 0.95, one right; three said 0.65, all right; one said 0.55, wrong."""
    said, right = [0.95, 0.95, 0.65, 0.65, 0.65, 0.55], [1, 0, 1, 1, 1, 0]
    probabilities = torch.tensor([[p, 1 - p] for p in said])
    found = Predictions([""] * 6, ["a", "b"], 1 - torch.tensor(right), probabilities, False)
    by_hand = (2 * abs(0.95 - 1 / 2) + 3 * abs(0.65 - 1) + 1 * abs(0.55 - 0)) / 6
    assert calibration_error(found, 10) == pytest.approx(by_hand, abs=1e-6)
    bins = reliability_bins(found, 10)
    assert [number for *_, number in bins] == [1, 3, 2]
    assert [share for _, share, _ in bins] == [0, 1, 0.5]
    assert [probability for probability, *_ in bins] == pytest.approx([0.55, 0.65, 0.95])


@pytest.mark.parametrize("bins", [1, 3, 10, CALIBRATION_BINS])
def test_one_binning_for_the_printed_error_its_interval_and_the_drawn_bins(bins):
    """Probabilities on all edges as torchmetrics computes them, and their neighbours; 0 and 1 are among them."""
    edges = torch.linspace(0, 1, bins + 1)
    below, above = (torch.nextafter(edges, torch.tensor(far)).clamp(0, 1) for far in (-1.0, 2.0))
    probability = torch.cat([edges, below, above, torch.arange(101) / 100])
    right = torch.arange(len(probability)) % 2
    counts = torch.ones(len(probability), 1)
    printed = binary_calibration_error(probability, right, n_bins=bins).item()
    assert calibration_errors(probability, right, counts, bins).item() == pytest.approx(printed, abs=1e-6)
    labels = Predictions([""] * len(right), ["x"], right[:, None], probability[:, None], True)
    assert calibration_error(labels, bins) == pytest.approx(printed, abs=1e-6)
    drawn = reliability_bins(labels, bins)
    assert sum(abs(p - share) * n for p, share, n in drawn) / len(right) == pytest.approx(printed, abs=1e-6)


def test_an_edge_belongs_to_the_bin_above_it():
    assert bin_of(torch.tensor([0.0, 0.2499, 0.25, 0.5, 0.75, 0.9999, 1.0]), 4).tolist() == [0, 0, 1, 2, 3, 3, 4]


def test_certainty_has_its_place():
    found = Predictions(["", ""], ["a", "b"], torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), False)
    assert calibration_error(found, 15) == pytest.approx(0.5)
    assert reliability_bins(found, 15) == [(1.0, 0.5, 2)]
