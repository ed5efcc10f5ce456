"""Turn what load processes kept of their requests into the lines of an export."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from measure.engine import spool
from measure.engine.schedule import Kind
from measure.load.summary import Asked
from transport.status import Code

Type = Literal["integer", "number", "text"]
WARM_UP, MEASURED, AFTER = "warm-up", "measured", "after"
_TIMES = (
    *("send_ns", "server_receive_ns", "decode_ns", "queue_ns", "assemble_ns", "compute_ns"),
    *("handover_ns", "answer_receive_ns"),
)
# The columns, in their order.
COLUMNS: dict[str, Type] = {
    "point": "integer",
    "mode": "text",
    "loop": "text",
    "load": "number",
    "process": "integer",
    "number": "integer",
    "phase": "text",
    "model": "text",
    "rows": "integer",
    "scheduled_unix_ns": "integer",
    "sent_unix_ns": "integer",
    "answered_unix_ns": "integer",
    "latency_ns": "integer",
    "status": "text",
    "request_bytes": "integer",
    "answer_bytes": "integer",
    "server": "text",
    **dict.fromkeys(_TIMES, "integer"),
    "batch_rows": "number",
}
# Values by column, all of the same length; None: unknown.
Lines = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Span:
    """Which of a load's slices count in which points.

    The first slice is the warm-up. Of the `taken` ones each counts in the next of `points` as long
    as there are several; one point has them all. Those after `taken` count only with `whole`, which
    a schedule is. `first`: the number of the first point.
    """

    points: Sequence[Asked]
    first: int
    taken: int
    whole: bool = False

    def place(self, number: int) -> tuple[int, str]:
        """The index of a slice's point among `points`, and the phase of its requests."""
        last = len(self.points) - 1
        if number == 0:
            return 0, WARM_UP
        if number < self.taken or self.whole:
            return min(number - 1, last), MEASURED
        return last, AFTER


def lines(folder: Path, span: Span, kinds: Sequence[Kind]) -> Iterator[Lines]:
    """The lines of a load whose spools are in `folder`, one for each process, some at a time.

    In the order of the processes, and in that in which they saw the ends of their requests.
    """
    # All processes of a machine read the same clock.
    since_1970_ns = time.time_ns() - time.perf_counter_ns()
    for path in sorted(folder.glob("*[0-9]"), key=lambda path: int(path.name)):
        servers = spool.servers_of(path)
        for records in spool.read(path):
            yield _lines(records, int(path.name), span, kinds, servers, since_1970_ns)


def _lines(
    records: NDArray[Any],
    process: int,
    span: Span,
    kinds: Sequence[Kind],
    servers: Sequence[str],
    since_1970_ns: int,
) -> Lines:
    slices = records["slice"].tolist()
    places = {number: span.place(number) for number in set(slices)}
    asked = [span.points[places[number][0]] for number in slices]
    opened = span.points[0].loop == "open"
    answered_ns = records["answered_ns"]
    latency_ns = answered_ns - records["scheduled_ns" if opened else "sent_ns"]
    unknown = answered_ns == spool.UNKNOWN
    found: Lines = {
        "point": [span.first + places[number][0] for number in slices],
        "mode": [one.mode for one in asked],
        "loop": [one.loop for one in asked],
        "load": [one.level for one in asked],
        "process": [process] * len(slices),
        "number": records["number"].tolist(),
        "phase": [places[number][1] for number in slices],
        "model": _named(records["kind"], lambda index: kinds[index].model),
        "rows": _named(records["kind"], lambda index: kinds[index].rows),
        "scheduled_unix_ns": (records["scheduled_ns"] + since_1970_ns).tolist(),
        "sent_unix_ns": (records["sent_ns"] + since_1970_ns).tolist(),
        "answered_unix_ns": _where_known(answered_ns + since_1970_ns, unknown),
        "latency_ns": _where_known(latency_ns, unknown),
        "status": _named(records["code"], lambda code: Code(code).name),
        "request_bytes": records["request_bytes"].tolist(),
        "answer_bytes": records["answer_bytes"].tolist(),
        "server": _named(records["server"], lambda index: servers[index] or None),
    }
    for name in _TIMES:
        found[name] = _where_known(records[name], records[name] == spool.UNKNOWN)
    found["batch_rows"] = _where_known(records["batch_rows"], records["batch_rows"] == 0)
    return found


def _named(values: NDArray[Any], name: Callable[[int], Any]) -> list[Any]:
    names = {value: name(value) for value in np.unique(values).tolist()}
    return [names[value] for value in values.tolist()]


def _where_known(values: NDArray[Any], unknown: NDArray[Any]) -> list[Any]:
    found: list[Any] = values.tolist()
    for index in np.flatnonzero(unknown).tolist():
        found[index] = None
    return found
