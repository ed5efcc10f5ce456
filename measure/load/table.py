"""Define the tables of a load's points, and show them in the terminal."""

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from command_line.table import Table
from measure.core.stages import RECEIVE_UNKNOWN
from measure.load.split import LoadSplit
from measure.load.summary import LoadPoint
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import BAD, alarm, flagged, milliseconds, significant
from measure.presentation.looks import colour_of

LOOPS = {
    "closed": "closed loop: each request waits for the previous answer, latency from the send; "
    "a stalled server gets fewer requests, so its stalls are under-represented",
    "open": "open loop: requests are sent on schedule, latency from when they are due, "
    "even if they could not be sent",
}
_ELSEWHERE = "load.json"
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


def _errors(point: LoadPoint) -> Text:
    kinds = "\n".join(f"{count:,} {code}" for code, count in sorted(point.errors.items()))
    return flagged(kinds or "0", bad=bool(kinds))


def _from_send(measure: str, rank: int) -> Column[LoadPoint]:
    return Column(
        f"from send\n{measure}",
        lambda p: milliseconds(p.from_send_ns and getattr(p.from_send_ns, measure)),
        f"from send, {measure}",
        rank=rank,
    )


_NAMES: tuple[Column[LoadPoint], ...] = (
    Column("mode", lambda p: p.asked.mode, words=True, only="terminal"),
    Column("loop and load", _load, words=True, only="terminal"),
)
NAME: Column[LoadPoint] = Column("load", name, only="page")
POINT_COLUMNS: tuple[Column[LoadPoint], ...] = (
    *_NAMES,
    replace(NAME, colour=lambda p: colour_of(p.asked.mode)),
    Column("requests\nper s", lambda p: significant(p.requests_per_s), "requests/s"),
    Column("rows\nper s", lambda p: significant(p.rows_per_s), "rows/s", rank=7),
    Column("under\nway", lambda p: significant(p.concurrency), rank=6),
    Column("p50", lambda p: milliseconds(p.latency_ns.p50), "p50, ms"),
    Column("p90", lambda p: milliseconds(p.latency_ns.p90), "p90, ms", rank=2),
    Column("p95", lambda p: milliseconds(p.latency_ns.p95), "p95, ms", only="page"),
    Column("p99", lambda p: milliseconds(p.latency_ns.p99), "p99, ms"),
    Column("p99.9", lambda p: milliseconds(p.latency_ns.p99_9), "p99.9, ms", rank=3),
    Column("max", lambda p: milliseconds(p.latency_ns.max), "max, ms", rank=4),
    Column("send lag p99, ms", lambda p: milliseconds(p.send_lag_ns.p99), only="page"),
    Column("samples", lambda p: f"{p.latency_ns.samples:,}", rank=5),
    Column("errors", _errors),
    Column("wrong", lambda p: alarm(p.wrong_labels)),
    Column("valid", lambda p: flagged("yes" if p.valid else "NO", bad=not p.valid)),
)
CLIENT_COLUMNS: tuple[Column[LoadPoint], ...] = (
    *_NAMES,
    NAME,
    Column(
        "send lag\nmean",
        lambda p: milliseconds(p.split.send_lag_ns if p.split else None),
        "send lag, mean",
        rank=2,
    ),
    Column(
        "client's\nshare",
        lambda p: "-" if p.client_share is None else f"{p.client_share:.1%}",
        "client's, share",
    ),
    Column("latency\nmean", lambda p: milliseconds(p.latency_ns.mean), "latency, mean", rank=3),
    _from_send("mean", rank=4),
    _from_send("p50", rank=5),
    _from_send("p99", rank=1),
)
_SPLIT_COLUMNS: tuple[Column[tuple[LoadPoint, LoadSplit]], ...] = (
    Column("mode", lambda row: row[0].asked.mode, words=True),
    Column("loop and load", lambda row: _load(row[0]), words=True),
    Column("send\nlag", lambda row: milliseconds(row[1].send_lag_ns), rank=3),
    Column("send", lambda row: milliseconds(row[1].send_ns), rank=8),
    Column("server\nreceive", lambda row: milliseconds(row[1].server_receive_ns), rank=9),
    Column("network", lambda row: milliseconds(row[1].network_ns)),
    Column("decode", lambda row: milliseconds(row[1].decode_ns), rank=5),
    Column("queue", lambda row: milliseconds(row[1].queue_ns)),
    Column("assemble", lambda row: milliseconds(row[1].assemble_ns), rank=6),
    Column("compute", lambda row: milliseconds(row[1].compute_ns)),
    Column("handover", lambda row: milliseconds(row[1].handover_ns), rank=10),
    Column("encode", lambda row: milliseconds(row[1].encode_ns), rank=7),
    Column("server\nsend", lambda row: milliseconds(row[1].server_send_ns), rank=11),
    Column("answer\nreceive", lambda row: milliseconds(row[1].answer_receive_ns), rank=12),
    Column("client\ndecode", lambda row: milliseconds(row[1].receive_ns), rank=4),
    Column("batch\nrows", lambda row: significant(row[1].batch_rows), rank=1),
    Column("source", lambda row: row[1].told_by or "-", rank=2),
)


def render(points: Sequence[LoadPoint], unchecked_because: str | None) -> list[Table | Text]:
    """Failed checks in red, a table of all points, a table of where the time went."""
    parts: list[Table | Text] = [Text(line, style=BAD) for line in verdicts(points)]
    shown = in_terminal(
        POINT_COLUMNS,
        [points],
        keys=len(_NAMES),
        caption="latency in ms, nearest rank; -: too few samples to tell (99% confidence)",
        elsewhere=_ELSEWHERE,
    )
    parts.append(shown)
    if sent := [point for point in points if point.from_send_ns is not None]:
        parts.append(
            in_terminal(
                CLIENT_COLUMNS,
                [sent],
                keys=len(_NAMES),
                caption=CLIENT_NOTE,
                elsewhere=_ELSEWHERE,
            )
        )
    if splits := [(point, point.split) for point in points if point.split is not None]:
        parts.append(_splits(splits))
    sources = {split.told_by for _, split in splits}
    if None in sources:
        parts.append(Text("the server reports no timings, so its time is part of network"))
    if "statistics" in sources:
        parts.append(Text("the server's times come from ModelStatistics: means of all requests"))
    if any(split.told_by and split.server_receive_ns is None for _, split in splits):
        parts.append(Text(f"{RECEIVE_UNKNOWN}, so its receiving is part of network"))
    kinds = dict.fromkeys(point.asked.loop for point in points)
    parts += [Text(LOOPS[kind]) for kind in kinds]
    if unchecked_because is not None:
        parts.append(Text(f"labels are unchecked: {unchecked_because}"))
    return parts


def _splits(splits: Sequence[tuple[LoadPoint, LoadSplit]]) -> Table:
    return in_terminal(
        _SPLIT_COLUMNS,
        [splits],
        keys=len(_NAMES),
        caption="means in ms; send lag: sent later than intended; "
        "send: until the kernel had it; server receive, answer receive: first byte to last, while "
        "the other side sends, so of the two the longer one counts; network: the rest of the round "
        "trip, in the kernel too; handover: until an answer's turn; client decode: after the "
        "latency; -: not reported",
        elsewhere=_ELSEWHERE,
    )
