"""Measure the client against a server that computes nothing: the ceiling of its rates."""

import time
from collections.abc import Iterable
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from client.client import Client
from measure.core.local_server import listening
from measure.sweep.modes import Mode, Stream, Unary

MODES = ("unary", "stream")

# Batches larger than this are as fast as the largest below it.
_MOST_BATCH_BYTES = 128 * 2**20
_BATCH_NS = 200_000_000


def rows_per_s(
    asked: Iterable[tuple[str, int]], features: int, dtype: str, sent: str, rounds: int
) -> dict[tuple[str, int], float]:
    """Rows answered per second, the best of some rounds, by mode and batch size.

    `dtype` is the dtype of the examples, `sent` that on the wire.
    """
    row_bytes = features * np.dtype(dtype).itemsize
    most_rows = max(1, _MOST_BATCH_BYTES // row_bytes)
    sizes = {(mode, size): min(size, most_rows) for mode, size in asked if mode in MODES}
    if not sizes:
        return {}
    x = np.ones((max(sizes.values()), features), dtype)
    with ExitStack() as stack:
        words = ["-m", "measure.limits.null_server", "127.0.0.1:0", str(features), sent]
        server = stack.enter_context(listening(words, "the server that computes nothing"))
        client = stack.enter_context(Client(server.address))
        client.wait_until_ready()
        modes: dict[str, Mode] = {"unary": Unary(client), "stream": Stream(client)}
        for mode in modes.values():
            stack.callback(mode.close)
        best = {
            (mode, size): max(_rate(modes[mode], x[:size]) for _ in range(rounds))
            for mode, size in dict.fromkeys((mode, size) for (mode, _), size in sizes.items())
        }
    return {place: best[place[0], size] for place, size in sizes.items()}


def _rate(mode: Mode, x: NDArray[np.float32]) -> float:
    mode.predict(x)
    batches = 0
    started_ns = time.perf_counter_ns()
    while (took_ns := time.perf_counter_ns() - started_ns) < _BATCH_NS:
        mode.predict(x)
        batches += 1
    return batches * len(x) * 1e9 / took_ns
