"""Define the tables of a load's points, and show them in the terminal."""

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from command_line.table import Table
from measure.core.stages import RECEIVE_UNKNOWN
from measure.load.split import LoadSplit
from measure.load.summary import LoadPoint
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import (
    BAD,
    alarm,
    flagged,
    mebibytes,
    milliseconds,
    share,
    significant,
)
from measure.presentation.looks import colour_of
from measure.servers import table as servers_table
from measure.servers.server_use import ServerUse

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
    asked = point.asked
    if asked.schedule is not None:
        return f"schedule {asked.schedule}"
    kind = asked.loop if asked.ramp is None else f"{asked.loop} ramp"
    return f"{kind} {asked.level:g}{'' if asked.loop == 'closed' else '/s'}"


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


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
_POINT_COLUMNS: tuple[Column[LoadPoint], ...] = (
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
_GOODPUT_COLUMNS: tuple[Column[LoadPoint], ...] = (
    Column(
        "goodput\nper s",
        lambda p: significant(p.goodput.requests_per_s if p.goodput else None),
        "goodput/s",
        rank=1,
    ),
    Column(
        "within\nbound",
        lambda p: share(p.goodput.share if p.goodput else None, 1),
        rank=2,
    ),
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
SERVER_NOTE = (
    "the server meanwhile, or all servers together: cores busy on average, resident memory in MiB, "
    "mean rows of an execution, mean ms of an answered request in the queue, calls that no model "
    "got; -: not reported"
)
SERVER_COLUMNS: tuple[Column[tuple[LoadPoint, ServerUse]], ...] = (
    Column("mode", lambda row: row[0].asked.mode, words=True, only="terminal"),
    Column("loop and load", lambda row: _load(row[0]), words=True, only="terminal"),
    Column("load", lambda row: name(row[0]), only="page"),
    Column("cores", lambda row: significant(row[1].cores)),
    Column("memory", lambda row: mebibytes(row[1].rss_bytes), "memory, MiB"),
    Column("answered", lambda row: _count(row[1].answered), rank=4),
    Column("batch\nrows", lambda row: significant(row[1].batch_rows), rank=1),
    Column("queue", lambda row: milliseconds(row[1].queue_ns), "queue, ms", rank=2),
    Column("refused", lambda row: _count(row[1].refused), rank=3),
    Column("failed", lambda row: _count(row[1].failed), rank=5),
    Column("source", lambda row: row[1].source, rank=6),
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


def point_columns(points: Sequence[LoadPoint]) -> tuple[Column[LoadPoint], ...]:
    """Columns of the points, with those of goodput if any has it."""
    if all(point.goodput is None for point in points):
        return _POINT_COLUMNS
    at = next(i for i, column in enumerate(_POINT_COLUMNS) if column.page_heading == "rows/s") + 1
    return (*_POINT_COLUMNS[:at], *_GOODPUT_COLUMNS, *_POINT_COLUMNS[at:])


def observed(points: Sequence[LoadPoint]) -> list[tuple[LoadPoint, ServerUse]]:
    """The points whose server was observed, with what it did."""
    return [(point, point.server) for point in points if point.server is not None]


def of_each_server(points: Sequence[LoadPoint]) -> list[list[servers_table.Row]]:
    """The parts of the servers in each point that several shared."""
    return [[(name(point), part) for part in point.replicas] for point in points if point.replicas]


def bounds(points: Sequence[LoadPoint]) -> str:
    """What goodput is, as text that goes on a caption; empty if no point has it."""
    found = {point.goodput.bound_ms: None for point in points if point.goodput is not None}
    if not found:
        return ""
    text = ", ".join(f"{bound:g} ms" for bound in found)
    return f"; goodput: requests answered within {text}, and their share of all that ended"


def render(points: Sequence[LoadPoint], unchecked_because: str | None) -> list[Table | Text]:
    """Failed checks in red, a table of all points, a table of where the time went."""
    parts: list[Table | Text] = [Text(line, style=BAD) for line in verdicts(points)]
    shown = in_terminal(
        point_columns(points),
        [points],
        keys=len(_NAMES),
        caption="latency in ms, nearest rank; -: too few samples to tell (99% confidence)"
        + bounds(points),
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
    if servers := observed(points):
        parts.append(
            in_terminal(
                SERVER_COLUMNS,
                [servers],
                keys=len(_NAMES),
                caption=SERVER_NOTE,
                elsewhere=_ELSEWHERE,
            )
        )
    if groups := of_each_server(points):
        parts.append(servers_table.render(groups, _ELSEWHERE))
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
