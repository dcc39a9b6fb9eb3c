"""Fingerprints of everything that a cached activation or picture depends on: the same fingerprint, the same content."""

import ast
import enum
import hashlib
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from headstart.backbones import parts
from headstart.data.samples import Samples, loaders

DIGEST_BYTES = 20
BACKENDS = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
# attributes that every module has; of these, only its tensors and parts decide what it computes
COMMON = vars(nn.Module()).keys() | {"_compiled_call_impl"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class NoFingerprintError(ValueError):
    """Something that the content depends on has no fingerprint; the message says what."""


def of_prefix(prefix: nn.Module, transform: Any, samples: Samples, device: torch.device) -> str:
    """A fingerprint of everything that turns a sample's content into its row, 32 hex digits.

    It covers: weights, buffers and settings of every module, the code of modules that are not from installed packages,
    the transform's settings, the decoder, the versions of the libraries, and how the device computes.

    Args:
        prefix: the frozen part of a backbone.
        transform: the result of the samples' `load` -> one input.
        samples: where the inputs come from.
        device: where the rows are computed.

    Raises:
        NoFingerprintError: a part keeps settings that cannot be read.
    """
    return _digest(_decoder(samples), _arithmetic(device), transform, prefix, parts)


def of_pictures(deterministic: Any, samples: Samples) -> str:
    """A fingerprint of everything that turns a file's content into pixels, 32 hex digits.

    It covers: the settings and code of the transform's deterministic part, the decoder, the versions of the libraries,
    and the instruction set of this processor: resizing rounds differently with another.

    Args:
        deterministic: a decoded picture -> the picture that is cached.
        samples: where the pictures come from.

    Raises:
        NoFingerprintError: a part keeps settings that cannot be read.
    """
    return _digest(_decoder(samples), torch.backends.cpu.get_cpu_capability(), deterministic)


def _digest(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (torch.__version__, *parts):
        for piece in _pieces(part, []):
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()


def of_samples(samples: Samples, indices: list[int]) -> list[str]:
    """A fingerprint of each sample's content, 40 hex digits; for files, the hash of their bytes from the scan."""
    if samples.digests is not None:
        return [samples.digests[index] for index in indices]
    return [_of_value(samples.load(index)) for index in indices]


def of_views(transform: Any, digests: list[str], number: int) -> list[str]:
    """Fingerprints of `number` augmented versions of each sample; the versions of a sample follow each other."""
    augmentation = _of_value(transform)
    return [
        hashlib.blake2b(f"{digest} {augmentation} {view}".encode(), digest_size=DIGEST_BYTES).hexdigest()
        for digest in digests
        for view in range(number)
    ]


def _of_value(value: Any) -> str:
    return hashlib.blake2b(b"".join(_pieces(value, [])), digest_size=DIGEST_BYTES).hexdigest()


def _decoder(samples: Samples) -> list[Any]:
    """Everything that turns a sample's content into the raw sample; empty if the raw sample itself is hashed.

    A loader with settings that do not matter, such as file names, has a `fingerprint()` of the settings that matter.
    """
    if samples.digests is None:
        return []
    kinds = [load.fingerprint() if hasattr(load, "fingerprint") else load for load in loaders(samples.load)]
    return [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]


def _arithmetic(device: torch.device) -> list[Any]:
    """The settings that change the results of the same operations."""
    operations = [getattr(backend, name, None) for backend in BACKENDS for name in ("conv", "matmul")]
    settings = [device.type, *(getattr(operation, "fp32_precision", None) for operation in operations)]
    with suppress(RuntimeError):  # torch refuses to read these if one of the above (since torch 2.9) was set
        settings.append(torch.get_float32_matmul_precision())
    with suppress(RuntimeError):
        settings.append(torch.backends.cudnn.allow_tf32)
    return settings


def _pieces(value: Any, above: list[Any]) -> Iterator[bytes]:
    """Bytes that are equal for values that behave the same. `above`: the objects that contain `value`."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, Tensor):
        yield f"tensor {tuple(value.shape)} {value.dtype}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"array {value.shape} {value.dtype}".encode()
        yield value.tobytes()
    elif isinstance(value, enum.Enum):
        yield f"{_qualified(type(value))}.{value.name}".encode()
    elif isinstance(value, types.ModuleType):
        yield from _code(value.__name__)
    elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        yield from _importable(value)
    elif any(value is other for other in above):
        yield b"one of those above"
    else:
        yield from _composed(value, [*above, value])


def _composed(value: Any, above: list[Any]) -> Iterator[bytes]:
    """A container, or an object with settings."""
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        items = list(value.items()) if isinstance(value, dict) else list(value)
        yield f"{_qualified(type(value))} {len(items)}".encode()
        for item in sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items:
            yield from _pieces(item, above)
    elif isinstance(value, partial):
        yield b"partial"
        yield from _pieces([value.func, value.args, value.keywords], above)
    elif isinstance(value, nn.Module):
        yield from _of_module(value, above)
    elif type(value).__reduce_ex__ is object.__reduce_ex__ and type(value).__reduce__ is object.__reduce__:
        yield from _importable(type(value))
        yield from _pieces(_settings(value), above)
    else:  # a class with its own pickling may keep settings outside its attributes
        raise NoFingerprintError(f"the settings of {_qualified(type(value))} cannot be read")


def _settings(value: Any) -> dict[str, Any]:
    """The attributes of a plain object."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    if not hasattr(value, "__dict__") and not slots:
        raise NoFingerprintError(f"the settings of {_qualified(type(value))} cannot be read")
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _of_module(module: nn.Module, above: list[Any]) -> Iterator[bytes]:
    """A module: its code, settings, tensors and parts; not its train or eval mode.

    A module with attributes that do not change what it computes, such as a file name, names them in
    `not_in_fingerprint`.
    """
    if any(getattr(module, hooks) for hooks in HOOKS):
        raise NoFingerprintError(f"a hook on {type(module).__name__} may change what it computes")
    if isinstance(module, fx.GraphModule):
        yield module.code.encode()
        yield from _code_of(node.target for node in module.graph.nodes if node.op == "call_function")
    else:
        yield from _importable(type(module))
        left_out = COMMON | getattr(module, "not_in_fingerprint", frozenset())
        # sorted, because the order in which a module got its attributes changes nothing
        own = {name: value for name, value in sorted(vars(module).items()) if name not in left_out}
        yield from _pieces(own, above)
    for tensors in (module._parameters, module._buffers, module._modules):
        yield from _pieces(dict(tensors), above)


def _importable(value: Callable[..., Any]) -> Iterator[bytes]:
    """The name by which a class or function can be imported, and its code."""
    name = _qualified(value)
    try:
        found: Any = importlib.import_module(value.__module__) if value.__module__ else None
    except ImportError:
        found = None
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    # names of libraries and Python are trusted, although another object of the same name may hide some of them
    if found is not value and not _is_of_library(value):
        raise NoFingerprintError(f"{name} is made while the program runs, so its code cannot be identified")
    yield name.encode()
    yield from _code_of([value])


def _is_of_library(value: Callable[..., Any]) -> bool:
    """Whether a class or function belongs to Python or an installed package, and is not made while the program runs."""
    module = value.__module__ or ""
    return "<" not in value.__qualname__ and (_is_of_python(module) or _is_installed(module))


def _code_of(values: Iterable[Any]) -> Iterator[bytes]:
    """The code of the files that define these classes and functions, and the functions of the project they use."""
    seen: dict[Any, set[str]] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        kinds = value.__mro__ if isinstance(value, type) else [value]
        kinds = [kind for kind in kinds if not _is_of_python(getattr(kind, "__module__", None) or "")]
        seen[value] = {kind.__module__ for kind in kinds}
        waiting += [used for kind in kinds for used in _used(kind) if _is_of_project(used.__module__)]
    yield from sorted({piece for module in set().union(*seen.values()) for piece in _code(module)})


def _used(value: Any) -> Iterator[Any]:
    """Functions and classes that the code of a function, or of a class's methods, calls by a global name."""
    # not the constructor: its effect is in the attributes
    parts = [part for name, part in vars(value).items() if name != "__init__"] if isinstance(value, type) else [value]
    for function in (part for part in parts if isinstance(part, types.FunctionType)):
        names = {name for code in _with_inner(function.__code__) for name in code.co_names}
        found = [function.__globals__.get(name) for name in names]
        found += [vars(module).get(name) for module in found if isinstance(module, types.ModuleType) for name in names]
        yield from (used for used in found if isinstance(used, (type, types.FunctionType)))


def _with_inner(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of all functions defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_inner(constant)


def _is_installed(module: str) -> bool:
    """Whether a module belongs to an installed package, whose code changes only with its version.

    A module that is compiled into another one has no file, such as `torch._C._nn`: then the file of that one counts.
    """
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if not file and "." in module:
        return _is_installed(module.rpartition(".")[0])
    return bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _is_of_project(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return file.endswith(".py") and not _is_installed(module)


def _is_of_python(module: str) -> bool:
    return module.split(".")[0] in {*sys.stdlib_module_names, ""}


@cache
def _code(module: str) -> tuple[bytes, ...]:
    """A module's code; for an installed package its name and version, for Python itself nothing."""
    package = module.split(".")[0]
    if _is_of_python(module):
        return ()
    try:
        found = importlib.import_module(module)
        if _is_installed(module):
            return (f"{package} {getattr(importlib.import_module(package), '__version__', '')}".encode(),)
        source = Path(inspect.getsourcefile(found)).read_text(encoding="utf-8")
    except (OSError, TypeError, ImportError) as error:
        raise NoFingerprintError(f"the code of {module} cannot be read") from error
    return (_without_words(source).encode(),)


def _without_words(source: str) -> str:
    """The code of a file without comments and docstrings: rewording them must not invalidate caches."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        words = body[0] if isinstance(body, list) and body else None
        if isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant) and isinstance(words.value.value, str):
            del body[0]
    return ast.dump(tree)


def _qualified(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
