"""One field of a dataclass gives the default, the help and the check of a setting."""

from dataclasses import dataclass, field

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import MISSING, OmegaConf

from headstart.cli.conf_files import CONF
from headstart.cli.schemas import ROOTS
from headstart.cli.settings import check_settings, setting, settings_help, settings_of
from headstart.errors import UsageError

TRAINED_RUN = sorted(ROOTS.keys() - {"train"})


@dataclass
class Oven:
    """A part."""

    degrees: float = setting(180, "heat", at_least=0, at_most=300)


@dataclass
class Bakery:
    """A root."""

    flour: str = setting("rye", "the kind", choices=("rye", "wheat"))
    guests: int = setting(MISSING, "how many come", example="4", at_least=1)
    minutes: int | None = setting(
        None, "a limit, else as long as it takes, however long that may be today", example="9"
    )
    salt: float = setting(0.5, "in grams", above=0)
    seeds: bool = setting(False, "on top")
    oven: Oven = field(default_factory=Oven)


def test_help_shows_what_must_be_given_first_and_wraps():
    assert settings_help(Bakery).splitlines() == [
        "  guests=4                  how many come",
        "  flour=rye                 the kind (rye, wheat)",
        "  minutes=9                 a limit, else as long as it takes, however long that",
        "                            may be today",
        "  salt=0.5                  in grams",
        "  seeds=true                on top; off by default",
        "  oven.degrees=180          heat",
    ]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({}, "add guests=4\n  guests=4                  how many come"),
        ({"guests": 0}, "guests=0: give a whole number of at least 1"),
        ({"guests": 1, "flour": "weat"}, "flour=weat, did you mean 'wheat'?: choose one of rye, wheat"),
        ({"guests": 1, "salt": 0}, "salt=0.0: give a number above 0"),
        ({"guests": 1, "oven": {"degrees": 301}}, "oven.degrees=301.0: give a number from 0 to 300"),
        ({"guests": 1, "oven": {"degrees": -1}}, "oven.degrees=-1.0: give a number from 0 to 300"),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused(overrides, told):
    with pytest.raises(UsageError) as caught:
        check_settings(OmegaConf.merge(OmegaConf.structured(Bakery), overrides))
    assert str(caught.value) == told


def test_what_is_allowed_passes():
    check_settings(
        OmegaConf.merge(OmegaConf.structured(Bakery), {"guests": 1, "minutes": None, "oven": {"degrees": 0}})
    )


@pytest.mark.parametrize("name", TRAINED_RUN)
def test_defaults_are_allowed_and_come_from_the_dataclass(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(name)
    required = {setting: "?" for setting, each in settings_of(ROOTS[name]) if each.default is MISSING}
    assert required.keys() == {key for key in composed if OmegaConf.is_missing(composed, key)}
    if "format" in required:
        required["format"] = "onnx"
    check_settings(OmegaConf.merge(composed, required))
    assert yaml.safe_load((CONF / f"{name}.yaml").read_text()).keys() == {"defaults", "hydra"}
