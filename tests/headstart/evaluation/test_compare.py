"""Runs side by side."""

import json
import sys

import pytest
from omegaconf import OmegaConf

import compare
from headstart.errors import UsageError
from headstart.evaluation.compare import (
    Configuration,
    configuration_rows,
    configurations,
    ended_runs,
    metric_names,
    ordered,
    summary,
)  # fmt: skip
from headstart.evaluation.significance import _paired_interval, claims, pair_tests


def run(folder, settings=None, right=None, **metrics):
    """A run's directory as training leaves it; `right` makes an evaluation of val."""
    folder.mkdir(parents=True)
    config = {"seed": 0, "data": {"seed": "${seed}"}, "paths": {"run": str(folder)}, "optimizer": {"lr": 0.1}}
    OmegaConf.save(OmegaConf.merge(config, settings or {}), folder / "config.yaml")
    facts = {"seconds": 10.0, "parameters": 5, **{f"val/{name}": value for name, value in metrics.items()}}
    (folder / "metrics.json").write_text(json.dumps(facts))
    if right is not None:
        (folder / "evaluation_val").mkdir()
        lines = ["path,true,predicted,right", *(f"{i},a,a,{int(each)}" for i, each in enumerate(right))]
        (folder / "evaluation_val/predictions.csv").write_text("\n".join(lines) + "\n")
        evaluated = {"metrics": {"acc": {"value": sum(right) / len(right)}}}
        (folder / "evaluation_val/evaluation.json").write_text(json.dumps(evaluated))


def test_runs_are_grouped_by_what_they_differ_in_but_the_seed(tmp_path):
    for job, (seed, lr) in enumerate([(0, 0.1), (1, 0.1), (0, 0.01), (1, 0.01)]):
        run(tmp_path / str(job), {"seed": seed, "optimizer": {"lr": lr}}, acc=0.5 + 0.1 * job)
    runs, _ = ended_runs([tmp_path])
    found = configurations(runs, "seed")
    assert [(each.title, len(each.runs)) for each in found] == [("optimizer.lr=0.1", 2), ("optimizer.lr=0.01", 2)]
    names = metric_names(runs, "val", "acc")
    header, rows = configuration_rows(ordered(found, names[0]), names)
    assert header == ["optimizer.lr", "runs", "val/acc", "seconds", "parameters"]
    assert rows[0] == ["0.01", "2", "0.7500 (0.7000 to 0.8000)", "10", "5"]
    assert len(configurations(runs, "optimizer.lr")) == 2, "--over may name another setting"


