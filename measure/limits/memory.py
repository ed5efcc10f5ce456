"""Measure how fast memory is copied and read."""

import mmap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

# Far more than a core's own caches hold.
BUFFER_BYTES = 256 * 2**20
GIB = 2**30


def memcpy_gib_per_s(rounds: int) -> tuple[list[float], list[float]]:
    """Copy 256 MiB on one core, into memory in use and into fresh memory; GiB/s per round."""
    source = np.ones(BUFFER_BYTES, np.uint8)
    used = np.ones(BUFFER_BYTES, np.uint8)
    warm, fresh = [], []
    for _ in range(rounds):
        warm.append(_copy_rate(source, used))
        # The kernel clears each page on its first access.
        with mmap.mmap(-1, BUFFER_BYTES) as memory:
            target = np.frombuffer(memory, np.uint8)
            fresh.append(_copy_rate(source, target))
            del target
    return warm, fresh


def read_gib_per_s(rounds: int, threads: int) -> list[float]:
    """Read 256 MiB with so many threads in parallel; GiB/s per round."""
    parts = np.array_split(np.ones(BUFFER_BYTES // 8, np.uint64), threads)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds + 1):
            started_ns = time.perf_counter_ns()
            # SIMD and no interpreter lock, so it is faster than memory.
            list(pool.map(np.bitwise_or.reduce, parts))
            rates.append(BUFFER_BYTES / GIB * 1e9 / (time.perf_counter_ns() - started_ns))
    # The first round started the threads, so it is dropped.
    return rates[1:]


def _copy_rate(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    started_ns = time.perf_counter_ns()
    np.copyto(target, source)
    return source.nbytes / GIB * 1e9 / (time.perf_counter_ns() - started_ns)
