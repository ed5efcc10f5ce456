"""Tell errors of a process that has run out of memory, threads, descriptors or disk from others."""

import errno
import os

# As `threading` words it, which has no class of errors for it.
_NO_THREAD = "can't start new thread"
# As protobuf does, of messages that it cannot register.
_PROTOBUF = "out of memory"
_SHORT = frozenset(
    {
        *(errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
        *(errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS),
    }
)
# Of the dynamic loader, for a library that has no room.
_UNLOADED = ("cannot allocate memory", "failed to map segment")


def described(error: BaseException) -> str | None:
    """What the process is short of, as one line; None where the error is another one."""
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    if isinstance(error, TypeError) and _PROTOBUF in str(error):
        return "out of memory"
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return (
            "no thread can be started: the limit of processes (ulimit -u, pids.max) or of memory "
            "is reached"
        )
    if isinstance(error, OSError) and error.errno in _SHORT:
        name = "" if error.filename is None else f"{error.filename}: "
        return f"{name}{os.strerror(error.errno)}"
    if isinstance(error, ImportError) and any(text in str(error).lower() for text in _UNLOADED):
        return "out of memory: a library cannot be loaded"
    return None
