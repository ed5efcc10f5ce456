"""Define the table of what each of several servers did, and show it in the terminal."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Table
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import alarm, flagged, mebibytes, milliseconds, share, significant
from measure.servers.part import ReplicaPart

# The name of a point, and the part that a server has in it.
Row = tuple[str, ReplicaPart]

NOTE = (
    "what each server did; latency in ms, -: too few samples or not reported; failed: requests "
    "that ended there with an error; sent again: elsewhere, because it was unavailable or cut the "
    "call; serving: at the end of the point"
)
_SERVING = {True: "yes", False: "NO", None: "-"}


def _of_use(heading: str, page: str, name: str, rank: int) -> Column[Row]:
    return Column(
        heading,
        lambda row: significant(getattr(row[1].server, name, None)),
        page,
        rank=rank,
    )


COLUMNS: tuple[Column[Row], ...] = (
    Column("load", lambda row: row[0], words=True),
    Column("server", lambda row: row[1].address or "none", words=True),
    Column("requests", lambda row: f"{row[1].requests:,}"),
    Column("rows", lambda row: f"{row[1].rows:,}", rank=5),
    Column("share", lambda row: share(row[1].share, 1)),
    Column("p50", lambda row: milliseconds(row[1].p50_ns), "p50, ms"),
    Column("p99", lambda row: milliseconds(row[1].p99_ns), "p99, ms"),
    Column("failed", lambda row: alarm(row[1].failed)),
    Column("sent\nagain", lambda row: f"{row[1].resent:,}", rank=1),
    Column("wrong", lambda row: alarm(row[1].wrong_labels)),
    _of_use("batch\nrows", "batch rows", "batch_rows", 2),
    Column(
        "queue",
        lambda row: milliseconds(row[1].server.queue_ns if row[1].server else None),
        "queue, ms",
        rank=3,
    ),
    _of_use("cores", "cores", "cores", 4),
    Column(
        "memory",
        lambda row: mebibytes(row[1].server.rss_bytes if row[1].server else None),
        "memory, MiB",
        rank=6,
    ),
    Column("serving", lambda row: _said(row[1].serving)),
)


def render(groups: Sequence[Sequence[Row]], elsewhere: str) -> Table:
    """Table of the servers of each point; a group for each point."""
    return in_terminal(COLUMNS, groups, keys=2, caption=NOTE, elsewhere=elsewhere)


def _said(serving: bool | None) -> Text:
    return flagged(_SERVING[serving], bad=serving is False)