@pytest.mark.parametrize(("one", "other", "titles"), [
    ({"model": {"weights": "/a/x/best.ckpt"}}, {"model": {"weights": "/a/y/best.ckpt"}},
     ["model.weights='/a/x/best.ckpt'", "model.weights='/a/y/best.ckpt'"]),
    ({"model": {"weights": "/a/x.pth"}}, {"model": {"weights": "/b/y.pth"}},
     ["model.weights=x.pth", "model.weights=y.pth"]),
    ({"optimizer": {"lr": 0.12345678}}, {"optimizer": {"lr": 0.12345679}},
     ["optimizer.lr=0.12345678", "optimizer.lr=0.12345679"]),
    ({"callbacks": {"ema": {"_target_": "a.EMA", "decay": 0.9}}}, {"callbacks": {"dashboard": {"pictures": 3}}},
     ["callbacks.ema=EMA", "callbacks.ema=none"]),
    ({"head": {"_target_": "h.Mlp", "dropout": 0.1}}, {"head": {"_target_": "h.Mlp", "dropout": 0.2}},
     ["head.dropout=0.1", "head.dropout=0.2"]),
    ({"head": {"_target_": "h.Mlp", "dropout": 0.1}}, {"head": {"_target_": "h.Mlp"}},
     ["head.dropout=0.1", "head.dropout=none"]),
    ({"head": {"_target_": "h.Mlp", "dropout": 0.1}}, {"head": {"_target_": "h.Linear"}},
     ["head=Mlp", "head=Linear"]),
    ({"scheduler": {"_target_": "s.Cosine"}}, {"scheduler": None}, ["scheduler=Cosine", "scheduler=null"]),
    ({"scheduler": None}, {"scheduler": {"_target_": "s.Cosine"}}, ["scheduler=null", "scheduler=Cosine"]),
    ({"callbacks": {"curves": {"file": "x"}}, "name": "a"}, {"name": "b"}, ["all"]),
])  # fmt: skip
def test_what_differs_tells_configurations_apart(one, other, titles, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_TRUST", "a,h,s")
    run(tmp_path / "0", one, acc=0.5)
    run(tmp_path / "1", other, acc=0.5)
    runs, _ = ended_runs([tmp_path])
    assert [each.title for each in configurations(runs, "seed")] == titles


def test_of_losses_the_lowest_is_best(tmp_path):
    run(tmp_path / "a", {"optimizer": {"lr": 1.0}}, loss=0.3)
    run(tmp_path / "b", loss=0.2)
    runs, _ = ended_runs([tmp_path / "a", tmp_path / "b"])
    assert [each.title for each in ordered(configurations(runs, "seed"), "val/loss")] == [
        "optimizer.lr=0.1", "optimizer.lr=1",
    ]  # fmt: skip


def test_jobs_of_a_sweep_come_in_their_order_and_unfinished_ones_are_told(tmp_path):
    for job in (0, 1, 2, 10):
        run(tmp_path / str(job), acc=0.5)
    (tmp_path / "2/metrics.json").unlink()
    runs, without = ended_runs([tmp_path])
    assert [each.folder.name for each in runs] == ["0", "1", "10"]
    assert [folder.name for folder in without] == ["2"]


def test_runs_without_the_metric_are_left_out_and_told(tmp_path, monkeypatch, capsys):
    run(tmp_path / "0", {"seed": 0}, acc=0.5)
    run(tmp_path / "1", {"seed": 1}, loss=0.5)
    run(tmp_path / "2", {"seed": 2}, acc=float("nan"))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path)])
    compare.main()
    told = capsys.readouterr()
    assert [line for line in told.err.splitlines() if "left out" in line] == [
        f"{tmp_path / '1'} has no val/acc and is left out", f"{tmp_path / '2'} has no val/acc and is left out",
    ]  # fmt: skip
    assert [line.split() for line in told.out.splitlines()[4:5]] == [["all", "1", "0.5000", "10", "5"]]
    assert "|" not in told.out, "no Markdown"


def test_mcnemar_of_a_known_case(tmp_path):
    """Only one run is right on 10 samples, only the other on 2: 2 P(X <= 2) of 12 fair coins is 158 / 4096."""
    first = [True] * 10 + [False] * 2 + [True] * 20
    second = [False] * 10 + [True] * 2 + [True] * 20
    run(tmp_path / "a", {"optimizer": {"lr": 1.0}}, first, acc=30 / 32)
    run(tmp_path / "b", {}, second, acc=22 / 32)
    runs, _ = ended_runs([tmp_path])
    (test,), _ = pair_tests(ordered(configurations(runs, "seed"), "val/acc"), "val", "seed")
    assert (test.only_first, test.only_second, test.samples) == (10, 2, 32)
    assert test.p == pytest.approx(158 / 4096)
    assert test.difference == pytest.approx(8 / 32)
    assert 0 < test.low < test.difference < test.high < 0.6
    assert test.verdict == "the first is better"


