"""The folders with config files and the files to choose from in them.

In a checkout, `conf/` and the entry points lie at the top. An installed package carries both inside (pyproject.toml).
"""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).parents[1]
INSTALLED = (PACKAGE / "conf").is_dir()
"""Whether this is an installed package, not a checkout."""
CONF = PACKAGE / "conf" if INSTALLED else PACKAGE.parents[1] / "conf"
ENTRY_POINTS = PACKAGE / "entry_points" if INSTALLED else PACKAGE.parent
"""The folder of `train.py`, `evaluate.py`, ..."""
BASE = "base"
"""The name of files that other files of a group are built on; they are not to be chosen."""
added: list[Path] = []
"""Folders that are searched before `CONF`: see `own_conf.py`."""


def choices_by_group() -> dict[str, list[str]]:
    """The files to choose from in each folder of `conf/`, without their ending; Hydra's own groups are left out."""
    found: dict[str, set[str]] = {}
    for file in (each for folder in (*added, CONF) for each in folder.glob("*/*.yaml")):
        if file.stem != BASE:
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def file_with_target(group: str, target: str) -> str | None:
    """The one file of a folder of `conf/` that builds this class or function; None if there are several, or none."""
    files = [file_of(group, name) for name in choices_by_group().get(group, [])]
    found = [file.stem for file in files if OmegaConf.load(file).get("_target_") == target]
    return found[0] if len(found) == 1 else None


def typed_name(group: str, target: str, choices: Mapping[str, str]) -> str:
    """The word after `<group>=` on the command line, such as `lp_ft`. If no file is known, the name of the class.

    Args:
        group: a folder of `conf/`.
        target: the class that the part builds, with its module.
        choices: group -> chosen file; may be empty.
    """
    return choices.get(group) or file_with_target(group, target) or target.rpartition(".")[2]


def file_of(group: str, name: str) -> Path:
    """The path of a file in a group. If no folder has it, the path in `CONF`, where no file is."""
    files = [folder / group / f"{name}.yaml" for folder in (*added, CONF)]
    return next((file for file in files if file.is_file()), files[-1])
