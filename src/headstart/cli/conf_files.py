"""The folder `conf/` and the files to choose from in it."""

from pathlib import Path

from omegaconf import OmegaConf

CONF = Path(__file__).parents[3] / "conf"
BASE = "base"
"""The name of files that other files of a group are built on; they are not to be chosen."""


def choices_by_group() -> dict[str, list[str]]:
    """The files to choose from in each folder of `conf/`, without their ending; Hydra's own groups are left out."""
    found: dict[str, list[str]] = {}
    for file in sorted(CONF.glob("*/*.yaml")):
        if file.stem != BASE:
            found.setdefault(file.parent.name, []).append(file.stem)
    return found


def file_with_target(group: str, target: str) -> str | None:
    """The one file of a folder of `conf/` that builds this class or function; None if there are several, or none."""
    files = [CONF / group / f"{name}.yaml" for name in choices_by_group().get(group, [])]
    found = [file.stem for file in files if file.is_file() and OmegaConf.load(file).get("_target_") == target]
    return found[0] if len(found) == 1 else None
