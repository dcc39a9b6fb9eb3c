"""The tests that need a GPU."""

from importlib.util import find_spec
from typing import Any

from gpu_parts.bench import Bench, LeftOut, process, require_gpu


def tests(bench: Bench) -> None:
    """The tests that need a GPU."""

    def run() -> dict[str, Any]:
        if find_spec("pytest") is None:
            raise LeftOut("pytest is not installed")
        require_gpu()
        printed = process("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider")
        return {"result": printed.strip().splitlines()[-1]}

    bench.measure("pytest -m gpu", run)
