"""Reads weights from files, runs and the web, and loads them strictly: no tensor is skipped silently."""

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

from headstart.backbones.hub import weights_on_hub
from headstart.errors import UsageError, printable
from headstart.files import HUB_ADDRESS, WEIGHT_SUFFIXES, NotPlainError, UnreadableError, read_torch_file
from headstart.runs.directory import Run

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts save a state dict."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "backbone.", "encoder.")
"""Names of the object that holds a network: DataParallel, torch.compile, and usual ones in a LightningModule."""
SHOWN = 10

StateDict = OrderedDict[str, Tensor]


def looks_like_path(weights: str | Path) -> bool:
    """Whether `weights` is a file, the folder of a run or an address on the hub, not the name of published weights."""
    path = Path(weights)
    return isinstance(weights, Path) or path.suffix in WEIGHT_SUFFIXES or len(path.parts) > 1 or path.exists()


def local_path(weights: str | Path) -> Path:
    """The path of a file or of the folder of a run; a file on the Hugging Face hub (`hf://`) is downloaded once.

    Raises:
        UsageError: as `weights_on_hub`.
    """
    text = str(weights)
    return weights_on_hub(text) if text.startswith(HUB_ADDRESS) else Path(weights).expanduser()


def read_weights(source: str | Path, part: str = "backbone") -> StateDict:
    """Tensors by name, from a file or from an earlier run: a checkpoint or its folder gives one part of the model.

    A checkpoint of another LightningModule gives its state dict.

    Args:
        source: path of the file, or of the folder of the run; or an address on the hub, `hf://owner/name`.
        part: of an earlier run: `backbone` or `head`.

    Raises:
        UsageError: no such file, no weights in it, or damaged.
    """
    path = local_path(source)
    if path.is_dir():
        best = Run(path).best
        if not best.is_file():
            raise UsageError(
                f"the folder '{path}' holds no {best.relative_to(path)}. "
                "Give a run's folder or a file: model.weights=<path>"
            )
        path = best
    content = _read(path)
    return _part_of_run(content, part) or _state_dict_in(content, path)


def load_state_dict_file(path: str | Path) -> StateDict:
    """Tensors by name, from `.safetensors` or from a state dict in a file of `torch.save`.

    Wrappers of training scripts are removed (`WRAPPERS`), and each prefix in `PREFIXES` that all names share.

    Raises:
        UsageError: no such file, no state dict in it, or damaged.
    """
    return _state_dict_in(_read(Path(path)), path)


def _state_dict_in(content: Any, path: str | Path) -> StateDict:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UsageError(f"'{path}' is no state dict (tensors by name). Save one: torch.save(net.state_dict(), path)")
    state = _ordered(content)
    while prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in state)), None):
        consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def load_backbone_weights(backbone: nn.Module, source: str | Path) -> None:
    """Loads all weights of a backbone from `source`, which has the same names; mean and std may be missing.

    Raises:
        UsageError: as in `read_weights` and `load_strictly`.
    """
    state = read_weights(source)
    for name in ("mean", "std"):
        if hasattr(backbone, name):
            state.setdefault(name, getattr(backbone, name))
    load_strictly(backbone, state, str(source))
    backbone.pretrained = True


def load_strictly(module: nn.Module, state: StateDict, source: str, ignore: Collection[str] = ()) -> None:
    """Loads `state` into `module`; the names must match, except for `ignore`.

    Args:
        module: its parameters may be on the meta device.
        state: tensors by name.
        source: name of the weights in errors.
        ignore: prefixes of names that only `state` may have, such as those in a classifier that was cut off.

    Raises:
        UsageError: missing or unexpected names, different shapes, values that are not finite.
    """
    meta = any(parameter.is_meta for parameter in module.parameters())
    wanted = {(name, tensor.shape): tensor.dtype for name, tensor in module.state_dict().items()}
    # to the dtype of the module, or weights in half precision would make parameters in half precision; a tensor of
    # another shape is not converted, because it may be of any size
    given = {name: tensor.to(wanted.get((name, tensor.shape), tensor.dtype)) for name, tensor in state.items()}
    given = _ordered(given, getattr(state, "_metadata", None))
    if not hasattr(given, "_metadata"):
        # MNASNet needs the version of the file, which safetensors does not hold
        given._metadata = {"": {"version": module._version}}
    try:
        result = module.load_state_dict(given, strict=False, assign=meta)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UsageError(f"the weights '{source}' do not fit this network:{_listed('mismatches', lines)}") from error
    # files from before torch 0.4.1 have no batch count, and only momentum=None needs it
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in result.unexpected_keys if not name.startswith(tuple(ignore))]
    if missing or unexpected:
        raise UsageError(
            f"the weights '{source}' do not fit this network:{_listed('missing', missing)}"
            f"{_listed('unexpected', unexpected)}\nGive the model and the model.output that the weights were made with"
        )
    if broken := [n for n, t in module.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UsageError(f"the weights '{source}' are not finite:{_listed('NaN or infinite', broken)}")


def fetch(url: str) -> Path:
    """The file at `url`, downloaded once to the cache of torch (`TORCH_HOME`); its hash is verified after the download.

    Raises:
        UsageError: no network, or the file has another hash.
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


def _part_of_run(content: Any, part: str) -> StateDict | None:
    """A part of the model in a checkpoint of Headstart; None if the file has no part of this name."""
    state = content.get("state_dict") if isinstance(content, dict) else None
    prefix = f"{part}."
    found = {name.removeprefix(prefix): v for name, v in (state or {}).items() if name.startswith(prefix)}
    return _ordered(found) if found else None


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
        raise UsageError(f"cannot read '{path}': {reason}. It may be incomplete: copy or download it again.") from error


def _ordered(tensors: dict[str, Tensor], metadata: dict | None = None) -> StateDict:
    """A copy that keeps `_metadata`, where `state_dict()` stores the versions of modules."""
    state = OrderedDict(tensors)
    metadata = metadata or getattr(tensors, "_metadata", None)
    if metadata:
        state._metadata = metadata
    return state


def _listed(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f"\n    and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"\n  {title} ({len(names)}):" + "".join(f"\n    {printable(name)}" for name in sorted(names)[:SHOWN]) + more
