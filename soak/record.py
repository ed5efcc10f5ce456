"""Write the results of a soak as JSON, the source of every view."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from measure.core.record import recorded
from soak.promises import PARTS
from soak.tally import Tally

SCHEMA = "argmax-serving/soak/1"
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Done:
    """The results of a part, and its time in seconds."""

    name: str
    tally: Tally
    seconds: float


def rate_bound(trials: int, failures: int) -> float | None:
    """Upper bound of the failure rate with 95% confidence; None if some failed.

    Of n independent trials without a failure it is 1 - 0.05^(1/n), which the rule of three writes
    as 3/n (Hanley, Lippman-Hand: If nothing goes wrong, is everything all right? JAMA 249(13),
    1983). Without trials the bound is 1.
    """
    if failures:
        return None
    return 1.0 if trials == 0 else -math.expm1(math.log(1 - CONFIDENCE) / trials)


def to_json(
    environment: Mapping[str, Any], minutes: float, seed: int, parts: list[Done]
) -> dict[str, Any]:
    """The record; failures with their answers, up to the number that a tally keeps."""
    return recorded(
        SCHEMA,
        environment=environment,
        minutes=minutes,
        seed=seed,
        confidence=CONFIDENCE,
        parts=[
            {
                "name": part.name,
                "counts": PARTS[part.name].counts,
                "wanted": part.tally.target,
                "done": part.tally.done,
                "failed": part.tally.failed,
                "rate_below": rate_bound(part.tally.done, part.tally.failed),
                "seconds": round(part.seconds, 1),
                "facts": part.tally.facts,
                "failures": part.tally.failures,
            }
            for part in parts
        ],
    )
