"""End a measurement: keep its record, tell the verdicts, and give the exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.goals import REACHED, Goal
from client.record import dumps, write_text_atomically


def told(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Goals as a record holds them."""
    return [{"verdict": goal.verdict, **asdict(goal)} for goal in goals]


def conclude(
    record: Mapping[str, Any], goals: Sequence[Goal], failed: Sequence[str], out: Path | None
) -> int:
    """0 when every goal is reached and nothing failed, else 1; the record goes where `out` says."""
    if out is not None:
        write_text_atomically(out, dumps(record))
    for goal in goals:
        print(f"{goal.name}: {goal.verdict}; {goal.text}")
        for part in goal.parts:
            it = part.ratio
            print(f"  {part.what} {it.median:.2f} ({it.low:.2f} to {it.high:.2f})")
    for error in failed[:5]:
        print(f"failed: {error}")
    return 0 if not failed and all(goal.verdict == REACHED for goal in goals) else 1
