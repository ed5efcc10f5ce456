"""Count times in an HDR histogram, and read the percentiles that its samples support."""

import math
from fractions import Fraction
from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram

from measure.core.confidence import fewest_samples

# From a nanosecond to an hour, with three significant digits.
_LOWEST_NS, _HIGHEST_NS, _DIGITS = 1, 3_600 * 10**9, 3


class Histogram:
    """Times in nanoseconds, clamped to the range from zero to an hour."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Decode the output of `encode`; ValueError for anything else."""
        histogram = cls()
        try:
            histogram._counts.decode_and_add(text.encode())
        except Exception as error:  # the library raises what zlib, base64 and ctypes do
            raise ValueError(f"not an HDR histogram: {error}") from None
        return histogram

    def encode(self) -> str:
        """HDR histogram, version 2, compressed, in base64, which every HDR library reads."""
        text: str = self._counts.encode().decode()
        return text

    def record(self, time_ns: int) -> None:
        """Count one time."""
        self._counts.record_value(min(max(time_ns, 0), _HIGHEST_NS))

    def add(self, other: "Histogram") -> None:
        """Add all counts of `other`."""
        self._counts.add(other._counts)

    @property
    def samples(self) -> int:
        """Number of times counted."""
        return int(self._counts.get_total_count())

    @property
    def max_ns(self) -> int | None:
        """The longest time; None if empty."""
        return int(self._counts.get_max_value()) if self.samples else None

    def counts(self) -> tuple[list[int], list[int]]:
        """The counted times in nanoseconds, ascending, with their counts."""
        # The iterator reuses one object.
        found = [
            (int(one.value_iterated_to), int(one.count_at_value_iterated_to))
            for one in self._counts.get_recorded_iterator()
        ]
        return [time_ns for time_ns, _ in found], [count for _, count in found]

    def within(self, time_ns: int) -> int:
        """Number of times that do not exceed `time_ns`, by what `percentile` takes them for.

        So a percentile is within a bound if at least that share of the times is.
        """
        most = self.max_ns
        return sum(
            count
            for time, count in zip(*self.counts(), strict=True)
            if most is not None and min(time, most) <= time_ns
        )

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
