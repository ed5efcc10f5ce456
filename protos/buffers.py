"""Keep the wire's MiB buffers in the process between messages.

By default glibc hands buffers of this size back to the kernel when they are freed, which then
clears fresh pages for the next message: on a stream of 1 MiB examples that costs more than the
copies do. Both thresholds must be pinned; pinning one disables the dynamic rule of the other.
"""

import ctypes

# <malloc.h>; glibc caps the mmap threshold at half of an arena's heap, 32 MiB.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT_BYTES = 32 * 2**20
_KEPT_FREE_BYTES = 64 * 2**20


def keep_in_process() -> bool:
    """Pin glibc's thresholds; call once at the start. False where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
    )
