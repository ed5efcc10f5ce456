"""Write what a soak did as JSON, the source of every view."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from measure.core.record import recorded
from soak.bound import CONFIDENCE, rate_bound
from soak.promises import PARTS
from soak.tally import Tally

SCHEMA = "argmax-serving/soak/1"


@dataclass(frozen=True, slots=True)
class Done:
    """What a part did, and the seconds it took."""

    name: str
    tally: Tally
    seconds: float


def to_json(
    environment: Mapping[str, Any], minutes: float, seed: int, parts: list[Done]
) -> dict[str, Any]:
    """The record; every failure with what came, up to the number that a tally keeps."""
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
