"""What a training costs in pictures through the network."""

import json
from pathlib import Path

import pytest

from headstart.training.run import train

TRAIN, VAL = 56, 12  # of 80 samples, less 12 for the test


def passes(cfg):
    train(cfg)
    return json.loads((Path(cfg.paths.run) / "metrics.json").read_text())["passes"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["finetuning=full"], 2 * (TRAIN + VAL)),
        (["finetuning=full", "test=false"], 2 * (TRAIN + VAL)),
        (["finetuning=feature_extraction"], TRAIN + VAL),
        (["finetuning=feature_extraction", "cache=off"], 2 * (TRAIN + VAL)),
        (["finetuning=unfreeze_at", "finetuning.epoch=1"], 2 * (TRAIN + VAL)),  # once for the cache, once learned from
    ],
)
def test_each_picture_through_the_network_is_counted(words, expected, quick):
    assert passes(quick(*words)) == expected


def test_a_second_run_that_finds_all_rows_costs_none(quick, tmp_path):
    words = ["finetuning=feature_extraction", "test=false"]
    assert passes(quick(*words)) == TRAIN + VAL
    assert passes(quick(*words, f"paths.run={tmp_path / 'again'}")) == 0


def test_a_resumed_run_goes_on_counting(quick):
    assert passes(quick("trainer.max_epochs=1", "scheduler=none")) == TRAIN + VAL
    cfg = quick("trainer.max_epochs=3", "scheduler=none")
    cfg.resume = cfg.paths.run
    assert passes(cfg) == 3 * (TRAIN + VAL)
