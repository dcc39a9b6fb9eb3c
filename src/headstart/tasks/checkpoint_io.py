"""Writes and reads checkpoints for Lightning: complete, verified, only plain data."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from headstart.errors import UsageError
from headstart.files import UnreadableError, read_torch_file, remove_leftovers, replacing
from headstart.runs.directory import Run
from headstart.runs.earlier import translated_callbacks
from headstart.runs.trust import value_at


class SafeCheckpointIO(CheckpointIO):
    """Writes checkpoints that stay complete if the process is killed or the power fails, and detects damaged ones.

    For `Trainer(plugins=[...])`. It writes to local files only, because an object store cannot rename.
    """

    def __init__(self):
        self.folders: set[Path] = set()  # into which checkpoints were written

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes the file; it replaces an older one only when it is complete on the disk and has been checked.

        Raises:
            UsageError: a URL; no space or no permission; more than plain data, which `load_checkpoint` refuses.
        """
        target = _local(path)
        remove_leftovers(target)
        try:
            with replacing(target, binary=True) as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                _refuse_more_than_plain_data(Path(stream.name), target)
        except (OSError, RuntimeError) as error:
            # after a failed write, torch reports a follow-up error of its own; the cause is in its context
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            kept = "the earlier file is kept" if target.exists() else "there is no earlier file"
            raise UsageError(
                f"cannot write {target} ({kept}): {cause}. Free some space, or give paths.run=<folder>"
            ) from error
        self.folders.add(target.parent.resolve())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of the file, every byte verified; states of callbacks as today's code and this place need them.

        Lightning passes `weights_only`, but nothing in a checkpoint is ever executed.

        Raises:
            UsageError: the file is damaged, incomplete, or holds more than plain data.
            FileNotFoundError: there is no such file.
        """
        try:
            content = read_torch_file(_local(path), map_location)
        except UnreadableError as error:
            raise UsageError(f"{path} is no checkpoint that can be read safely: {error}") from error
        if isinstance(content, dict) and "callbacks" in content:
            content["callbacks"] = _at_its_place(translated_callbacks(content["callbacks"]), content, Path(path))
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the file, if it exists.

        A resumed run gets the names of its earlier checkpoints from a file that may come from a stranger. So only a
        checkpoint in a folder into which this run has written is removed.
        """
        file = _local(path)
        if file.suffix == ".ckpt" and file.parent.resolve() in self.folders:
            file.unlink(missing_ok=True)


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise UsageError(f"{path}: checkpoints go into a folder, not to a URL; give callbacks.<name>.dirpath=<folder>")
    return Path(path)


def _at_its_place(states: Any, content: dict[str, Any], path: Path) -> Any:
    """The states of callbacks, with the paths of files of the run as they are after the run was moved."""
    run, before = Run.of(path), value_at(content, "hyper_parameters.config.paths.run")
    if run is None or before in (None, str(run.folder)):
        return states
    return _moved(states, f"{before}{os.sep}", f"{run.folder}{os.sep}")


def _moved(node: Any, before: str, now: str) -> Any:
    if isinstance(node, str):
        return now + node.removeprefix(before) if node.startswith(before) else node
    if isinstance(node, dict):
        return {_moved(key, before, now): _moved(value, before, now) for key, value in node.items()}
    return [_moved(item, before, now) for item in node] if isinstance(node, list) else node


def _refuse_more_than_plain_data(file: Path, target: Path) -> None:
    """Raises a UsageError now, not only when the run is resumed; reads the structure of the file, not its tensors."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except pickle.UnpicklingError as error:
        found = [str(error)]
    if found:
        raise UsageError(
            f"{target} would hold {', '.join(sorted(found))}, which cannot be read back safely. Keep only tensors, "
            "numbers, strings, lists and dicts in hyper_parameters and in what callbacks and modules save"
        )
