"""Reading weights from files, runs and the web, and loading them without ever skipping anything in silence."""

import http.client
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.hub import HASH_REGEX
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from headstart.errors import UsageError
from headstart.files import NotPlainError, UnreadableError, read_torch_file
from headstart.runs.directory import Run

SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt")
SHOWN = 10

StateDict = OrderedDict[str, Tensor]


def looks_like_path(weights: str | Path) -> bool:
    """Whether `weights` was meant as a file or a run folder rather than as the name of published weights."""
    path = Path(weights)
    return isinstance(weights, Path) or path.suffix in SUFFIXES or len(path.parts) > 1 or path.exists()


def read_weights(source: str | Path) -> StateDict:
    """Tensors by name from a file, a checkpoint of an earlier run (its backbone) or that run's folder.

    Raises:
        UsageError: nothing there, not weights, or damaged.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        best = Run(path).best
        if not best.is_file():
            raise UsageError(
                f"the folder '{path}' holds no {best.relative_to(path)}. "
                "Give a run's folder or a file: model.weights=<path>"
            )
        path = best
    return _backbone_of_checkpoint(path) if path.suffix == ".ckpt" else load_state_dict_file(path)


def load_state_dict_file(path: str | Path) -> StateDict:
    """Tensors by name from `.safetensors` or from what `torch.save` wrote of a state dict.

    What training scripts wrap around it (`{"state_dict": ...}`, `{"model": ...}`, `module.` before names) comes off.

    Raises:
        UsageError: nothing there, not a state dict, or damaged.
    """
    content = _read(Path(path))
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UsageError(f"'{path}' is no state dict (tensors by name). Save one: torch.save(net.state_dict(), path)")
    state = _ordered(content)
    if all(name.startswith("module.") for name in state):
        consume_prefix_in_state_dict_if_present(state, "module.")
    return state


def load_backbone_weights(backbone: nn.Module, source: str | Path) -> None:
    """Give a whole backbone the weights in `source`, which name its own parameters; mean and std may be missing.

    Raises:
        UsageError: as `read_weights` and `load_strictly`.
    """
    state = read_weights(source)
    for name in ("mean", "std"):
        if hasattr(backbone, name):
            state.setdefault(name, getattr(backbone, name))
    load_strictly(backbone, state, str(source))
    backbone.pretrained = True


def load_strictly(module: nn.Module, state: StateDict, source: str, ignore: Collection[str] = ()) -> None:
    """Give `module` (its parameters may be on the meta device) the tensors of `state`, all of them and no other.

    Args:
        source: what to call the weights in an error.
        ignore: prefixes of names that `state` may have although `module` does not: a classifier that was cut off.

    Raises:
        UsageError: missing or unexpected names, other shapes, values that are not finite.
    """
    meta = any(parameter.is_meta for parameter in module.parameters())
    wanted = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    # assigning a half-precision file would otherwise make half-precision parameters
    given = _ordered({k: v.to(wanted.get(k, v.dtype)) for k, v in state.items()}, getattr(state, "_metadata", None))
    if not hasattr(given, "_metadata"):
        # MNASNet refuses a file that does not tell its version, and safetensors cannot
        given._metadata = {"": {"version": module._version}}
    try:
        result = module.load_state_dict(given, strict=False, assign=meta)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UsageError(f"the weights '{source}' do not fit this network:{_listed('mismatches', lines)}") from error
    # weights from before torch 0.4.1 do not count batches, and only momentum=None needs the count
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in result.unexpected_keys if not name.startswith(tuple(ignore))]
    if missing or unexpected:
        raise UsageError(
            f"the weights '{source}' do not fit this network:{_listed('missing', missing)}"
            f"{_listed('unexpected', unexpected)}\nAre they of another model, or of another model.output?"
        )
    if broken := [n for n, t in module.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UsageError(f"the weights '{source}' are not finite:{_listed('NaN or infinite', broken)}")


def fetch(url: str) -> Path:
    """The file behind `url`, downloaded once into torch's own cache (`TORCH_HOME`), its hash verified then.

    Raises:
        UsageError: no network, or not the file it should be.
    """
    file_name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if path.exists():
        return path
    digest = HASH_REGEX.search(file_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digest.group(1) if digest else None)
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # URLError is an OSError
        raise UsageError(
            f"cannot download {url}: {error}\nEither put the file {file_name} into {path.parent},\n"
            "or type model.weights=<path to the file>, or model.weights=null for random weights."
        ) from error
    return path


def _backbone_of_checkpoint(path: Path) -> StateDict:
    content = _read(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    prefix = "backbone."
    backbone = {k.removeprefix(prefix): v for k, v in (state or {}).items() if k.startswith(prefix)}
    if not backbone:
        raise UsageError(f"'{path}' is no checkpoint of a Headstart run: nothing in it is named '{prefix}...'.")
    return _ordered(backbone)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'. Give one that exists: model.weights=<path>")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return read_torch_file(path, legacy=True)
    except NotPlainError as error:
        raise UsageError(
            f"cannot read '{path}': {error}. Save weights as torch.save(net.state_dict(), path)"
        ) from error
    except UnreadableError as error:
        raise UsageError(f"cannot read '{path}': {error}. Copy or download it again") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot read '{path}': {reason}. It may be cut short: copy or download it again.") from error


def _ordered(tensors: dict[str, Tensor], metadata: dict | None = None) -> StateDict:
    """A copy that keeps the module versions which `state_dict()` leaves in `_metadata`."""
    state = OrderedDict(tensors)
    metadata = metadata or getattr(tensors, "_metadata", None)
    if metadata:
        state._metadata = metadata
    return state


def _listed(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f"\n    and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"\n  {title} ({len(names)}):" + "".join(f"\n    {name}" for name in sorted(names)[:SHOWN]) + more