def test_many_comparisons_make_each_claim_harder(tmp_path):
    first = [True] * 10 + [False] * 2 + [True] * 20
    second = [False] * 10 + [True] * 2 + [True] * 20
    for place, right in enumerate((first, second, first)):
        run(tmp_path / str(place), {"optimizer": {"lr": place}}, right, acc=sum(right) / 32)
    runs, _ = ended_runs([tmp_path])
    tests, _ = pair_tests(configurations(runs, "seed"), "val", "seed")
    assert [test.p for test in tests] == pytest.approx([158 / 4096, 1, 158 / 4096])
    assert [test.adjusted for test in tests] == pytest.approx([3 * 158 / 4096, 1, 3 * 158 / 4096])
    assert {test.verdict for test in tests} == {"no significant difference"}


@pytest.mark.parametrize("right", [None, [True] * 3])
def test_nothing_is_claimed_of_other_samples(right, tmp_path):
    run(tmp_path / "a", {"optimizer": {"lr": 1.0}}, [True] * 4, acc=1)
    run(tmp_path / "b", {}, right, acc=1)
    runs, _ = ended_runs([tmp_path])
    found = pair_tests(configurations(runs, "seed"), "val", "seed")
    assert found == ([], 1)
    assert claims(*found, "val")["note"].startswith("Nothing is claimed: no two runs")


def test_pairs_of_which_nothing_is_claimed_are_counted(tmp_path):
    for place, right in enumerate(([True] * 4, [True] * 4, None)):
        run(tmp_path / str(place), {"optimizer": {"lr": place}}, right, acc=1)
    runs, _ = ended_runs([tmp_path])
    tests, untested = pair_tests(configurations(runs, "seed"), "val", "seed")
    assert (len(tests), untested) == (1, 2)
    assert "Nothing is claimed about 2 more pairs" in claims(tests, untested, "val")["note"]


def test_nothing_is_claimed_by_an_evaluation_of_earlier_weights(tmp_path):
    run(tmp_path / "a", {"optimizer": {"lr": 1.0}}, [True] * 30 + [False] * 2, acc=30 / 32)
    run(tmp_path / "b", {}, [True] * 16 + [False] * 16, acc=29 / 32)  # evaluated, then gone on with
    runs, _ = ended_runs([tmp_path])
    tests, _ = pair_tests(configurations(runs, "seed"), "val", "seed")
    assert tests == []


def test_the_interval_is_that_of_drawing_the_samples(tmp_path):
    """Of 10 and 2 among 32 the difference has the variance (12 - 8 * 8 / 32) / 32 ** 2."""
    low, high = _paired_interval(10, 2, 32, 0)
    wide = 1.96 * (12 - 2) ** 0.5 / 32
    assert (low, high) == (pytest.approx(8 / 32 - wide, abs=0.04), pytest.approx(8 / 32 + wide, abs=0.04))
    assert _paired_interval(0, 0, 5, 0) == (0, 0)


def test_other_seeds_are_not_paired(tmp_path):
    run(tmp_path / "a", {"seed": 0, "optimizer": {"lr": 1.0}}, [True] * 4, acc=1)
    run(tmp_path / "b", {"seed": 1}, [True] * 4, acc=1)
    runs, _ = ended_runs([tmp_path])
    found = pair_tests(configurations(runs, "seed"), "val", "seed")
    assert found == ([], 0)
    assert claims(*found, "val")["note"] == "Nothing is claimed: no two configurations have a run of the same seed."


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is neither a run nor a folder of runs"):
        ended_runs([tmp_path])
    run(tmp_path / "a", acc=0.5)
    with pytest.raises(UsageError, match="needs two runs that have ended, here is 1"):
        ended_runs([tmp_path / "a", tmp_path])
    runs = ended_runs([tmp_path / "a", copied(tmp_path / "b")])[0]
    with pytest.raises(UsageError, match=r"--metric=ac, did you mean 'acc'\?: no run has val/ac"):
        metric_names(runs, "val", "ac")


def copied(folder):
    run(folder, acc=0.5)
    return folder


