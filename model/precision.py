"""The floating-point formats that a model may compute in."""

import numpy as np
from numpy.typing import DTypeLike

from model.errors import ModelError

NAMES = ("float32", "float64")


def precision(dtype: DTypeLike) -> "np.dtype[np.floating]":
    """Return the little-endian dtype, the byte order of ONNX, for float32 or float64.

    Raises:
        ModelError: for any other dtype.
    """
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name == "float32":
        return np.dtype("<f4")
    if name == "float64":
        return np.dtype("<f8")
    raise ModelError(f"dtype is {name}, expected {' or '.join(NAMES)}")


def unit_roundoff(dtype: DTypeLike) -> float:
    """Return the largest relative error of one rounding: 2**-24 for float32, 2**-53 for float64."""
    return float(np.finfo(precision(dtype)).eps) / 2


def largest(dtype: DTypeLike) -> float:
    """Return the largest finite number of the format."""
    return float(np.finfo(precision(dtype)).max)
