"""Keep the wire's MiB buffers in the process between messages.

By default glibc returns buffers of this size to the kernel when they are freed, and the kernel
clears fresh pages for the next message: on a stream of 1 MiB examples that costs more than the
copies. Three settings together prevent it. Both thresholds must be pinned, because pinning one
disables the dynamic rule of the other. And there must be one arena: the others lie in mappings of
64 MiB that are unmapped as soon as they are empty, regardless of the thresholds, so that a process
could be half as fast as an identical one, depending on the arena of its buffers.
"""

import ctypes

# <malloc.h>; glibc caps the mmap threshold at half of an arena's heap, 32 MiB.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
# Made once: each makes its own types, which only the garbage collector frees.
_LIBC = ctypes.CDLL(None)
LARGEST_KEPT_BYTES = 32 * 2**20
_KEPT_FREE_BYTES = 128 * 2**20
_MOST_KEPT_FREE_BYTES = 2**31 - 1  # mallopt takes an int


def use_one_arena() -> bool:
    """Let all threads share one arena; call before any other thread starts, as each has its own
    from its first allocation on. False without glibc."""
    mallopt = getattr(_LIBC, "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, 1))


def keep_in_process(all_sizes_bytes: int = 0) -> bool:
    """Pin glibc's settings, one arena too; call before threads start. False without glibc.

    With `all_sizes_bytes` also buffers over 32 MiB, for a process that calls `give_back` itself:
    any large array that is freed stays in the heap until then, while no more than that is free.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is None or not use_one_arena():
        return False
    if all_sizes_bytes:
        kept_bytes = min(all_sizes_bytes, _MOST_KEPT_FREE_BYTES)
        settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, kept_bytes))
    else:
        settings = (
            (_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES),
            (_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES),
        )
    return all(mallopt(name, value) for name, value in settings)


def give_back() -> None:
    """Return free memory to the kernel, also memory below blocks in use.

    Call it after freeing much memory that is not needed again soon: buffers of large messages, the
    copies of a graph after loading it.
    """
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)