def test_a_summary_is_mean_and_range():
    assert summary([0.25]) == "0.2500"
    assert summary([0.25, 0.75]) == "0.5000 (0.2500 to 0.7500)"
    assert summary([1234.4, 1234.4], 0) == "1,234"
    assert summary([]) == ""
    assert Configuration({}, []).title == "all"


def numbers(folder, errors, lr):
    """A run with an evaluation of one number per sample, whose errors are given."""
    run(folder, {"optimizer": {"lr": lr}}, mae=float(sum(map(abs, errors)) / len(errors)))
    (folder / "evaluation_val").mkdir()
    lines = ["path,true(age),predicted(age)", *(f"{i},{10 * i},{10 * i + error}" for i, error in enumerate(errors))]
    (folder / "evaluation_val/predictions.csv").write_text("\n".join(lines) + "\n")
    mean = sum(map(abs, errors)) / len(errors)
    (folder / "evaluation_val/evaluation.json").write_text(json.dumps({"metrics": {"mae": {"value": mean}}}))


def compared_numbers(tmp_path, first, second):
    numbers(tmp_path / "0", first, 0.1)
    numbers(tmp_path / "1", second, 0.01)
    runs, _ = ended_runs([tmp_path])
    return pair_tests(configurations(runs, "seed"), "val", "seed")


def test_runs_of_numbers_are_compared_by_their_errors(tmp_path):
    (test,), untested = compared_numbers(tmp_path, [2.0, -1.0] * 20, [5.0, -4.0] * 20)
    assert untested == 0
    assert (test.only_first, test.only_second, test.samples) == (40, 0, 40)
    assert test.difference == pytest.approx(3 / (10 * 11.543396), rel=1e-5)  # 11.54: deviation of 0 to 39
    assert test.low <= test.difference <= test.high
    assert test.verdict == "the first is better"
    found = claims([test], 0, "val")
    assert found["header"][4:6] == ["first closer", "second closer"]
    assert "mean absolute errors" in found["note"]
    assert "McNemar" not in found["note"]


def test_errors_that_differ_by_chance_are_no_claim(tmp_path):
    (test,), _ = compared_numbers(tmp_path, [2.0, 5.0] * 20, [5.0, 2.1] * 20)
    assert test.p > 0.3
    assert test.verdict == "no significant difference"


def test_parts_are_named_as_one_types_them(tmp_path):
    classes = "lp_ft.LinearProbeThenFinetune", "full.Full"
    probe, full = ({"finetuning": {"_target_": f"headstart.finetuning.{name}"}} for name in classes)
    run(tmp_path / "0", probe, acc=0.5)
    run(tmp_path / "1", full, acc=0.5)
    run(tmp_path / "2", full, acc=0.5)
    (tmp_path / "2/.hydra").mkdir()
    (tmp_path / "2/.hydra/hydra.yaml").write_text("hydra: {runtime: {choices: {finetuning: my_own}}}")
    runs, _ = ended_runs([tmp_path])
    assert [each.title for each in configurations(runs[:2], "seed")] == ["finetuning=lp_ft", "finetuning=full"]
    assert configurations([runs[0], runs[2]], "seed")[1].title == "finetuning=my_own"


def test_a_comparison_fits_into_80_columns(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        for lr in (0.1, 0.01):
            settings, acc = {"seed": seed, "optimizer": {"lr": lr}}, 0.5 + lr / 10 + seed / 100
            run(tmp_path / f"{seed}_{lr}", settings, [True, False] * 20, acc=acc, ece=0.1, loss=1.0)
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path)])
    compare.main()
    told = capsys.readouterr().out
    table = told[: told.index("optimizer.lr=")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80
    assert "0.5150 (0.5100 to 0.5200)" in table
    assert "optimizer.lr=0.1 (seed=0) against optimizer.lr=0.01 (seed=0): no significant difference" in told
    assert "1 pair of runs on the same samples of val" in told
    assert "about 1 more pair:" in told
