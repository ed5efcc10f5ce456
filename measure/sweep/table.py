"""Show the points of a sweep in the terminal."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Column, Row, Table
from measure.core.confidence import CONFIDENCE, fewest_samples
from measure.sweep.summary import Point

TOO_FEW = (
    f"-: too few samples to tell ({CONFIDENCE:.0%} confidence: a p90 takes {fewest_samples(90)})"
)


def render(points: Sequence[Point], *, agreement: bool = False) -> Table:
    """Table of points, one row each, in the order given; latencies in milliseconds.

    `agreement`: show the share of labels that equal the reference's, too.
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
    rows = {mode: [_row(point) for point in points if point.mode == mode] for mode in modes}
    shown = len(columns) - (not agreement)
    return Table(
        columns[:shown],
        [[row[:shown] for row in rows[mode]] for mode in modes],
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


def rows(count: float) -> str:
    """Mean number of rows with at most one decimal."""
    return f"{count:,.1f}".removesuffix(".0")


def milliseconds(time_ns: float | None) -> str:
    """Milliseconds with three significant digits; `-` for None."""
    return "-" if time_ns is None else significant(time_ns / 1e6)


def significant(value: float) -> str:
    """Number with three significant digits, thousands separated, never in powers of ten."""
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    # The exponent of what is shown, not of the value: 9.996 is shown as 10.0.
    exponent = int(f"{rounded:e}".partition("e")[2])
    return f"{rounded:,.{max(2 - exponent, 0)}f}"


def share(value: float | None, decimals: int = 4) -> str:
    """Percentage that reads 100% only where nothing is missing; `-` for None."""
    if value is None:
        return "-"
    return "100%" if value == 1 else f"{min(value, 1 - 10 ** -(decimals + 2)):.{decimals}%}"


def alarm(count: int) -> Text:
    """Return a count that is red unless it is 0."""
    return Text(f"{count:,}", style="bold red" if count else "")
