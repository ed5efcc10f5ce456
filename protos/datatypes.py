"""Names of the protocol's tensor datatypes and the numpy dtypes that carry them."""

from collections.abc import Mapping
from types import MappingProxyType

import ml_dtypes
import numpy as np

BYTES = "BYTES"
# Fixed-width bytes and text, and numpy's StringDType.
TEXT_KINDS = "SUT"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Everything on the wire is little-endian; BYTES elements become Python bytes objects.
DTYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        "BF16": BFLOAT16,
        BYTES: np.dtype(np.object_),
    }
)

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(dtype: np.dtype[np.generic]) -> str:
    """Protocol name of a numpy dtype, e.g. `FP32` for float32 of either byte order.

    Raises TypeError for a dtype that the protocol cannot carry.
    """
    name = _NAMES.get(dtype)
    if name is not None:
        return name
    if dtype.kind in TEXT_KINDS:
        return BYTES
    name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(f"dtype {dtype} has no datatype in the protocol; it has {sorted(DTYPES)}")
    return name
