"""Compute how many samples a percentile needs."""

import math

CONFIDENCE = 0.99


def fewest_samples(percentile: float) -> int:
    """Fewest samples whose maximum exceeds the true percentile with 99% confidence.

    The bound of order statistics: 1 - (p/100)^n >= 0.99. It is 44 for p90, 459 for p99 and 4,603
    for p99.9.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percentile / 100))
