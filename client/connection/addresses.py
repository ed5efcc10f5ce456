"""Check addresses of servers."""

import os
import re
from collections.abc import Sequence
from ipaddress import IPv6Address
from pathlib import Path

from client.errors import UsageError
from transport.calling.lists import FILE, RAY, file_path, is_list

_UNIX = "unix:"
_DNS = "dns:///"
_MOST_PORT = 65_535
# The kernel's limit for a socket's path, without the zero at its end.
_LONGEST_PATH_BYTES = 107
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# The port follows the last colon outside brackets.
_ENDS = re.compile(r"(?P<host>\[[^\]]*\]|.*):(?P<port>[^\]:]*)", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")
_NO_HOST = re.compile(r"[\s/@?#\[\]]")
_APPLICATION = re.compile(r"[A-Za-z0-9._~/-]*")
_LONGEST_QUOTED = 60
_EXPECTED = "expected HOST:PORT or unix:/path"


def parse(text: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses of servers, several separated by commas; UsageError for none.

    Each is HOST:PORT or unix:/path, or names a list of servers: file:PATH a file with an address a
    line, ray://HOST:PORT[/APPLICATION] the page of an application on Ray. An IPv6 host stands in
    brackets; `dns:///HOST:PORT` is HOST:PORT. UsageError names the fault of an invalid address. No
    connection is made, and no list is read.
    """
    texts = [text] if isinstance(text, str) else text
    addresses = tuple(part.strip() for each in texts for part in each.split(","))
    if not addresses or not all(addresses):
        raise UsageError(f"got address {','.join(texts)!r}; {_EXPECTED}")
    for address in addresses:
        _check(address)
    return addresses


def several(addresses: Sequence[str]) -> bool:
    """Whether the addresses are known to stand for more than one server, or may so at any time."""
    return len(addresses) > 1 or is_list(addresses[0])


def absolute(address: str) -> str:
    """The address for processes with another working directory: a file with its whole path."""
    return f"{FILE}{Path(file_path(address)).absolute()}" if address.startswith(FILE) else address


def authority(addresses: Sequence[str]) -> str:
    """The host and port that calls to all servers name: the first."""
    first = addresses[0]
    return "localhost" if first.startswith(_UNIX) or is_list(first) else first.removeprefix(_DNS)


def host(addresses: Sequence[str]) -> str | None:
    """The name that the certificates of all servers must have: the first host.

    None where that is a list of servers: the certificate of each has its own address.
    """
    first = addresses[0]
    if is_list(first):
        return None
    return "localhost" if first.startswith(_UNIX) else _host_and_port(first)[0]


def _check(address: str) -> None:
    if address.startswith(_UNIX):
        _check_path(address)
    elif address.startswith(FILE):
        _check_file(address)
    elif address.startswith(RAY):
        _check_application(address)
    else:
        scheme = _SCHEME.match(address)
        if scheme and not address.startswith(_DNS):
            raise UsageError(
                f"address {_quoted(address)} is a URL; {_EXPECTED}, without {scheme[1]}://"
            )
        _host_and_port(address)


def _check_file(address: str) -> None:
    path = file_path(address)
    if not path or path.startswith("//"):
        raise UsageError(f"address {_quoted(address)} has no path of a file; expected file:PATH")
    if "\0" in path:
        raise UsageError(f"address {_quoted(address)} has a zero in its path")
    if os.path.isdir(path):
        raise UsageError(f"address {_quoted(address)} names a folder; expected a file of addresses")


def _check_application(address: str) -> None:
    ends, _, application = address.removeprefix(RAY).partition("/")
    try:
        _host_and_port(ends)
    except UsageError:
        fault = "HOST:PORT"
    else:
        if _APPLICATION.fullmatch(application):
            return
        fault = "APPLICATION"
    raise UsageError(
        f"address {_quoted(address)} has no valid {fault}; expected ray://HOST:PORT[/APPLICATION]"
    )


def _host_and_port(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port."""
    ends = _ENDS.fullmatch(address.removeprefix(_DNS))
    if ends is None or not ends["port"]:
        raise UsageError(f"address {_quoted(address)} has no port; {_EXPECTED}")
    host, port = ends["host"], ends["port"]
    if not host:
        raise UsageError(f"address {_quoted(address)} has no host; {_EXPECTED}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise UsageError(f"address {_quoted(address)} has no IPv6 host in its brackets")
    elif ":" in host:
        raise UsageError(
            f"address {_quoted(address)} has several colons; expected HOST:PORT, an IPv6 host in "
            "brackets: [HOST]:PORT"
        )
    elif _NO_HOST.search(host):
        raise UsageError(f"address {_quoted(address)} has no valid host; {_EXPECTED}")
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= _MOST_PORT:
        raise UsageError(
            f"address {_quoted(address)} has port {port[:20]}; expected 1 to {_MOST_PORT}"
        )
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _quoted(address: str) -> str:
    return repr(address) if len(address) <= _LONGEST_QUOTED else f"{address[:_LONGEST_QUOTED]!r}..."


def _path(address: str) -> str:
    """A socket's path: unix:/path and unix:path as they are, unix:///path without its slashes."""
    rest = address.removeprefix(_UNIX)
    return rest.removeprefix("//") if rest.startswith("//") else rest


def _check_path(address: str) -> None:
    path = _path(address)
    if not path or (address.startswith(f"{_UNIX}//") and not path.startswith("/")):
        raise UsageError(f"address {_quoted(address)} has no path of a socket; expected unix:/path")
    if "\0" in path:
        raise UsageError(f"address {address!r} has a zero in its path")
    size = len(path.encode(errors="surrogateescape"))
    if size > _LONGEST_PATH_BYTES:
        raise UsageError(
            f"address {_quoted(address)} has a path of {size} bytes; "
            f"sockets take at most {_LONGEST_PATH_BYTES}"
        )
    if Path(path).is_dir():
        raise UsageError(f"address {address!r} names a folder; expected a socket")
