"""Keep some memory free where the process's own is limited.

At the limit the smallest allocation fails. Libraries in C and C++, and Python itself in the midst
of handling an error, end the process then. So what takes much memory, or takes some for each
request, asks here first, and fails while there is enough for everything else.

Nothing is asked where the process has no limit of its own: of a container's limit, and of the
machine's memory, the kernel does not say beforehand that it is reached.
"""

import ctypes
import resource

import numpy as np

from transport.status import Code, StatusError

RESERVE_BYTES = 32 * 2**20
_LIMITS = (resource.RLIMIT_DATA, resource.RLIMIT_AS)
_LIMITED = any(resource.getrlimit(each)[0] != resource.RLIM_INFINITY for each in _LIMITS)
_LIBC = ctypes.CDLL(None)
_LIBC.malloc.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = (ctypes.c_size_t,)
_LIBC.free.argtypes = (ctypes.c_void_p,)


def check() -> None:
    """Raise MemoryError where less than RESERVE_BYTES are left of the process's limit."""
    if not _LIMITED:
        return
    # By malloc: what was freed is kept in its heap, and may be used again.
    probe = _LIBC.malloc(RESERVE_BYTES)
    if not probe:
        raise MemoryError(f"less than {RESERVE_BYTES >> 20} MiB are left of the process's limit")
    _LIBC.free(probe)


def memory(length: int, size_bytes: int) -> memoryview:
    """Memory for a message of `length` bytes, `size_bytes` with what is beside it; not cleared.

    StatusError where there is none.
    """
    try:
        array = np.empty(size_bytes, np.uint8)
        check()
    except MemoryError:
        raise StatusError(
            Code.RESOURCE_EXHAUSTED, f"the receiver has no memory for a message of {length} bytes"
        ) from None
    return array.data[:length]
