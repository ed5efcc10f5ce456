"""Divide what a load has shown among the servers that shared it."""

from collections.abc import Mapping, Sequence

from measure.engine.slice import OfServer, Slice
from measure.servers.beside import Served
from measure.servers.part import ReplicaPart, shared


def shares(
    slices: Sequence[Slice], observed: Mapping[str, Served], *, labels_known: bool
) -> tuple[ReplicaPart, ...]:
    """The part of each server in a point; none if there was a single one.

    The last of the slices comes after the windows: only its failures count, and requests that were
    sent again. `observed` are the servers that were known at the start, by name: the others come
    after them.
    """
    *windows, last = slices
    whole: dict[str, OfServer] = {name: OfServer() for name in observed}
    for window in windows:
        for name, part in window.servers.items():
            whole.setdefault(name, OfServer()).add(part)
    for name, part in last.servers.items():
        rest = OfServer(wrong_labels=part.wrong_labels, errors=part.errors, resent=part.resent)
        whole.setdefault(name, OfServer()).add(rest)
    if len(whole) - ("" in whole) < 2:
        return ()
    return shared(
        [
            _part(name, part, observed.get(name), labels_known=labels_known)
            for name, part in whole.items()
            # What reached no server is worth a line only if there is something to say.
            if name or part.errors or part.resent
        ]
    )


def _part(name: str, part: OfServer, observed: Served | None, *, labels_known: bool) -> ReplicaPart:
    return ReplicaPart(
        address=name,
        requests=part.latency.samples,
        rows=part.rows,
        share=None,
        p50_ns=part.latency.percentile(50),
        p99_ns=part.latency.percentile(99),
        errors=dict(part.errors),
        resent=part.resent,
        wrong_labels=part.wrong_labels if labels_known else None,
        serving=None if observed is None else observed.serving,
        server=None if observed is None else observed.use,
    )
