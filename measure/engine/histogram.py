"""Count times in an HDR histogram, and read percentiles that enough samples support."""

import math
from fractions import Fraction
from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram

from measure.core.confidence import fewest_samples

# A nanosecond to an hour, each value to a thousandth of itself.
_LOWEST_NS, _HIGHEST_NS, _DIGITS = 1, 3_600 * 10**9, 3


class Histogram:
    """Times in nanoseconds; one over an hour counts as an hour, one below zero as zero."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote; ValueError when it is something else."""
        histogram = cls()
        try:
            histogram._counts.decode_and_add(text.encode())
        except Exception as error:  # the library raises what zlib, base64 and ctypes do
            raise ValueError(f"this is no HDR histogram: {error}") from None
        return histogram

    def encode(self) -> str:
        """HDR histogram, version 2, compressed, in base64: what any HDR library reads."""
        text: str = self._counts.encode().decode()
        return text

    def record(self, time_ns: int) -> None:
        """Count one time."""
        self._counts.record_value(min(max(time_ns, 0), _HIGHEST_NS))

    def add(self, other: "Histogram") -> None:
        """Count all that `other` has counted."""
        self._counts.add(other._counts)

    @property
    def samples(self) -> int:
        """How many times were counted."""
        return int(self._counts.get_total_count())

    @property
    def max_ns(self) -> int | None:
        """The longest, None of none."""
        return int(self._counts.get_max_value()) if self.samples else None

    def counts(self) -> tuple[list[int], list[int]]:
        """Times in nanoseconds that were counted, rising, and how often each was."""
        # The iterator hands out one object again and again.
        found = [
            (int(one.value_iterated_to), int(one.count_at_value_iterated_to))
            for one in self._counts.get_recorded_iterator()
        ]
        return [time_ns for time_ns, _ in found], [count for _, count in found]

    def percentile(self, p: float) -> int | None:
        """Nearest-rank percentile in nanoseconds; None below `fewest_samples(p)`.

        The smallest time that at least `p` percent do not exceed, rounded up by at most a
        thousandth.
        """
        if self.samples < fewest_samples(p):
            return None
        rank = max(math.ceil(Fraction(str(p)) * self.samples / 100), 1)
        counts = np.ctypeslib.as_array(self._counts.counts)
        index = int(np.searchsorted(np.cumsum(counts), rank))
        value = self._counts.get_highest_equivalent_value(self._counts.get_value_from_index(index))
        return min(int(value), int(self._counts.get_max_value()))
