"""Exceptions become sentences, and only where the person can do something about them."""

import pytest
from hydra.errors import HydraException

from headstart.cli.messages import explain
from headstart.errors import UsageError, causes


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_a_circle_of_causes_ends(link):
    first, second = OSError("a"), ValueError("b")
    second.__cause__ = first
    setattr(first, link, second)
    assert list(causes(second)) == [second, first]
    assert explain(second, "train", []) is None


def test_a_mistake_is_found_below_other_exceptions():
    outer = RuntimeError("worker died")
    outer.__cause__ = UsageError("data.root=x: no such folder")
    assert explain(outer, "train", []) == "data.root=x: no such folder"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["modle=resnet50"], "modle=resnet50: there is no 'modle', did you mean 'model'?"),
        (["modle=x", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-m"], "modle=x: there is no 'modle', did"),
        (["data=bse"], "data=bse: conf/data has no such file"),
        (["~experiment", "finetuning.patiense=3"], "did you mean 'finetuning.patience'?"),
        (["~experiment", "finetuning.head_patience=3"], "there is no 'finetuning.head_patience'"),
        (["finetuning=lp_ft", "seeed=1"], "seeed=1: there is no 'seeed', did you mean 'seed'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_to_type_instead(arguments, told):
    message = explain(HydraException("Hydra's own words"), "train", arguments)
    assert message.startswith("Hydra's own words\n  ")
    assert told in message
    assert "launcher" not in message
    assert "'base'" not in message
