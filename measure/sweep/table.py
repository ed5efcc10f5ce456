"""Show the points of a sweep in the terminal."""

from collections.abc import Sequence

from command_line.table import Column, Row, Table
from measure.core.confidence import CONFIDENCE, fewest_samples
from measure.presentation.format import alarm, milliseconds, rows, share, significant
from measure.sweep.summary import Point

TOO_FEW = (
    f"-: too few samples to tell ({CONFIDENCE:.0%} confidence: a p90 takes {fewest_samples(90)})"
)


def render(points: Sequence[Point], *, agreement: bool = False) -> Table:
    """Table of points, one row each, in the given order; latencies in milliseconds.

    `agreement`: also show the share of labels that equal the reference's.
    """
    columns = [
        Column("mode", words=True),
        Column("batch"),
        Column("latency\np50 ms"),
        Column("latency\np90 ms", rank=1),
        Column("first\np50 ms", rank=4),
        Column("predictions\nper second"),
        Column("batch\nrows", rank=3),
        Column("wrong"),
        Column("near\nties", rank=2),
        Column("errors"),
        Column("agree"),
    ]
    modes = list(dict.fromkeys(point.mode for point in points))
    groups = [[_row(point) for point in points if point.mode == mode] for mode in modes]
    shown = len(columns) - (not agreement)
    return Table(
        columns[:shown],
        [[row[:shown] for row in group] for group in groups],
        keys=2,
        caption="first: time to the first prediction; percentiles are nearest rank; " + TOO_FEW,
        elsewhere="sweep.csv",
    )


def _row(point: Point) -> Row:
    return (
        point.mode,
        f"{point.batch_size:,}",
        milliseconds(point.latency_ns.p50),
        milliseconds(point.latency_ns.known_p90),
        milliseconds(point.first_prediction_ns.p50),
        significant(point.throughput_per_s),
        "-" if point.stages is None else rows(point.stages.batch_rows),
        alarm(point.wrong_labels),
        f"{point.near_ties:,}",
        alarm(point.errors),
        share(point.agreement, 2),
    )
