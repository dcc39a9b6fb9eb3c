"""Keeps freed memory in the process: to return it and request it again took half the time of a training on a CPU."""

import ctypes
import os
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Makes glibc reuse big buffers; by default it returns each one to the kernel, which must clear every new one.

    Each training step allocates and frees the same hundreds of megabytes; so does a loader that decodes big pictures,
    whatever device the model is on. The peak memory grows by up to a fifth, because the freed pieces are scattered.
    It also holds in loader workers and in the processes of several devices: they are forked, or import the entry point.

    Returns:
        Whether it was done. It is not done on macOS, Windows or musl, or if the environment chooses otherwise: with
        `HEADSTART_MALLOC=off`, variables of glibc (`MALLOC_*`, `GLIBC_TUNABLES`) or a preloaded allocator.
    """
    if sys.platform != "linux" or os.environ.get("HEADSTART_MALLOC") == "off" or _environment_chooses():
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # 0: big buffers get no mapping of their own, because it would end with the buffer; -1: the heap never shrinks.
    # A higher M_MMAP_THRESHOLD would not be enough: many glibc versions refuse more than 32 MiB
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


def _environment_chooses() -> bool:
    return (
        any(name.startswith("MALLOC_") for name in os.environ)
        or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
        or "malloc" in os.environ.get("LD_PRELOAD", "")
    )
