"""Divide the samples of a point among the servers that shared them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from measure.core.confidence import fewest_samples
from measure.core.stages import Sample
from measure.servers.beside import Meanwhile, Served
from measure.servers.part import ReplicaPart, shared
from measure.sweep.summary import Point, percentile


def with_shares(point: Point, samples: Sequence[Sample], meanwhile: Meanwhile) -> Point:
    """The point with the part of each server; `meanwhile` is what they report about its time."""
    lost = Counter(server for sample in samples for server in sample.lost)
    names = dict.fromkeys([*meanwhile.each, *(sample.server for sample in samples), *lost])
    parts = [
        _part(
            name,
            [sample for sample in samples if sample.server == name],
            lost[name],
            meanwhile.each.get(name),
        )
        for name in names
    ]
    return replace(point, replicas=shared(parts), server=meanwhile.server)


def _part(
    name: str, samples: Sequence[Sample], resent: int, observed: Served | None
) -> ReplicaPart:
    times_ns = [sample.latency_ns for sample in samples if sample.error is None]
    errors = Counter(s.error.partition(":")[0] for s in samples if s.error is not None)
    return ReplicaPart(
        address=name,
        requests=len(times_ns),
        rows=sum(sample.rows for sample in samples if sample.error is None),
        share=None,
        p50_ns=percentile(times_ns, 50) if times_ns else None,
        p99_ns=percentile(times_ns, 99) if len(times_ns) >= fewest_samples(99) else None,
        errors=dict(errors),
        resent=resent,
        wrong_labels=sum(sample.wrong_labels for sample in samples),
        serving=None if observed is None else observed.serving,
        server=None if observed is None else observed.use,
    )
