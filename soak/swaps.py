"""Swap a model under load until the time is over."""

from pathlib import Path

from soak import hot_swap
from soak.tally import Tally

# Of one server; time is looked at in between.
_PER_SERVER = 25


def run(tally: Tally, folder: Path) -> None:
    """Count swaps without a failed request and without an answer of another content."""
    while swaps := tally.take(_PER_SERVER):
        outcome = hot_swap.run(folder / str(tally.done + tally.failed), swaps)
        for way, count in outcome.answered.items():
            tally.note(way, count)
        if outcome.good:
            tally.add(swaps)
            continue
        came = f"mixed {outcome.mixed}, stale {outcome.stale}, errors {outcome.errors}"
        for _ in range(swaps):
            tally.fail(f"one of {swaps} swaps", came)
