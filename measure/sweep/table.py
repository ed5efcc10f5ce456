"""Define the table of a sweep's points, and show it in the terminal."""

from collections.abc import Callable, Sequence

from command_line.table import Table
from measure.core.confidence import CONFIDENCE, fewest_samples
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import alarm, mebibytes, milliseconds, rows, share, significant
from measure.presentation.looks import colour_of
from measure.servers import table as servers_table
from measure.sweep.summary import Point, Spread

TOO_FEW = (
    f"-: too few samples to tell ({CONFIDENCE:.0%} confidence: a p90 takes {fewest_samples(90)})"
)


def _times(over: str, of: Callable[[Point], Spread]) -> tuple[Column[Point], ...]:
    return (
        Column("min", lambda p: milliseconds(of(p).min), only="page", over=over),
        Column("p50", lambda p: milliseconds(of(p).p50), only="page", over=over),
        Column("p90", lambda p: milliseconds(of(p).known_p90), only="page", over=over),
        Column("max", lambda p: milliseconds(of(p).max), only="page", over=over),
    )


_FIRST = _times("first prediction, ms", lambda p: p.first_prediction_ns)
_LAST = _times("last prediction, ms", lambda p: p.latency_ns)
_AGREE: Column[Point] = Column("agree", lambda p: share(p.agreement, 2), only="terminal")
COLUMNS: tuple[Column[Point], ...] = (
    Column("mode", lambda p: p.mode, words=True, colour=lambda p: colour_of(p.mode)),
    Column("batch", lambda p: f"{p.batch_size:,}"),
    *_FIRST,
    *_LAST,
    Column("latency\np50 ms", _LAST[1].cell, only="terminal"),
    Column("latency\np90 ms", _LAST[2].cell, rank=1, only="terminal"),
    Column("first\np50 ms", _FIRST[1].cell, rank=4, only="terminal"),
    Column("predictions\nper second", lambda p: significant(p.throughput_per_s), "predictions/s"),
    Column("batch\nrows", lambda p: rows(p.stages.batch_rows) if p.stages else "-", rank=3),
    Column("wrong", lambda p: alarm(p.wrong_labels), over="labels"),
    Column("near\nties", lambda p: f"{p.near_ties:,}", rank=2, over="labels"),
    Column("agree", lambda p: share(p.agreement), only="page", over="labels"),
    Column("errors", lambda p: alarm(p.errors)),
    Column("samples", lambda p: f"{p.latency_ns.samples:,}", only="page"),
    Column("server peak MiB", lambda p: mebibytes(p.server_peak_rss_bytes), only="page"),
)


def of_each_server(points: Sequence[Point]) -> list[list[servers_table.Row]]:
    """The parts of the servers in each point that several shared."""
    return [
        [(f"{point.mode}, {point.batch_size:,}", part) for part in point.replicas]
        for point in points
        if point.replicas
    ]


def render(points: Sequence[Point], *, agreement: bool = False) -> Table:
    """Table of points, one row each, in the given order; latencies in milliseconds.

    `agreement`: also show the share of labels that equal the reference's.
    """
    modes = list(dict.fromkeys(point.mode for point in points))
    return in_terminal(
        (*COLUMNS, _AGREE) if agreement else COLUMNS,
        [[point for point in points if point.mode == mode] for mode in modes],
        keys=2,
        caption="first: time to the first prediction; percentiles are nearest rank; " + TOO_FEW,
        elsewhere="sweep.csv",
    )
