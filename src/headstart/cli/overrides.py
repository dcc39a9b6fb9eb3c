"""The command line as overrides of Hydra, such as `model=resnet18` and `optimizer.lr=0.1`."""

from collections.abc import Iterable
from contextlib import nullcontext

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from headstart.cli.conf_files import CONF, choices_by_group
from headstart.runs.hyperparameters import key_of


def command_line_overrides() -> list[str]:
    """The overrides of this run, in a sweep those of this job; none outside an entry point."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def translate_null_choices(arguments: list[str]) -> list[str]:
    """The command line with `experiment=null` in the syntax of Hydra; a null that is the default is removed."""
    for_hydra = {"experiment=null": ["~experiment"], "hparams_search=null": [], "debug=null": []}
    return [word for argument in arguments for word in for_hydra.get(argument, [argument])]


def compose_choices(config_name: str, overrides: Iterable[str]) -> DictConfig:
    """The config of the files that the overrides choose, without the values that they give.

    Raises:
        HydraException, OmegaConfBaseException: the choices do not fit together.
    """
    groups = choices_by_group()
    return compose_config(config_name, [override for override in overrides if key_of(override) in groups])


def compose_config(config_name: str, overrides: list[str]) -> DictConfig:
    """The config that a command line gives, also within an entry point.

    Raises:
        HydraException, OmegaConfBaseException: the overrides do not fit together.
    """
    in_entry_point = GlobalHydra.instance().is_initialized()
    with nullcontext() if in_entry_point else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config_name, overrides)
