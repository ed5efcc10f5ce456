"""Find rows with NaN or infinite values, for servers that reject them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.datatypes import BFLOAT16
from server.errors import InvalidInput

_MOST_NAMED = 10


def check(name: str, data: NDArray[Any], first_row: int = 0) -> None:
    """Raise InvalidInput that names the rows of an input that are not finite.

    `data` [rows, ...] of any dtype, or a scalar; its first row is row `first_row` of the input.
    """
    if data.dtype.kind != "f" and data.dtype != BFLOAT16:
        return
    wide = np.float64 if data.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        # Reads the data once and stores nothing. A sum of finite values may overflow.
        if np.isfinite(np.sum(data, dtype=wide)):
            return
        finite = np.isfinite(np.atleast_1d(data))
    bad = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1)) + first_row
    if not len(bad):
        return
    named = ", ".join(map(str, bad[:_MOST_NAMED]))
    more = f" and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
    raise InvalidInput(
        f"rows {named}{more} of input {name!r} have NaN or infinite values; "
        "this server accepts finite values only"
    )
