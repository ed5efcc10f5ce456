"""Compute the bound that a count of trials without a failure proves."""

import math

CONFIDENCE = 0.95


def rate_bound(trials: int, failures: int) -> float | None:
    """Upper bound of the failure rate, with 95% confidence; None if a trial failed.

    Of n independent trials without a failure it is 1 - 0.05^(1/n), which the rule of three writes
    as 3/n (Hanley, Lippman-Hand: If nothing goes wrong, is everything all right? JAMA 249(13),
    1983). Nothing is known of the rate without trials: 1.
    """
    if failures:
        return None
    return 1.0 if trials == 0 else -math.expm1(math.log(1 - CONFIDENCE) / trials)
