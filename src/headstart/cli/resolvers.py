"""Functions that the files of `conf/` can call as `${name:arguments}`: OmegaConf resolvers. CONTRIBUTING.md lists them.

Saved configs of runs name them, so a name stays once it is used.
"""

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from headstart.cli.schemas import ROOTS
from headstart.cli.settings import settings_help
from headstart.metrics.scores import best_is, no_mistake
from headstart.runs.resume import run_directory

RESOLVERS = {
    "best_is": best_is,
    "direction": lambda mode: f"{mode}imize",
    # a run that continues does not overwrite Hydra's record of how it was started
    "hydra_folder": lambda resume: ".hydra" if resume is None else None,
    "no_mistake": no_mistake,
    "run_directory": run_directory,
    "settings_help": lambda entry_point: settings_help(ROOTS[entry_point]),
    "unless": lambda value: not value,
}


def register() -> None:
    """Makes the typed roots and the resolvers known to Hydra; must be called before a config is composed."""
    for name, schema in ROOTS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    for name, function in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
