"""Show the points of a load in the terminal."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Column, Row, Table
from measure.load.split import LoadSplit
from measure.load.summary import LoadPoint
from measure.presentation.format import milliseconds, significant

LOOPS = {
    "closed": "closed loop: each request waits for the previous answer, latency from the send; "
    "a stalled server gets fewer requests, so its stalls are under-represented",
    "open": "open loop: requests are sent on schedule, latency from when they are due, "
    "even if they could not be sent",
}
_ELSEWHERE = "load.json"
_NAMES = (Column("mode", words=True), Column("loop and load", words=True))
_POINTS = (
    *_NAMES,
    Column("requests\nper s"),
    Column("rows\nper s", rank=7),
    Column("under\nway", rank=6),
    Column("p50"),
    Column("p90", rank=2),
    Column("p99"),
    Column("p99.9", rank=3),
    Column("max", rank=4),
    Column("samples", rank=5),
    Column("errors"),
    Column("wrong"),
    Column("valid"),
)
_SPLIT = (
    *_NAMES,
    Column("send\nlag", rank=3),
    Column("send", rank=8),
    Column("network"),
    Column("decode", rank=5),
    Column("queue"),
    Column("assemble", rank=6),
    Column("compute"),
    Column("encode", rank=7),
    Column("receive", rank=4),
    Column("batch\nrows", rank=1),
    Column("source", rank=2),
)
CLIENT_COLUMNS = (
    "send lag\nmean",
    "client's\nshare",
    "latency\nmean",
    "from send\nmean",
    "from send\np50",
    "from send\np99",
)
# Ranks say which columns to drop first in a narrow terminal, as in `Column`.
_CLIENT_RANKS = (2, 0, 3, 4, 5, 1)
CLIENT_NOTE = (
    "the client's own part, in ms; from send: latency as ghz counts it, without the send lag; "
    "client's share: send lag over send lag + time from send to answer"
)


def verdicts(points: Sequence[LoadPoint]) -> list[str]:
    """Failed checks, a line each."""
    return [
        f"not valid: {name(point)}: {check.name}: {check.text}"
        for point in points
        for check in point.checks
        if check.passed is False
    ]


def name(point: LoadPoint) -> str:
    """The load of a point, in a few words."""
    return f"{point.asked.mode}, {_load(point)}"


def _load(point: LoadPoint) -> str:
    unit = "" if point.asked.loop == "closed" else "/s"
    return f"{point.asked.loop} {point.asked.level:g}{unit}"


def render(points: Sequence[LoadPoint], unchecked_because: str | None) -> list[Table | Text]:
    """Failed checks in red, a table of all points, a table of where the time went."""
    parts: list[Table | Text] = [Text(line, style="bold red") for line in verdicts(points)]
    parts.append(_points(points))
    if any(point.from_send_ns is not None for point in points):
        parts.append(_client(points))
    splits = [point.split for point in points if point.split is not None]
    if splits:
        parts.append(_splits(points))
    if any(split.told_by is None for split in splits):
        parts.append(Text("the server reports no timings, so its time is part of network"))
    if any(split.told_by == "statistics" for split in splits):
        parts.append(Text("the server's times come from ModelStatistics: means of all requests"))
    kinds = dict.fromkeys(point.asked.loop for point in points)
    parts += [Text(LOOPS[kind]) for kind in kinds]
    if unchecked_because is not None:
        parts.append(Text(f"labels are unchecked: {unchecked_because}"))
    return parts


def _points(points: Sequence[LoadPoint]) -> Table:
    return Table(
        _POINTS,
        [[_row(point) for point in points]],
        keys=len(_NAMES),
        caption="latency in ms, nearest rank; -: too few samples to tell (99% confidence)",
        elsewhere=_ELSEWHERE,
    )


def _row(point: LoadPoint) -> Row:
    latency = point.latency_ns
    wrong = "-" if point.wrong_labels is None else f"{point.wrong_labels:,}"
    return (
        point.asked.mode,
        _load(point),
        significant(point.requests_per_s),
        significant(point.rows_per_s),
        significant(point.concurrency),
        *map(milliseconds, (latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max)),
        f"{latency.samples:,}",
        _errors(point),
        Text(wrong, style="bold red" if point.wrong_labels else ""),
        Text("yes") if point.valid else Text("NO", style="bold red"),
    )


def _client(points: Sequence[LoadPoint]) -> Table:
    ranked = zip(CLIENT_COLUMNS, _CLIENT_RANKS, strict=True)
    return Table(
        (*_NAMES, *(Column(heading, rank=rank) for heading, rank in ranked)),
        [
            [
                (point.asked.mode, _load(point), *client_cells(point))
                for point in points
                if point.from_send_ns is not None
            ]
        ],
        keys=len(_NAMES),
        caption=CLIENT_NOTE,
        elsewhere=_ELSEWHERE,
    )


def client_cells(point: LoadPoint) -> list[str]:
    """The cells of `CLIENT_COLUMNS` for a point."""
    lag_ns = None if point.split is None else point.split.send_lag_ns
    from_send = point.from_send_ns
    times_ns = (None,) * 3 if from_send is None else (from_send.mean, from_send.p50, from_send.p99)
    return [
        milliseconds(lag_ns),
        "-" if point.client_share is None else f"{point.client_share:.1%}",
        milliseconds(point.latency_ns.mean),
        *map(milliseconds, times_ns),
    ]


def _splits(points: Sequence[LoadPoint]) -> Table:
    return Table(
        _SPLIT,
        [[_parts(point, point.split) for point in points if point.split is not None]],
        keys=len(_NAMES),
        caption="means in ms; send lag: sent later than intended; send: until gRPC had it; "
        "network: the rest of the round trip; receive: decoding, after the latency; "
        "-: not reported",
        elsewhere=_ELSEWHERE,
    )


def _parts(point: LoadPoint, split: LoadSplit) -> Row:
    return (
        point.asked.mode,
        _load(point),
        *map(milliseconds, (split.send_lag_ns, split.send_ns, split.network_ns)),
        *map(milliseconds, (split.decode_ns, split.queue_ns, split.assemble_ns)),
        *map(milliseconds, (split.compute_ns, split.encode_ns, split.receive_ns)),
        "-" if split.batch_rows is None else significant(split.batch_rows),
        split.told_by or "-",
    )


def _errors(point: LoadPoint) -> Text:
    if not point.errors:
        return Text("0")
    kinds = sorted(point.errors.items())
    return Text("\n".join(f"{count:,} {code}" for code, count in kinds), style="bold red")
