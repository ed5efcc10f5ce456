"""Lists of servers that are kept elsewhere: in a file, or by an application on a Ray cluster."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from transport.addresses import parse
from transport.calling.resolving import Server, fixed

FILE, RAY = "file:", "ray://"
# Of a list, which has a line for each server.
_MOST_BYTES = 2**20
_HTTP_S = 5.0
_OK = 200
_LONGEST_QUOTED = 60


def is_list(address: str) -> bool:
    """Whether an address names a list of servers, and no server."""
    return address.startswith((FILE, RAY))


def file_path(address: str) -> str:
    """The path of file:PATH or file:///PATH."""
    rest = address.removeprefix(FILE)
    return rest.removeprefix("//") if rest.startswith("///") else rest


def page(address: str) -> tuple[str, int, str]:
    """Host, port and path of ray://HOST:PORT[/APPLICATION]; ValueError if they are not there."""
    ends, _, application = address.removeprefix(RAY).partition("/")
    return *parse(ends), f"/{application}"


def finder(address: str) -> Callable[[], tuple[Server, ...]] | None:
    """The function that reads the list of servers; None if the address is no list.

    OSError, which says why, if it cannot be read, has a bad line, or no server.
    """
    if address.startswith(FILE):
        return partial(_of_file, Path(file_path(address)))
    if address.startswith(RAY):
        return partial(_of_application, *page(address))
    return None


def servers(text: str) -> tuple[Server, ...]:
    """Servers of a list, one a line: IP:PORT, [IP]:PORT or unix:/path; # begins a comment."""
    found: dict[Server, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        address = line.strip()
        if not address or address.startswith("#"):
            continue
        try:
            server = fixed(address)
        except ValueError:
            server = None
        if server is None:
            quoted = repr(address[:_LONGEST_QUOTED])
            raise OSError(
                f"line {number} of the list: got {quoted}, expected IP:PORT or unix:/path"
            )
        found[server] = None
    if not found:
        raise OSError("the list has no servers")
    return tuple(found)


def _of_file(path: Path) -> tuple[Server, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise OSError(f"cannot read the list of servers: {error.strerror}") from None
    return servers(_text(data))


def _of_application(host: str, port: int, path: str) -> tuple[Server, ...]:
    # Only clients that need it wait for this import.
    http = importlib.import_module("http.client")
    connection = http.HTTPConnection(host, port, timeout=_HTTP_S)
    try:
        connection.request("GET", path)
        # It may hold the socket, which closing the connection then leaves open.
        with connection.getresponse() as answer:
            if answer.status != _OK:
                raise OSError(f"GET {path}: got HTTP {answer.status}, expected {_OK} and a list")
            return servers(_text(answer.read(_MOST_BYTES + 1)))
    except http.HTTPException:
        raise OSError(f"GET {path}: the answer is not HTTP") from None
    finally:
        connection.close()


def _text(data: bytes) -> str:
    if len(data) > _MOST_BYTES:
        raise OSError(f"the list of servers is over {_MOST_BYTES} bytes")
    # Paths of sockets may be of any bytes.
    return data.decode(errors="surrogateescape")
