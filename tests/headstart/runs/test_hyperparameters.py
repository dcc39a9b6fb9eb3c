"""Which settings say what a run is."""

import pytest
from omegaconf import OmegaConf

from headstart.cli.conf_files import CONF
from headstart.runs.hyperparameters import WATCHERS, is_hyperparameter, settings_of


@pytest.mark.parametrize("key", ["optimizer.lr", "model.name", "callbacks.ema.decay", "reporter", "seed", "head"])
def test_settings_that_say_what_a_run_is(key):
    assert is_hyperparameter(key)


@pytest.mark.parametrize("key", ["name", "paths.run", "resume", "logger.csv.name", "callbacks.dashboard.pictures"])
def test_settings_that_say_where_and_how_it_is_kept(key):
    assert not is_hyperparameter(key)


def test_watchers_are_callbacks_of_the_config():
    named = {key for file in (CONF / "callbacks").glob("*.yaml") for key in OmegaConf.load(file)}
    assert named >= set(WATCHERS)


def test_settings_have_dotted_keys_and_stay_as_written():
    config = OmegaConf.create({"seed": 3, "data": {"seed": "${seed}", "splits": [1, 2]}, "callbacks": {}})
    assert settings_of(config) == {"seed": 3, "data.seed": "${seed}", "data.splits": [1, 2], "callbacks": {}}
