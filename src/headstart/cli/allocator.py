"""Memory that is freed stays with the process: handing it back and asking anew took half of a training on a CPU."""

import ctypes
import os
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets glibc use big buffers again instead of returning each to the kernel, which must then clear every new one.

    A step allocates and frees the same hundreds of megabytes over and over; so does a loader that decodes big pictures,
    whatever device the model is on. The peak grows by up to a fifth: the freed pieces are scattered. Loader workers
    and the processes of several devices have it too: they are forked, or import the entry point.

    Returns:
        Whether it was done. Not on macOS, Windows or musl, nor when the person chose otherwise: with
        `HEADSTART_MALLOC=off`, glibc's own variables (`MALLOC_*`, `GLIBC_TUNABLES`) or a preloaded allocator.
    """
    if sys.platform != "linux" or os.environ.get("HEADSTART_MALLOC") == "off" or _chosen_otherwise():
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # no mapping of its own for a big buffer, which would end with it; -1: never shrink the heap. (Raising
    # M_MMAP_THRESHOLD instead would not do: many glibc versions refuse more than 32 MiB)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


def _chosen_otherwise() -> bool:
    return (
        any(name.startswith("MALLOC_") for name in os.environ)
        or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
        or "malloc" in os.environ.get("LD_PRELOAD", "")
    )
