"""How Lightning writes and reads checkpoints here: whole, verified, plain data."""

import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from headstart.errors import UsageError
from headstart.files import UnreadableError, read_torch_file, remove_leftovers, replacing
from headstart.runs.earlier import translated_callbacks


class SafeCheckpointIO(CheckpointIO):
    """Checkpoints that a kill or a power cut at any moment leaves whole, and whose damage is noticed.

    For `Trainer(plugins=[...])`. Only files: there is no renaming in an object store.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes the file; what was there before is replaced once the new one is on the disk and can be read back.

        Raises:
            UsageError: a URL; no room or no right to write; more than plain data, which `load_checkpoint` would refuse.
        """
        target = _local(path)
        remove_leftovers(target)
        try:
            with replacing(target, binary=True) as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                _refuse_more_than_plain_data(Path(stream.name), target)
        except (OSError, RuntimeError) as error:
            # torch stumbles over its own bookkeeping when a write fails, and says that instead
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            kept = "what was there before is kept" if target.exists() else "there is none yet"
            raise UsageError(f"cannot write {target} ({kept}): {cause}. Make room, or give paths.run") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of the file, every byte verified, the states of callbacks under the names of today's classes.

        `weights_only` is there for Lightning; nothing in a checkpoint is ever executed.

        Raises:
            UsageError: damaged, cut short, or more than plain data.
            FileNotFoundError: there is none.
        """
        try:
            content = read_torch_file(_local(path), map_location)
        except UnreadableError as error:
            raise UsageError(f"{path} is no checkpoint that can be read safely: {error}") from error
        if isinstance(content, dict) and "callbacks" in content:
            content["callbacks"] = translated_callbacks(content["callbacks"])
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the file, if it is there."""
        _local(path).unlink(missing_ok=True)


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise UsageError(f"{path}: checkpoints go into a folder, not to a URL; give callbacks.<name>.dirpath=<folder>")
    return Path(path)


def _refuse_more_than_plain_data(file: Path, target: Path) -> None:
    """Better now than when the run is to go on; reads the file's structure, not its tensors."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except pickle.UnpicklingError as error:
        found = [str(error)]
    if found:
        raise UsageError(
            f"{target} would hold {', '.join(sorted(found))}, which is not read back for safety. Keep tensors, "
            "numbers, strings, lists and dicts in hyper_parameters and in what callbacks and modules save"
        )
