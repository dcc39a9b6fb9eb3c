"""Keeps libraries from loading other libraries that almost no command uses: these load when they are first used.

Lightning loads all of torchmetrics, which loads matplotlib, scipy.signal and transformers for metrics of sounds and of
translations. Lightning and torchvision load the compiler of torch. That was more than half of the processor time to the
first training step (docs/speed.md), and no library has a setting for it.

While such a module is imported, stand-ins take the place of what it would load. Later they behave like the real thing,
which they load at the first use. If a version of a library does not work with stand-ins, it is imported as usual.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MATPLOTLIB = ("matplotlib", "matplotlib.axes", "matplotlib.colors", "matplotlib.pyplot")
COMPILER = ("torch._dynamo", "torch._dynamo.utils")
REPLACED = {
    "torchmetrics": (*MATPLOTLIB, "scipy.signal", "transformers"),
    "torchvision.ops.roi_align": COMPILER,
    "torchvision.tv_tensors": COMPILER,
    "lightning_fabric.wrappers": COMPILER,
    "pytorch_lightning.utilities.compile": COMPILER,
    "pytorch_lightning.trainer.connectors.logger_connector.result": COMPILER,
    "sklearn.utils.fixes": ("pandas",),
    "torch.utils.flop_counter": ("triton", "triton.runtime", "triton.runtime.jit"),
}
"""Module -> the modules that it imports, but does not use while it is imported."""


def begin() -> None:
    """Lets stand-ins take their place in later imports; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within this context, functions of torch that ask its compiler to leave them out do not load it for that."""
    with _stand_ins(COMPILER):
        yield


def disable(function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """Stands for `torch._dynamo.disable`, which keeps a function out of compiled code.

    As long as nothing has loaded the compiler, nothing is compiled.
    """
    made: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not made and (compiler := loaded("torch._dynamo")):
            made.append(compiler.disable(function, recursive, **options))
        return (made[0] if made else function)(*args, **kwargs)

    return call


def loaded(name: str) -> ModuleType | None:
    """The module of this name, if it is loaded; a stand-in does not count."""
    found = sys.modules.get(name)
    return None if isinstance(found, _LaterModule) else found


class _LaterName(type):
    """Makes a class that stands for one name of a module, such as a class that annotations and isinstance use.

    Args:
        stand_in: the module.
        path: the name in it, with dots.
    """

    def __new__(cls, stand_in: "_LaterModule", path: str) -> "_LaterName":
        return super().__new__(cls, path.rpartition(".")[2], (), {"_stand_in": stand_in, "_path": path})

    def __init__(cls, stand_in: "_LaterModule", path: str):
        super().__init__(cls.__name__, (), {})

    def _real(cls) -> Any:
        found = cls._stand_in.load()
        for name in cls._path.split("."):
            found = getattr(found, name)
        return found

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return _decorator(cls, args, kwargs) if cls._stand_in.waits else cls._real()(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _LaterName(cls._stand_in, f"{cls._path}.{name}") if cls._stand_in.waits else getattr(cls._real(), name)

    def __instancecheck__(cls, instance: Any) -> bool:
        return loaded(cls._stand_in.__name__) is not None and isinstance(instance, cls._real())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return loaded(cls._stand_in.__name__) is not None and issubclass(subclass, cls._real())


class _LaterModule(ModuleType):
    """Stands for a module. It gives names of it that load it at their first use.

    Attributes:
        waits: whether the import that it was made for goes on; then even an attribute of an attribute loads nothing.
    """

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__, self.__path__ = ModuleSpec(name, None), []
        self.waits = True
        if name == "torch._dynamo":
            self.disable = disable

    def load(self) -> ModuleType:
        """The real module."""
        package = self.__name__.rpartition(".")[0]
        for name in (package, self.__name__):
            if isinstance(sys.modules.get(name), _LaterModule):
                del sys.modules[name]
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self.waits:
            return getattr(self.load(), name)
        return sys.modules.get(f"{self.__name__}.{name}") or _LaterName(self, name)


def _decorator(made_by: _LaterName, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
    """Stands for the result of a call that makes a decorator: the call is made when the decorated function is called.

    The only calls of stand-ins while a module is imported are such ones (`@style_change(...)` in torchmetrics).
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def decorated(*given: Any, **named: Any) -> Any:
            return made_by(*args, **kwargs)(function)(*given, **named)

        return decorated

    return decorate


@contextmanager
def _stand_ins(names: Sequence[str]) -> Iterator[None]:
    """Stand-ins for the modules that are not loaded yet, in `sys.modules` as long as the context lasts."""
    made = [_LaterModule(name) for name in names if name not in sys.modules]
    sys.modules.update({each.__name__: each for each in made})
    try:
        yield
    finally:
        for each in made:
            each.waits = False
            if sys.modules.get(each.__name__) is each:
                del sys.modules[each.__name__]


class _Finder:
    """Finds the modules of `REPLACED` as usual, but imports them with stand-ins.

    Without the base classes of `importlib.abc`, which take longer to import than the rest of this file.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The usual specification with another loader; None for all other modules."""
        found = PathFinder.find_spec(name, path, target) if name in REPLACED else None
        if found is not None and found.loader is not None:
            found.loader = _WithStandIns(found.loader)
        return found


class _WithStandIns:
    """Imports a module with stand-ins; if that fails, without."""

    def __init__(self, usual: Any):
        self.usual = usual

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As usual."""
        return self.usual.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the code of the module."""
        module.__loader__ = module.__spec__.loader = self.usual  # others may ask it for the source
        before = set(sys.modules)
        with suppress(Exception), _stand_ins(REPLACED[module.__name__]):
            self.usual.exec_module(module)
            return
        for name in set(sys.modules) - before:
            if name.startswith(f"{module.__name__}."):
                del sys.modules[name]
        self.usual.exec_module(module)
