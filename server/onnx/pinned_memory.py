"""Page-lock memory, so that a GPU copies from it directly, without staging in the driver."""

import ctypes
from typing import Any

from numpy.typing import NDArray

# The CUDA runtime that ONNX Runtime has loaded, version 13 or 12.
_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
# For every device's context and every thread.
_PORTABLE = 1


def lock(array: NDArray[Any]) -> None:
    """Page-lock the memory of an array until `unlock`; OSError gives the reason on failure."""
    cuda = runtime()
    status = cuda.cudaHostRegister(
        ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), ctypes.c_uint(_PORTABLE)
    )
    _check(cuda, status)


def unlock(array: NDArray[Any]) -> None:
    """Unlock the memory; it must not be freed before. OSError gives the reason on failure."""
    cuda = runtime()
    _check(cuda, cuda.cudaHostUnregister(ctypes.c_void_p(array.ctypes.data)))


def runtime() -> ctypes.CDLL:
    """The CUDA runtime; OSError if there is none."""
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"no CUDA runtime: looked for {' and '.join(_LIBRARIES)}")


def _check(cuda: ctypes.CDLL, status: int) -> None:
    if status != 0:
        cuda.cudaGetErrorString.restype = ctypes.c_char_p
        cuda.cudaGetLastError()  # clears it; otherwise the next CUDA call would report this error
        raise OSError(f"CUDA: {cuda.cudaGetErrorString(status).decode()}")
