"""Write the results of a soak as JSON, the source of every view."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from soak.bound import CONFIDENCE, rate_bound
from soak.promises import PARTS
from soak.tally import Tally

SCHEMA = "argmax-serving/soak/1"


@dataclass(frozen=True, slots=True)
class Done:
    """The results of a part, and its time in seconds."""

    name: str
    tally: Tally
    seconds: float


def to_json(
    environment: Mapping[str, Any], minutes: float, seed: int, parts: list[Done]
) -> dict[str, Any]:
    """The record; failures with their answers, up to the number that a tally keeps."""
    return {
        "schema": SCHEMA,
        "environment": dict(environment),
        "minutes": minutes,
        "seed": seed,
        "confidence": CONFIDENCE,
        "parts": [
            {
                "name": part.name,
                "counts": PARTS[part.name].counts,
                "wanted": part.tally.target,
                "done": part.tally.done,
                "failed": part.tally.failed,
                "rate_below": rate_bound(part.tally.done, part.tally.failed),
                "seconds": round(part.seconds, 1),
                "facts": part.tally.facts,
                "failures": [asdict(failure) for failure in part.tally.failures],
            }
            for part in parts
        ],
    }
