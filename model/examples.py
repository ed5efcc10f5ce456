"""Test examples X; each row depends only on the seed and its number."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.errors import ModelError
from model.precision import precision

BLOCK_ROWS = 64
THREADS = 2


def standard_normal(
    rows: int, features: int, seed: int, dtype: DTypeLike, first_row: int = 0
) -> NDArray[np.floating]:
    """Draw rows first_row to first_row + rows of X: dtype [rows, features], standard normal.

    Every block of 64 rows has its own stream, ``SeedSequence(seed, spawn_key=(block,))``, so a
    row is the same whichever slice asks for it. A spawn key also keeps the streams apart from
    that of W, which has none (model.weights.from_seed). float32 numbers are drawn as float32:
    they are not the float64 ones rounded.

    Raises:
        ModelError: rows or features below 1, a negative first_row or seed, another dtype.
    """
    if rows < 1 or features < 1:
        raise ModelError(f"X has {rows} rows of {features} features, expected at least 1 of each")
    if first_row < 0 or seed < 0:
        raise ModelError(f"first row is {first_row}, seed is {seed}, expected 0 or more")
    x = np.empty((rows, features), precision(dtype))
    stop_row = first_row + rows

    def fill(block: int) -> None:
        start = max(block * BLOCK_ROWS, first_row)
        stop = min((block + 1) * BLOCK_ROWS, stop_row)
        _fill(x[start - first_row : stop - first_row], seed, block, start - block * BLOCK_ROWS)

    blocks = range(first_row // BLOCK_ROWS, -(-stop_row // BLOCK_ROWS))
    # numpy releases the interpreter lock while it draws, so threads run in parallel.
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, blocks):
            pass
    return x


def _fill(out: NDArray[np.floating], seed: int, block: int, skipped_rows: int) -> None:
    """Fill `out` with the rows of a block after the skipped ones."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))
    if skipped_rows:
        # A normal number takes a varying count of random bits, so the rows before must be drawn.
        skipped = np.empty((skipped_rows, out.shape[1]), out.dtype)
        rng.standard_normal(dtype=out.dtype.type, out=skipped)
    rng.standard_normal(dtype=out.dtype.type, out=out)
