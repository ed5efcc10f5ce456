"""Which servers an address stands for: names are looked up again and again, in a thread."""

import ipaddress
import random
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from transport.addresses import UNIX, parse
from transport.calling.failures import Failure

_DNS = "dns:"
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# Between two look-ups of a name, also where connections end all the time.
_LEAST_BETWEEN_S = 1.0
_JITTER = 0.1

# From a host name and a port to addresses IP:PORT or [IP]:PORT, each of a server.
LookUp = Callable[[str, int], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Resolving:
    """How names become servers.

    `every_s`: seconds between look-ups of a name, a tenth more or less; it is also looked up when a
    connection ends, at most once a second. `look_up(host, port)` returns the servers' addresses,
    IP:PORT or [IP]:PORT each; it may block, and what it raises counts as a failed look-up. None:
    the system's getaddrinfo.
    """

    every_s: float = 5.0
    look_up: LookUp | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """One server. `ends`: its addresses, tried in order; `host`: its name in certificates."""

    ends: tuple[str, ...]
    host: str = field(default="localhost", compare=False)

    @property
    def name(self) -> str:
        """The server in messages."""
        return " or ".join(self.ends)


def plain(address: str) -> str:
    """HOST:PORT of dns:///HOST:PORT; other addresses as they are."""
    return address.removeprefix(_DNS).lstrip("/") if address.startswith(_DNS) else address


def authority(address: str) -> str:
    """The :authority of calls to an address."""
    return "localhost" if address.startswith(UNIX) else plain(address)


def fixed(address: str) -> Server | None:
    """The server of a Unix socket or an IP address; None for a name. ValueError if it is bad."""
    if address.startswith(UNIX):
        return Server((address,))
    address = plain(address)
    host, _ = parse(address)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return Server((address,), host)


def by_getaddrinfo(host: str, port: int) -> tuple[Server, ...]:
    """The servers of a name: its IPv4 addresses, or its IPv6 addresses if it has no others.

    One address of each kind is one server: `localhost`, or a host with both. OSError or
    UnicodeError if the look-up fails.
    """
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = dict.fromkeys((info[0], str(info[4][0])) for info in infos)
    kinds = [[_end(ip, port) for family, ip in found if family == kind] for kind in _FAMILIES]
    if all(len(ends) == 1 for ends in kinds):
        return (Server(tuple(_end(ip, port) for _, ip in found), host),)
    ends = kinds[0] or kinds[1]
    if not ends:
        raise OSError(f"{host} has neither IPv4 nor IPv6 addresses")
    return tuple(Server((end,), host) for end in ends)


def _end(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


# Looks the servers of an address up; what it raises says why that failed.
Find = Callable[[], tuple[Server, ...]]


def by_name(address: str, resolving: Resolving) -> Find:
    """The function that looks up the name in HOST:PORT; ValueError if the address is bad."""
    host, port = parse(plain(address))
    look_up = resolving.look_up

    def find() -> tuple[Server, ...]:
        if look_up is None:
            return by_getaddrinfo(host, port)
        servers = [fixed(address) for address in dict.fromkeys(look_up(host, port))]
        if not servers or None in servers:
            raise OSError(f"look_up({host!r}, {port}): got no addresses IP:PORT")
        return tuple(Server(each.ends, host) for each in servers if each is not None)

    return find


class Resolver:
    """Looks an address up in a thread, from the first `want` on; a failure keeps what was found."""

    def __init__(
        self, address: str, find: Find, every_s: float, on_change: Callable[[], None]
    ) -> None:
        """`find` may block; `on_change` is called after each look-up, from the thread."""
        self.servers: tuple[Server, ...] = ()
        self.failure: Failure | None = None
        # There are no servers, and it is too early to look again.
        self.failed = False
        self._address = address
        self._find = find
        self._every_s = every_s
        self._on_change = on_change
        self._changed = threading.Condition()
        self._wanted = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="grpc-resolve", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Look the address up as soon as the rate allows; any thread."""
        with self._changed:
            if not self._wanted:
                self._wanted = True
                self._changed.notify_all()

    def close(self) -> None:
        """Look up no more; a look-up that is under way is not waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        timer_s: float | None = None
        while self._awaited(timer_s):
            self._look_up()
            if self._closed:
                return
            self._on_change()
            self._pause(min(_LEAST_BETWEEN_S, self._every_s))
            # The next call waits for a look-up, instead of failing for what was true long ago.
            self.failed = False
            jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
            timer_s = self._every_s * jitter - _LEAST_BETWEEN_S

    def _awaited(self, timer_s: float | None) -> bool:
        """Wait until the address is to be looked up; False: never again."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._wanted,
                None if timer_s is None else max(timer_s, 0.0),
            )
            self._wanted = False
            return not self._closed

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _look_up(self) -> None:
        try:
            servers = self._find()
        except Exception as error:  # a caller's function may raise anything
            self.failure = Failure(self._address, error)
            self.failed = not self.servers
            return
        self.servers, self.failure = servers, None
