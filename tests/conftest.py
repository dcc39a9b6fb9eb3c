"""What every test can ask for. Nothing here needs the network, a GPU or real data."""

import logging
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see headstart/cli/run.py

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

import headstart.cli.run  # noqa: F401 - memory and threads as in the entry points
from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.cli.terminal import TerminalHandler

resolvers.register()


def pytest_collection_modifyitems(items):
    """Skips tests that need a GPU where there is none."""
    import torch

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _own_environment(tmp_path, monkeypatch):
    """No test reads or writes a person's caches, data or logs, or sees what an entry point left for Hydra."""
    for name in ("LOGS", "DATA", "CACHE"):
        monkeypatch.setenv(f"HEADSTART_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    yield
    # an entry point lets Hydra add some, whose stream is closed when the test has ended
    added = (logging.StreamHandler, logging.FileHandler, TerminalHandler)
    for handler in [each for each in logging.root.handlers if type(each) in added]:
        logging.root.removeHandler(handler)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time of progress bars in seconds, which only the test moves."""
    from tqdm import std

    now = [1000.0]
    monkeypatch.setattr(std, "time", lambda: now[0])
    return now


@pytest.fixture(scope="module")
def read_once():
    """Hydra reads each file of `conf/` once only; otherwise it reads and copies thirty of them for each config."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        kept = CachingConfigRepository(GlobalHydra.instance().config_loader().repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_loader_impl, "CachingConfigRepository", lambda _: kept)
        yield


@pytest.fixture
def composed(tmp_path):
    """Composes `conf/train.yaml` with overrides, the run directory below the test's own folder.

    Without the default recipe (`experiment=auto`), which would choose settings by the data, unless it is named.
    """

    def compose_train(*overrides: str) -> DictConfig:
        plain = [] if any(override.startswith("experiment=") for override in overrides) else ["~experiment"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", [f"paths.run={tmp_path / 'run'}", *plain, *overrides])

    return compose_train


@pytest.fixture
def quick(composed):
    """A configuration that trains in a second: made-up pictures, the tiny network, two epochs on the CPU."""

    def compose_quick(*overrides: str) -> DictConfig:
        precision = [] if any("trainer.precision=" in word for word in overrides) else ["trainer.precision=32-true"]
        return composed(
            "data=fake", "data.num_samples=80", "data.image_size=16", "data.batch_size=16", "model.image_size=16",
            "trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false",
            "compare_scratch=false", *precision, *overrides,
        )  # fmt: skip

    return compose_quick


@pytest.fixture
def trained(quick, tmp_path):
    """Trains with these overrides and returns the run directory."""

    def run(*overrides: str) -> Path:
        from headstart.training.run import train

        train(quick("test=false", "trainer.max_epochs=1", *overrides))
        return tmp_path / "run"

    return run


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder with real data and weights that `HEADSTART_REAL` names."""
    folder = os.environ.get("HEADSTART_REAL")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HEADSTART_REAL names no folder with real data and weights")
    return Path(folder).resolve()
