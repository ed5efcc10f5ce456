"""The servers that a channel's addresses stand for now, and which of them gets a call."""

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

from transport.calling import lists
from transport.calling.client_connection import ClientConnection
from transport.calling.dialing import State, Subchannel
from transport.calling.failures import Failure, NotConnected
from transport.calling.resolving import Resolver, Resolving, Server, by_name, fixed
from transport.status import Code

Policy = Literal["least_requests", "round_robin"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

# Makes a subchannel to a server, which calls back when it changes.
MakeSubchannel = Callable[[Server, Callable[[Subchannel], None]], Subchannel]


class Servers:
    """Connections to all servers, made and made again; names are followed.

    A server that has left its name gets no more calls as soon as one that is listed is ready.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        resolving: Resolving,
        policy: Policy,
        per_server: int,
        make: MakeSubchannel,
        on_ready: Callable[[], None],
        on_failed: Callable[[], None],
        wanted: Callable[[], bool],
    ) -> None:
        """`on_ready`: a server takes calls; `on_failed`: none can be connected; from any thread.

        `wanted`: whether calls wait for a server. ValueError: a bad address.
        """
        self._policy = policy
        self._per_server = per_server
        self._make = make
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._wanted = wanted
        self._lock = threading.Lock()
        self._closed = False
        # Many clients that start together begin at different servers.
        self._turn = itertools.count(random.randrange(2**16))
        # Replaced as a whole, and read without the lock.
        self.subchannels: tuple[Subchannel, ...] = ()
        # Of servers that have left, while no listed one is ready.
        self._leaving: tuple[Subchannel, ...] = ()
        self._parts = [self._part(address, resolving) for address in addresses]
        self._resolvers = [part for part in self._parts if isinstance(part, Resolver)]
        self._list()

    def pick(self) -> ClientConnection | None:
        """The connection for the next call, if any takes calls."""
        usable = _usable(self.subchannels) or _usable(self._leaving)
        if len(usable) < 2:
            return usable[0] if usable else None
        first = next(self._turn) % len(usable)
        if self._policy == "round_robin":
            return usable[first]
        return min(usable[first:] + usable[:first], key=lambda each: each.outstanding)

    @property
    def names(self) -> tuple[str, ...]:
        """The servers that are listed now, each by its addresses; none before the first look-up."""
        return tuple(dict.fromkeys(each.server.name for each in self.subchannels))

    @property
    def tried(self) -> bool:
        """Whether each listed server is connected, or could not be."""
        return all(
            each.failure is not None or (each.connection is not None and each.connection.usable)
            for each in self.subchannels
        )

    def want(self) -> None:
        """Have connections made, and names looked up that have no servers yet; any thread."""
        for resolver in self._resolvers:
            if not resolver.servers:
                resolver.want()
        for subchannel in self.subchannels:
            subchannel.want()

    @property
    def failed(self) -> bool:
        """Whether every server failed, and every name that has none."""
        subchannels = self.subchannels
        listed = {each.server for each in subchannels}
        return all(each.state is State.FAILED for each in subchannels) and all(
            each.failed or (each.servers and listed.issuperset(each.servers))
            for each in self._resolvers
        )

    def not_connected(self) -> NotConnected:
        """The end of a call that no server can get."""
        parts: tuple[Resolver | Subchannel, ...] = (*self._resolvers, *self.subchannels)
        failures: dict[str, Failure] = {}
        for each in parts:
            if each.failure is not None:
                failures.setdefault(each.failure.text, each.failure)
        return NotConnected(
            Code.UNAVAILABLE, "; ".join(failures), failures=tuple(failures.values())
        )

    def close(self) -> None:
        """Connect no more, and end the connections."""
        with self._lock:
            self._closed = True
        for resolver in self._resolvers:
            resolver.close()
        for subchannel in (*self.subchannels, *self._leaving):
            subchannel.close()

    def _part(self, address: str, resolving: Resolving) -> Server | Resolver:
        find = lists.finder(address)
        if find is None:
            server = fixed(address)
            if server is not None:
                return server
            find = by_name(address, resolving)
        return Resolver(address, find, resolving.every_s, self._resolved)

    def _resolved(self) -> None:
        self._list()
        if self.failed:
            self._on_failed()

    def _list(self) -> None:
        """Have a subchannel to each server that is listed now, and to no other."""
        listed: dict[Server, None] = {}
        for part in self._parts:
            listed.update(dict.fromkeys(part.servers if isinstance(part, Resolver) else (part,)))
        with self._lock:
            if self._closed:
                return
            kept = [each for each in self.subchannels if each.server in listed]
            gone = [each for each in self.subchannels if each.server not in listed]
            had = {each.server for each in kept}
            new = [
                self._make(server, self._changed)
                for server in listed
                if server not in had
                for _ in range(self._per_server)
            ]
            self._leaving = (*self._leaving, *gone)
            self.subchannels = subchannels = (*kept, *new)
        if len(listed) > 1:
            for subchannel in subchannels:
                subchannel.watch_health()
        if self._resolvers:
            for subchannel in new:
                subchannel.want()
        self._retire_leaving()

    def _changed(self, subchannel: Subchannel) -> None:
        if subchannel not in self.subchannels:
            return
        if subchannel.state is State.READY:
            self._retire_leaving()
            self._on_ready()
        elif self.failed:
            self._on_failed()
        if subchannel.connection is not None:
            return
        if subchannel.state is not State.CONNECTING:
            # The server may be about to leave its name, or another one has come.
            for resolver in self._resolvers:
                resolver.want()
        # Where calls find other servers, nobody else would ask for it.
        others = len(self.subchannels) > 1 or self._leaving
        if others or (subchannel.state is State.IDLE and self._wanted()):
            subchannel.want()

    def _retire_leaving(self) -> None:
        """Give up servers that have left, once calls have another way."""
        if not self._leaving or not _usable(self.subchannels):
            return
        with self._lock:
            leaving, self._leaving = self._leaving, ()
        for subchannel in leaving:
            subchannel.retire()


def _usable(subchannels: Iterable[Subchannel]) -> list[ClientConnection]:
    return [
        each.connection
        for each in subchannels
        if each.connection is not None and each.connection.usable
    ]
