"""Count what one part of a soak did and what went wrong, within its bounds of count and time."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

# Kept with what came; beyond that they are only counted, so that a record stays readable.
MOST_KEPT = 200
_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that ought not to have happened: what was done, and everything that came."""

    what: str
    came: str


@dataclass(slots=True)
class Tally:
    """What a part may do and what it did; safe to use from several threads.

    `target`: how often at most; `allowed_s`: how long, from the first that is begun, since making
    models and answers ready is no trial; `seed`: of what is drawn by chance. `facts` are figures
    beside the count.
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
        """Seconds that are left, 0 at least."""
        if self._end_s is None:
            return self.allowed_s
        return max(0.0, self._end_s - time.monotonic())

    @property
    def more(self) -> bool:
        """Whether there is something left to do, and time for it."""
        return self._taken < self.target and self.left_s > 0

    def take(self, count: int = 1) -> int:
        """Begin up to `count` of what is to be done; how many, 0 when it is over."""
        with self._lock:
            if self._end_s is None:
                self._end_s = time.monotonic() + self.allowed_s
            taken = min(count, self.target - self._taken) if self.left_s > 0 else 0
            self._taken += taken
            return taken

    def add(self, count: int = 1) -> None:
        """Tell that so many of what was begun are done as they should be."""
        with self._lock:
            self.done += count

    def give_up(self, count: int) -> None:
        """Tell that so many of what was taken were not begun after all."""
        with self._lock:
            self._taken -= count

    def fail(self, what: str, came: object) -> None:
        """Tell that one failed."""
        with self._lock:
            self.failed += 1
            if len(self.failures) < MOST_KEPT:
                self.failures.append(Failure(what, str(came)[:_LONGEST_TEXT]))

    def note(self, name: str, count: int = 1) -> None:
        """Add to a figure."""
        with self._lock:
            self.facts[name] = self.facts.get(name, 0) + count

    def close(self) -> None:
        """Count what was begun and neither done nor failed: it was lost."""
        lost = self._taken - self.done - self.failed
        for _ in range(max(0, lost)):
            self.fail("begun", "nothing: neither an answer nor an error")
