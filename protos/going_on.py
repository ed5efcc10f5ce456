"""What long work on a message calls every few milliseconds."""

from collections.abc import Callable

# May raise what ends the work, and may let other threads run.
GoOn = Callable[[], None]


def go_on() -> None:
    """Work without a pause."""
