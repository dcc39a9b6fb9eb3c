"""What our configs can compute: OmegaConf resolvers, registered with Hydra before a config is composed.

CONTRIBUTING.md lists them.
"""

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from headstart.cli.schemas import ROOTS
from headstart.metrics.scores import best_is, no_mistake
from headstart.runs.resume import run_directory


def register() -> None:
    """Makes the typed roots and the resolvers known to Hydra."""
    for name, schema in ROOTS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    OmegaConf.register_new_resolver("best_is", best_is, replace=True)
    OmegaConf.register_new_resolver("no_mistake", no_mistake, replace=True)
    OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
    # Hydra's own record of how a run was started is not written over when it goes on
    OmegaConf.register_new_resolver("hydra_folder", lambda resume: ".hydra" if resume is None else None, replace=True)
    OmegaConf.register_new_resolver("unless", lambda value: not value, replace=True)
    OmegaConf.register_new_resolver("direction", lambda mode: f"{mode}imize", replace=True)


def command_line_overrides() -> list[str]:
    """The overrides of the command line, such as `optimizer.lr=0.1`; none where there was no command line."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
