"""Turn the addresses of servers into what gRPC connects to."""

import socket
from collections.abc import Sequence

from client.errors import UsageError

_UNIX = "unix:"
_FAMILIES = ((socket.AF_INET, "ipv4:", "{}:{}"), (socket.AF_INET6, "ipv6:", "[{}]:{}"))


def parse(given: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses HOST:PORT or unix:/path, several with commas between; UsageError for none."""
    texts = [given] if isinstance(given, str) else given
    found = tuple(part.strip() for text in texts for part in text.split(","))
    if not found or not all(found):
        raise UsageError(f"address {','.join(texts)!r} came; wanted HOST:PORT or unix:/path")
    return found


def target(addresses: Sequence[str]) -> str:
    """gRPC's name for all of them together.

    A single one is left to gRPC, which looks its name up again when the connection is lost. The
    names of several are looked up here, once. UsageError when that finds nothing, and when Unix
    sockets are among others.
    """
    if len(addresses) == 1:
        return addresses[0]
    unix = [address for address in addresses if address.startswith(_UNIX)]
    if unix:
        if len(unix) < len(addresses):
            raise UsageError(f"addresses {','.join(addresses)} mix Unix sockets with others")
        return _UNIX + ",".join(address.removeprefix(_UNIX) for address in unix)
    found = [_look_up(address) for address in addresses]
    for family, scheme, form in _FAMILIES:
        ends = [[form.format(*end) for kind, end in one if kind == family] for one in found]
        if all(ends):
            return scheme + ",".join(dict.fromkeys(end for one in ends for end in one))
    raise UsageError(f"addresses {','.join(addresses)} are some of IPv4, some of IPv6")


def authority(addresses: Sequence[str]) -> str:
    """The host that calls to all of them name, and that certificates must show: the first."""
    return "localhost" if addresses[0].startswith(_UNIX) else addresses[0]


def _look_up(address: str) -> list[tuple[int, tuple[str, int]]]:
    """Address families, each with a numeric host and the port."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise UsageError(f"address {address!r} came; wanted HOST:PORT or unix:/path")
    try:
        infos = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"address {address!r} cannot be looked up: {error}") from None
    return [(family, (str(end[0]), int(end[1]))) for family, _, _, _, end in infos]
