"""Requests that are due at given times, for one process or for several."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What a request asks for: rows of a model."""

    model: str
    rows: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Requests in the order in which they are due.

    The n-th is due `at_ns[n]` nanoseconds after the start, and is of the kind `kinds[kind_of[n]]`.
    """

    at_ns: list[int]
    kind_of: list[int]
    kinds: list[Kind]

    @property
    def seconds(self) -> float:
        """Time from the start until the last request is due."""
        return self.at_ns[-1] / 1e9

    @property
    def rows(self) -> int:
        """Rows of all requests."""
        return sum(self.kinds[kind].rows for kind in self.kind_of)

    def among(self, parts: int) -> list["Schedule"]:
        """Divide it among so many processes, which get requests in turn."""
        return [
            Schedule(self.at_ns[part::parts], self.kind_of[part::parts], self.kinds)
            for part in range(parts)
        ]
