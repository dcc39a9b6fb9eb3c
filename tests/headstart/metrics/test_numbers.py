import csv

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from headstart.metrics.intervals import bootstrap_intervals
from headstart.metrics.number_predictions import (
    NumberPredictions,
    number_rows,
    number_statistics,
    worst_errors,
    write_errors,
    write_numbers,
)
from headstart.metrics.numbers import R2, RMSE
from headstart.runs.evaluations import read_answers


def predictions(samples=50, unit=(1.0, 1000.0), mean=0.0, seed=0) -> NumberPredictions:
    random = torch.Generator().manual_seed(seed)
    true = torch.randn(samples, len(unit), generator=random)
    found = true + 0.4 * torch.randn(samples, len(unit), generator=random)
    scale = torch.tensor(unit)
    names = [f"n{place}" for place in range(len(unit))]
    return NumberPredictions([f"p{i}" for i in range(samples)], names, true * scale + mean, found * scale + mean, scale)


@pytest.mark.parametrize(("unit", "mean"), [((1.0,), 0), ((1.0, 1000.0), 0), ((5.0,), 2000), ((1e-5, 1e-4), 0)])
def test_metrics_are_those_of_scikit_learn_in_any_unit(unit, mean):
    found = predictions(unit=unit, mean=mean)
    arrays = found.targets.double().numpy(), found.values.double().numpy()
    for metric, reference in ((R2(len(unit)), r2_score), (RMSE(len(unit)), root_mean_squared_error)):
        for part in range(0, 50, 20):
            metric.update(found.values[part : part + 20], found.targets[part : part + 20])
        assert metric.compute().item() == pytest.approx(reference(*arrays), rel=1e-4)
    once = torch.ones(50, 1)
    statistics = number_statistics(found, torch.ones(50), torch.ones(50))
    for name, reference in (("r2", r2_score), ("mae", mean_absolute_error), ("rmse", root_mean_squared_error)):
        assert statistics[name](once).item() == pytest.approx(reference(*arrays), rel=1e-4)


def test_r2_of_numbers_that_do_not_differ_is_undefined():
    metric = R2(1)
    metric.update(torch.tensor([[1.0], [2.0]]), torch.tensor([[2000.1], [2000.1]]))
    assert metric.compute().isnan()
    metric = R2(1)
    metric.update(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    assert metric.compute().isnan()


def test_a_draw_counts_its_samples_as_often_as_it_has_them():
    found = predictions(12)
    counts = torch.tensor([3, 0, 0, 1, 2, 0, 1, 1, 1, 1, 1, 1.0])[:, None]
    chosen = torch.arange(12).repeat_interleave(counts[:, 0].long())
    arrays = found.targets[chosen].double().numpy(), found.values[chosen].double().numpy()
    statistics = number_statistics(found, torch.arange(12.0), torch.ones(12))
    for name, reference in (("r2", r2_score), ("mae", mean_absolute_error), ("rmse", root_mean_squared_error)):
        assert statistics[name](counts).item() == pytest.approx(reference(*arrays), rel=1e-4)
    assert statistics["loss"](counts).item() == pytest.approx(chosen.float().mean().item())


def test_the_intervals_hold_the_value():
    found = predictions(200)
    statistics = number_statistics(found, torch.ones(200), torch.ones(200))
    for name, (low, high) in bootstrap_intervals(statistics, 200).items():
        assert low <= statistics[name](torch.ones(200, 1)).item() <= high
    for row in number_rows(found):
        assert row["r2_low"] < row["r2"] < row["r2_high"]
        assert row["mae_low"] < row["mae"] < row["mae_high"]


def test_the_worst_error_is_measured_in_deviations():
    found = NumberPredictions(
        ["a", "b"], ["cm", "m"], torch.tensor([[100.0, 1.0], [200.0, 2.0]]), torch.tensor([[110.0, 1.0], [200.0, 2.5]]),
        torch.tensor([50.0, 0.5]),
    )  # fmt: skip
    first, second = worst_errors(found)
    assert (first.path, first.name, first.true, first.predicted, first.size) == ("b", "m", "2", "2.5", 0.5)
    assert (second.path, second.name, second.size) == ("a", "cm", 10.0)
    assert first.shown_class == 1
    assert found.explained_name(first.shown_class) == "m"


def test_a_single_number_is_explained_as_the_positive_output():
    (error, *_) = worst_errors(predictions(unit=(1.0,)))
    assert error.shown_class == 1
    assert predictions(unit=(1.0,)).explained_name(1) == "n0"


def test_tables(tmp_path):
    found = predictions(5)
    write_numbers(tmp_path / "predictions.csv", found)
    read = read_answers(tmp_path)
    np.testing.assert_allclose([values for _, values in read.values()], found.values, rtol=1e-5)
    true = [[float(number) for number in each.split("|")] for each, _ in read.values()]
    np.testing.assert_allclose(true, found.targets, rtol=1e-5)
    assert list(read) == list(found.paths)
    write_errors(tmp_path / "errors.csv", worst_errors(found))
    with (tmp_path / "errors.csv").open() as stream:
        assert next(iter(csv.DictReader(stream))).keys() == {"path", "number", "true", "predicted", "error"}
