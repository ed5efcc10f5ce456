"""Measure how fast memory is copied to a GPU."""

import ctypes
import time

import numpy as np
from numpy.typing import NDArray

from client.errors import UsageError
from measure.limits.memory import BUFFER_BYTES, GIB
from server.onnx import pinned_memory

_HOST_TO_DEVICE = 1


class DeviceMemory:
    """A buffer on the current GPU to copy arrays to."""

    def __init__(self, size_bytes: int) -> None:
        """UsageError if CUDA cannot allocate it."""
        try:
            self._runtime = pinned_memory.runtime()
        except OSError as error:
            raise UsageError(str(error)) from None
        self._at = ctypes.c_void_p()
        if self._runtime.cudaMalloc(ctypes.byref(self._at), ctypes.c_size_t(size_bytes)):
            raise UsageError(f"CUDA cannot allocate {size_bytes} bytes on a GPU here")

    def fill(self, array: NDArray[np.uint8]) -> None:
        """Copy an array to the buffer, and wait for the copy to finish."""
        if self._runtime.cudaMemcpy(
            self._at,
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            ctypes.c_int(_HOST_TO_DEVICE),
        ):
            raise UsageError("CUDA could not copy to the GPU")

    def free(self) -> None:
        """Free the buffer."""
        self._runtime.cudaFree(self._at)


def to_device_gib_per_s(rounds: int) -> list[float]:
    """Copy 256 MiB of page-locked memory to the GPU; GiB/s per round.

    UsageError if there is no GPU, or no library to access it.
    """
    device = DeviceMemory(BUFFER_BYTES)
    source = np.ones(BUFFER_BYTES, np.uint8)
    try:
        pinned_memory.lock(source)
    except OSError as error:
        device.free()
        raise UsageError(str(error)) from None
    rates = []
    try:
        for _ in range(rounds + 1):
            started_ns = time.perf_counter_ns()
            device.fill(source)
            rates.append(BUFFER_BYTES / GIB * 1e9 / (time.perf_counter_ns() - started_ns))
    finally:
        pinned_memory.unlock(source)
        device.free()
    return rates[1:]
