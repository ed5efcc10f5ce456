"""Memory of a client that cannot shrink, so that it can be mapped: a sealed memfd.

A key `memfd:PID:FD:NAME` names a descriptor of a process on this machine. Its memory must have the
seal F_SEAL_SHRINK, which nobody can take off again: no page of a mapping is ever without memory.
"""

import fcntl
import mmap
import os
import re

from command_line import shortage
from server.errors import InvalidInput, RegionForbidden

_KEY = re.compile(r"memfd:([0-9]{1,10}):([0-9]{1,10}):([A-Za-z0-9_.-]{1,200})")
_SCHEME = "memfd:"


def is_sealed(key: str) -> bool:
    """Whether a key names a memfd, if it is well-formed."""
    return key.startswith(_SCHEME)


def object_name(key: str) -> str:
    """The name that the client gave its memfd; InvalidInput if the key is malformed."""
    return _parsed(key)[1]


def open_sealed(key: str) -> int:
    """A descriptor of the memfd; InvalidInput or RegionForbidden if there is none with the seal.

    The name must be that in the key: a number alone could mean another object by now.
    """
    link, name = _parsed(key)
    try:
        # First of all: to open a device could do something.
        _check_name(link, name)
        fd = os.open(link, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise RegionForbidden("the sealed memory with that key is not accessible") from None
    except OSError:
        raise InvalidInput("there is no sealed memory with that key") from None
    try:
        # Of our own descriptor: that of the client may change meanwhile.
        _check_name(f"/proc/self/fd/{fd}", name)
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise InvalidInput("the memory with that key may shrink, expected F_SEAL_SHRINK")
    except Exception:
        os.close(fd)
        raise
    return fd


def _check_name(link: str, name: str) -> None:
    if os.readlink(link) != f"/memfd:{name} (deleted)":
        raise InvalidInput("there is no sealed memory with that key")


def mapped(fd: int, size: int) -> memoryview:
    """The first `size` bytes, read-only; they are mapped as long as a view of them is in use.

    InvalidInput if the kernel maps no such memory.
    """
    try:
        return memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ))
    except OSError as error:
        if shortage.described(error) is not None:
            raise
        raise InvalidInput(
            f"the sealed memory with that key cannot be mapped: {error.strerror}"
        ) from None


def _parsed(key: str) -> tuple[str, str]:
    """Path of the descriptor, and the object's name."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise InvalidInput("the key of sealed memory must be memfd:PID:FD:NAME")
    return f"/proc/{found[1]}/fd/{found[2]}", found[3]
