"""Where a run that somebody sent may write: only into its own folder and into the caches of this machine."""

import os
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from headstart.errors import UsageError
from headstart.runs.trust import TRUST, WHOLE_VALUES, entries, is_trusted, shown

PLACES = ("dirpath", "folder", "file", "save_dir", "split_file", "default_root_dir", "tracking_uri", "nvme_path")
"""Settings that say where something is written, or to which server it is sent."""

FILE_NAME = "filename"
"""The setting of any section with the name of a file in a folder that another setting names."""

LOGGER_FOLDERS = ("name", "version", "sub_dir")
"""Settings of a logger with the names of folders in the folder that another setting names."""

LOGGER_SETTINGS = {
    *("_target_", "save_dir", "name", "version", "sub_dir", "tracking_uri", "project", "experiment_name", "run_name"),
    *("prefix", "default_hp_metric", "log_graph", "flush_logs_every_n_steps", "group", "tags", "notes", "offline"),
    *("entity", "id", "mode", "job_type", "resume", "anonymous", "flush_secs", "max_queue", "run_id", "synchronous"),
}
"""Settings of a saved logger; there are more, which send files or write them elsewhere."""

CACHES = {"cache": "root", "data": "cache"}
"""Section -> setting with a folder of results that every run of this machine may use."""


def check_places(config: DictConfig, run: Path, typed: DictConfig) -> None:
    """Refuses a saved config that would write outside the directory of its run.

    Args:
        config: with the paths of this machine.
        run: the directory.
        typed: the config of this command line; places that it names, too, are allowed.

    Raises:
        UsageError: the message names the place and the value.
    """
    if is_trusted("places"):
        return
    plain = OmegaConf.to_container(config)
    loggers = plain.get("logger") or {}
    for name, settings in loggers.items() if isinstance(loggers, dict) else [("", loggers)]:
        unknown = sorted(map(str, set(settings) - LOGGER_SETTINGS)) if isinstance(settings, dict) else [name]
        if unknown and OmegaConf.select(typed, f"logger.{name}") != OmegaConf.select(config, f"logger.{name}"):
            raise UsageError(
                f"REFUSED: the saved config has a logger with {shown(', '.join(unknown))} (logger.{shown(name)}). "
                "It may send files to another place. If you have made this run yourself, type "
                f"{TRUST}=places before the command"
            )
    for section, content in plain.items():
        for place, key, written in entries(str(section), content):
            is_cache = key == CACHES.get(section, "")
            is_name = key == FILE_NAME or (section == "logger" and key in LOGGER_FOLDERS)
            if section == "paths" or not (is_cache or is_name or key in PLACES) or not isinstance(written, str):
                continue
            value = str(OmegaConf.select(config, place))
            climbs = is_name and ".." in re.split(r"[/\\]", value)  # out of a folder that may itself be a link
            if written in WHOLE_VALUES or value == str(OmegaConf.select(typed, place)):
                continue
            base = Path(config.paths.cache).expanduser() if is_cache else run
            if climbs or "://" in value or not _lies_in(base, base / value if is_name else Path(value).expanduser()):
                raise UsageError(
                    f"REFUSED: the saved config would write to {shown(value)} ({place}), which is outside the run "
                    f"{run}. If you have made this run yourself, type {TRUST}=places before the command"
                )


def _lies_in(folder: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_log_of_wandb(path: Path) -> bool:
    """Whether this is the link to the log of its service that Weights & Biases makes; only that writes there."""
    return path.parts[-2:] == ("logs", "debug-core.log") and "wandb" in path.parts


def check_links(run: Path) -> None:
    """Refuses a run directory with links to other places, or with pipes and devices.

    What a command writes would end up elsewhere, and a pipe would be read for ever.

    Raises:
        UsageError: the message names the first of them.
    """
    if is_trusted("places"):
        return
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and not _lies_in(run, path) and not _is_log_of_wandb(path.relative_to(run)):
                raise UsageError(
                    f"REFUSED: {shown(path)} is a link to {shown(os.path.realpath(path))}, which is outside the run, "
                    "and this command writes into the run. Replace the link with the files. If you have made this link "
                    f"yourself, type {TRUST}=places before the command, or set this environment variable"
                )
            if not (path.is_file() or path.is_dir() or path.is_symlink()):
                raise UsageError(f"REFUSED: {shown(path)} is neither a file nor a folder. Remove it from the run")


def use_cache_of_this_machine(config: DictConfig) -> None:
    """Replaces the folders of caches in a saved config, which may come from another machine or from a stranger.

    Args:
        config: of a checkpoint, every value resolved.
    """
    folder = cache_of_this_machine()
    config.paths.cache = folder
    for part in (config.get("cache") or {}).values():
        if isinstance(part, DictConfig) and "root" in part:
            part.root = f"{folder}/stores"
    if config.data.get("cache") is not None:
        config.data.cache = folder


def cache_of_this_machine() -> str:
    """The folder of all caches, as `conf/paths/default.yaml` has it."""
    return os.environ.get("HEADSTART_CACHE", "~/.cache/headstart")
