"""Read what server and machine did while a load ran."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from client.client import Client
from measure.core import environment
from measure.load.server_use import Reading, ServerUse, Source, server_use
from measure.load.split import ServerStatistics, statistics_of


@dataclass(frozen=True, slots=True)
class Moment:
    """Machine and server at one instant; None where that cannot be read."""

    machine: environment.Moment
    statistics: ServerStatistics | None
    server: Reading | None


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What happened between two moments: the share of stolen processor time, counts of the server.

    None where it is unknown.
    """

    steal: float | None = None
    statistics: ServerStatistics | None = None
    server: ServerUse | None = None


class Beside:
    """Reads moments of one server."""

    def __init__(self, client: Client, source: Source | None, models: Collection[str]) -> None:
        """`models`: those under load, whose metrics of the `source` count."""
        self._client = client
        self._source = source
        self._models = models

    def now(self, *, gone: bool = False) -> Moment:
        """The moment now; a server that is `gone` is not asked."""
        return Moment(
            environment.snapshot(),
            None if gone else statistics_of(self._client),
            None if gone or self._source is None else self._source.read(),
        )

    def between(self, since: Moment, until: Moment) -> Meanwhile:
        """What happened from one moment to another."""
        statistics = None
        if since.statistics is not None and until.statistics is not None:
            statistics = until.statistics - since.statistics
        server = None
        if self._source is not None:
            server = server_use(self._source, since.server, until.server, self._models)
            if server is not None and server.answered is None and statistics is not None:
                server = _with_statistics(server, statistics)
        steal = environment.steal_fraction(since.machine, until.machine)
        return Meanwhile(steal, statistics, server)


def _with_statistics(server: ServerUse, counts: ServerStatistics) -> ServerUse:
    """Take from ModelStatistics what a process without metrics does not say."""
    return replace(
        server,
        answered=counts.requests,
        batch_rows=counts.rows / counts.executions if counts.executions else None,
        queue_ns=counts.queue_ns / counts.requests if counts.requests else None,
    )
