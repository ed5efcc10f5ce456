"""Check that the server can listen before it loads models, and say why it cannot."""

import errno
import os
import re
import socket
import stat
from dataclasses import dataclass
from ipaddress import ip_address

from server.errors import StartError

UNIX = "unix:"
ADDRESS, METRICS_ADDRESS = "--address", "--metrics-address"
_FORM = "HOST:PORT or unix:/path"
_MOST_PORT = 65535
# The capacity of sockaddr_un on Linux, without the trailing NUL.
_MOST_PATH_BYTES = 107
_URL = re.compile(r"(?!unix:)[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, without brackets, and a port; port 0 is any free one."""

    host: str
    port: int


def check(address: str) -> None:
    """Try to listen at `address`, then close it; StartError gives the reason on failure."""
    if address.startswith(UNIX):
        _check_socket_file(address, address.removeprefix(UNIX))
    else:
        check_port(address, ADDRESS)


def local(address: str) -> bool:
    """Whether an address can be reached from this machine only."""
    host = address.rsplit(":", 1)[0].strip("[]")
    if address.startswith(UNIX) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def tcp_address(address: str, option: str = ADDRESS) -> TcpAddress:
    """Host and port of HOST:PORT, the value of `option`; StartError if it has another form."""
    form = _FORM if option == ADDRESS else "HOST:PORT"
    if _URL.match(address):
        plain = re.sub(r"^.*?://+([^/]*).*$", r"\1", address)
        hint = f": {plain}" if plain else ""
        raise StartError(f"{option} {address!r} is a URL, expected {form}{hint}")
    host, colon, port = address.rpartition(":")
    if not colon:
        raise StartError(f"{option} {address!r} has no port, expected {form}")
    if not host:
        raise StartError(
            f"{option} {address!r} has no host, expected one such as 127.0.0.1, or 0.0.0.0 for "
            "every interface"
        )
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare and bare == host:
        raise StartError(f"{option} {address!r}: an IPv6 address needs brackets: [{host}]:{port}")
    if bare == "*":
        raise StartError(
            f"{option} {address!r}: got host '*', expected 0.0.0.0 or [::] for every interface"
        )
    is_number = port.isascii() and port.isdigit()
    if not is_number or int(port) > _MOST_PORT:
        raise StartError(
            f"{option} {address!r}: got port {port!r}, expected a number from 0 to {_MOST_PORT}"
        )
    return TcpAddress(bare, int(port))


def check_port(address: str, option: str) -> None:
    """The same for HOST:PORT, the value of `option`."""
    tcp = tcp_address(address, option)
    try:
        endpoints = socket.getaddrinfo(
            tcp.host, tcp.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        # The strerror of a gaierror; a UnicodeError is about a label that DNS does not take.
        text = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"{option} {address}: the name {tcp.host!r} cannot be resolved: {text}"
        ) from None
    # A name may have several addresses, as localhost does; addresses that the host lacks are
    # skipped.
    errors = [_bind_error(family, where) for family, _, _, _, where in endpoints]
    in_use = [error for error in errors if error is not None and error.errno == errno.EADDRINUSE]
    if None in errors and not in_use:
        return
    failed = in_use or [error for error in errors if error is not None]
    raise StartError(f"{option} {address}: {_port_text(tcp, failed[0])}")


def _bind_error(family: int, where: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As gRPC does: connections that have ended may linger on the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        return error
    return None


def _port_text(tcp: TcpAddress, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {tcp.port} is in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{tcp.host} is not an address of this host"
    if error.errno == errno.EACCES:
        return (
            f"permission denied: port {tcp.port} is privileged; expected a port from 1024 on, or "
            "the capability CAP_NET_BIND_SERVICE"
        )
    return f"the server cannot listen there: {error.strerror}"


def _check_socket_file(address: str, path: str) -> None:
    if not path:
        raise StartError(f"--address {address} has no path, expected unix:/path")
    if path.startswith("//") and not path.startswith("///"):
        raise StartError(f"--address {address} is a URL, expected unix:/path")
    length = len(os.fsencode(path))
    if length > _MOST_PATH_BYTES:
        raise StartError(
            f"--address {address}: the socket's path has {length} bytes, expected at most "
            f"{_MOST_PATH_BYTES}"
        )
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise StartError(f"--address {address}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(f"--address {address}: permission denied: {folder} cannot be written to")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"--address {address}: {path} exists and is not a socket")
    # gRPC replaces a socket file that is there, also that of a living server.
    with socket.socket(socket.AF_UNIX) as probe:
        # Where the queue of connections is full, it would wait.
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code in (0, errno.EAGAIN):
        raise StartError(f"--address {address} is in use by another server")
    if code in (errno.EACCES, errno.EPERM):
        raise StartError(f"--address {address}: permission denied: the socket is another user's")
