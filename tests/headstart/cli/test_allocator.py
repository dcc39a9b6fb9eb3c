"""How memory is handled cannot be undone: what it does is measured in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from headstart.cli import allocator

FAULTS = """
import json, resource, torch
from torch.utils.data import DataLoader

def faults(_=None):
    '''Pages the kernel must clear for 100 MB that are written and freed, again and again, as activations are.'''
    for _ in range(12):  # until the holes between what is in use are wide enough
        torch.ones(25_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = {"stock": faults()} if __name__ == "__main__" else {}
import headstart.cli.run  # as the entry points do

if __name__ == "__main__":
    found["kept"] = faults()
    for method in ("fork", "spawn"):
        loader = DataLoader([0], num_workers=1, collate_fn=faults, multiprocessing_context=method)
        (found[method],) = loader
    print(json.dumps(found))
"""
OURS = ("HEADSTART_MALLOC", "GLIBC_TUNABLES", "LD_PRELOAD")


@pytest.fixture
def calls(monkeypatch):
    """The options given to glibc, with nothing said by the environment of the tests."""
    for name in [name for name in os.environ if name in OURS or name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    given = []

    class Library:
        gnu_get_libc_version = None

        def mallopt(self, option, value):
            given.append((option, value))
            return 1

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    return given


@pytest.mark.slow
def test_freed_memory_is_used_again_here_and_in_loader_workers(tmp_path):
    if not allocator.keep_freed_memory():
        pytest.skip("another C library, or another choice in the environment")
    script = tmp_path / "faults.py"
    script.write_text(FAULTS)
    source = os.path.dirname(os.path.dirname(allocator.__file__))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for place in ("kept", "fork", "spawn"):
        assert found[place] < 0.1 * found["stock"], found


def test_glibc_is_told(calls):
    assert allocator.keep_freed_memory()
    assert calls == [(allocator.M_MMAP_MAX, 0), (allocator.M_TRIM_THRESHOLD, -1)]


@pytest.mark.parametrize(
    "variable",
    [
        "HEADSTART_MALLOC=off",
        "MALLOC_TRIM_THRESHOLD_=131072",
        "GLIBC_TUNABLES=glibc.malloc.arena_max=2",
        "LD_PRELOAD=/usr/lib/libjemalloc.so.2",
    ],
)
def test_another_choice_is_respected(variable, calls, monkeypatch):
    monkeypatch.setenv(*variable.split("=", 1))
    assert not allocator.keep_freed_memory()
    assert not calls


def test_nothing_happens_elsewhere(calls, monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())  # musl
    assert not allocator.keep_freed_memory()
    assert not calls
