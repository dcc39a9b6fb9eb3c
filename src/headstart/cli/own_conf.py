"""A person's own `conf/` in the current folder: it is searched before the `conf/` of Headstart.

So new models, data sets and recipes need no fork. Only training uses it. The commands for a trained run do not: they
may be typed in a folder that a stranger sent, and a config can call any function.
"""

import logging
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from headstart.cli import conf_files
from headstart.cli.conf_files import CONF
from headstart.files import relative_to_cwd
from headstart.runs.directory import Run

log = logging.getLogger(__name__)


class OwnConf(SearchPathPlugin):
    """Puts the added folders before all others when Hydra searches a file."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds the folders."""
        for folder in reversed(conf_files.added):
            search_path.prepend("own conf", f"file://{folder}")


def use_own_conf(config_name: str) -> None:
    """Adds `conf/` of the current folder for an entry point, such as `train`, if there is one; else removes it."""
    folder = own_conf(config_name)
    conf_files.added[:] = [] if folder is None else [folder]
    Plugins.instance().register(OwnConf)


def own_conf(config_name: str) -> Path | None:
    """`conf/` of the current folder; None if there is none, if it is ours, or if this entry point uses none."""
    folder = Path.cwd() / "conf"
    if config_name != "train" or not folder.is_dir() or folder.resolve() == CONF or _is_received(Path.cwd()):
        return None
    return folder


def _is_received(folder: Path) -> bool:
    """Whether a folder is, or is in, a run directory, which a stranger may have sent."""
    runs = [run for each in (folder, *folder.parents) if (run := Run(each)).exists]
    return any(run.checkpoints_folder.is_dir() or run.overrides_file.is_file() for run in runs)


def announcement() -> str | None:
    """One line about the files that are used besides ours; None if there are none."""
    for folder in conf_files.added:
        files = sorted(file.relative_to(folder) for file in folder.rglob("*.yaml"))
        replaced = [str(file) for file in files if (CONF / file).is_file()]
        in_place_of = f", in place of ours: {', '.join(replaced)}" if replaced else ""
        if files:
            number = "1 config file" if len(files) == 1 else f"{len(files)} config files"
            return f"{relative_to_cwd(folder)}/ of this folder is used: {number}{in_place_of}"
    return None
