"""Read what servers and machine did while a load ran."""

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from client.client import Client
from client.errors import RequestFailed
from measure.core import environment
from measure.servers.server_use import (
    Reading,
    ServerUse,
    Source,
    of_statistics,
    server_use,
    summed,
    with_statistics,
)
from measure.servers.statistics import ServerStatistics, statistics_of

_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Observed:
    """A server that is observed: what calls name it, a client of it alone, its own source."""

    name: str
    client: Client
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A server at an instant; None where that cannot be read, or was not asked.

    `serving`: whether it accepts requests.
    """

    statistics: ServerStatistics | None = None
    reading: Reading | None = None
    serving: bool | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """Machine and servers at one instant (time.perf_counter_ns); servers in their order."""

    at_ns: int
    machine: environment.Moment
    servers: tuple[Seen, ...]

    @property
    def is_counted(self) -> bool:
        """Whether a server reported its statistics."""
        return any(each.statistics is not None for each in self.servers)


@dataclass(frozen=True, slots=True)
class Served:
    """What one of several servers did between two moments, and whether it serves at the end."""

    use: ServerUse | None
    serving: bool | None


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What happened between two moments: the share of stolen processor time, counts of the servers.

    Counts are sums over the servers that could be read at both. `each` has what each of several
    servers did, by its name. None where it is unknown.
    """

    steal: float | None = None
    statistics: ServerStatistics | None = None
    server: ServerUse | None = None
    each: Mapping[str, Served] = field(default_factory=dict)


class Beside:
    """Reads moments of the servers under load."""

    def __init__(self, servers: Sequence[Observed], models: Collection[str]) -> None:
        """`models`: those under load, whose metrics count."""
        self._servers = servers
        self._several = len(servers) > 1
        self._models = models

    @property
    def servers(self) -> int:
        """How many there are."""
        return len(self._servers)

    def now(self, *, gone: bool = False) -> Moment:
        """The moment now; a single server that is `gone` is not asked."""
        at_ns, machine = time.perf_counter_ns(), environment.snapshot()
        if self._several:
            # One that hangs must not delay the readings of the others.
            with ThreadPoolExecutor(min(len(self._servers), _MOST_AT_ONCE)) as pool:
                seen = list(pool.map(self._see, self._servers))
        else:
            seen = [Seen() if gone else self._see(each) for each in self._servers]
        return Moment(at_ns, machine, tuple(seen))

    def between(self, since: Moment, until: Moment) -> Meanwhile:
        """What happened from one moment to another."""
        pairs = list(zip(since.servers, until.servers, strict=True))
        seconds = (until.at_ns - since.at_ns) / 1e9
        counts = [_counted(*pair) for pair in pairs]
        each = {}
        if self._several:
            for observed, pair, counted in zip(self._servers, pairs, counts, strict=True):
                use = self._use([observed], [pair], [counted], seconds)
                each[observed.name] = Served(use, pair[1].serving)
        return Meanwhile(
            environment.steal_fraction(since.machine, until.machine),
            _sum(counts),
            self._use(self._servers, pairs, counts, seconds),
            each,
        )

    def _see(self, observed: Observed) -> Seen:
        return Seen(
            statistics_of(observed.client),
            None if observed.source is None else observed.source.read(),
            _serves(observed.client) if self._several else None,
        )

    def _use(
        self,
        servers: Sequence[Observed],
        pairs: Sequence[tuple[Seen, Seen]],
        counts: Sequence[ServerStatistics | None],
        seconds: float,
    ) -> ServerUse | None:
        """What some of the servers did together."""
        statistics = _sum(counts)
        sources = [each.source.name for each in servers if each.source is not None]
        if not sources:
            observed = self._several and statistics is not None
            return of_statistics(statistics, seconds) if observed and statistics else None
        read = [
            (first.reading, last.reading)
            for first, last in pairs
            if first.reading is not None and last.reading is not None
        ]
        if not read:
            return None
        firsts, lasts = zip(*read, strict=True)
        use = server_use(sources[0], summed(firsts), summed(lasts), self._models)
        if use is not None and use.answered is None and statistics is not None:
            return with_statistics(use, statistics)
        return use


def _counted(first: Seen, last: Seen) -> ServerStatistics | None:
    """What a server counted; None if it is unknown, or the server has started again."""
    if first.statistics is None or last.statistics is None:
        return None
    counted = last.statistics - first.statistics
    return None if counted.requests < 0 else counted


def _sum(counts: Sequence[ServerStatistics | None]) -> ServerStatistics | None:
    known = [each for each in counts if each is not None]
    if not known:
        return None
    whole, *others = known
    for other in others:
        whole = whole + other
    return whole


def _serves(client: Client) -> bool | None:
    try:
        return client.server_ready()
    except RequestFailed as error:
        return None if error.code == "UNIMPLEMENTED" else False
