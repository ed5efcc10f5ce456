"""Count the trials and failures of one part of a soak, within its limits of count and time."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

# Failures kept with their outcome; further ones are only counted, so that a record stays readable.
MOST_KEPT = 200
_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure: the request and its answers."""

    what: str
    came: str


@dataclass(slots=True)
class Tally:
    """The limits and counts of a part; safe to use from several threads.

    `target`: most trials; `allowed_s`: time limit from the first trial, so that preparing models
    and answers does not count; `seed`: for random choices. `facts` are figures beside the count.
    """

    target: int
    allowed_s: float
    seed: int = 0
    done: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    _taken: int = 0
    _end_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least 0."""
        if self._end_s is None:
            return self.allowed_s
        return max(0.0, self._end_s - time.monotonic())

    @property
    def more(self) -> bool:
        """Whether trials and time are left."""
        return self._taken < self.target and self.left_s > 0

    def take(self, count: int = 1) -> int:
        """Begin up to `count` trials; return their number, 0 at the end."""
        with self._lock:
            if self._end_s is None:
                self._end_s = time.monotonic() + self.allowed_s
            taken = min(count, self.target - self._taken) if self.left_s > 0 else 0
            self._taken += taken
            return taken

    def add(self, count: int = 1) -> None:
        """Count trials that have succeeded."""
        with self._lock:
            self.done += count

    def give_up(self, count: int) -> None:
        """Return trials that were taken but not begun."""
        with self._lock:
            self._taken -= count

    def fail(self, what: str, outcome: object) -> None:
        """Count a failed trial."""
        with self._lock:
            self.failed += 1
            if len(self.failures) < MOST_KEPT:
                self.failures.append(Failure(what, str(outcome)[:_LONGEST_TEXT]))

    def note(self, name: str, count: int = 1) -> None:
        """Add to a figure."""
        with self._lock:
            self.facts[name] = self.facts.get(name, 0) + count

    def close(self) -> None:
        """Count trials that neither succeeded nor failed as lost."""
        lost = self._taken - self.done - self.failed
        for _ in range(max(0, lost)):
            self.fail("begun", "nothing: neither an answer nor an error")
