"""Addresses as they are written: HOST:PORT, [HOST]:PORT or unix:/path."""

UNIX = "unix:"


def parse(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [HOST]:PORT; ValueError where that is not what it is."""
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"address {address!r}: expected HOST:PORT or unix:/path")
    return host.removeprefix("[").removesuffix("]"), int(port)


def unix_path(address: str) -> str:
    """The socket's path of unix:/path, unix:path or unix:///path."""
    return address.removeprefix(UNIX).removeprefix("//")
