"""Standard streams whose reader may stand still or be gone: that holds up no thread.

Before the log is set up, and for the one line on stdout; `log_writer` has the log.
"""

import contextlib
import os
import select
import stat
import threading

_STDOUT, _STDERR = 1, 2
# A pipe that can be written takes so many bytes, in one piece.
_PIPE_BYTES = select.PIPE_BUF


def prepare() -> None:
    """Make stderr fit to be written by any code; call it first of all.

    Libraries write to it in C, where nothing else could keep them from waiting for its reader.
    """
    for number in range(_STDERR + 1):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened gets this number, and what is written to the stream.
            # It is the lowest free number.
            os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(_STDERR).st_mode):
            # A pipe's other users share its flags with this process, but not with a file that is
            # opened anew. That fails where the pipe is another user's, or nobody reads it.
            path = f"/proc/self/fd/{_STDERR}"
            opened = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.dup2(opened, _STDERR)
            os.close(opened)


def complain(line: str) -> None:
    """Write a line to stderr, or drop it where stderr does not take it at once."""
    _write_now(_STDERR, _encoded(line)[:_PIPE_BYTES])


def announce(line: str) -> None:
    """Write a line to stdout, at once or later."""
    data = _encoded(line)
    if len(data) <= _PIPE_BYTES and _write_now(_STDOUT, data):
        return
    # Without a thread the line is lost; the log has the address too.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=_write, args=(_STDOUT, data), name="stdout", daemon=True).start()


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode(errors="surrogateescape")


def _write_now(number: int, data: bytes) -> bool:
    """Write it if the file takes it at once. False: it does not; it is no matter if it fails."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    if not poll.poll(0):
        return False
    try:
        os.write(number, data)
    except BlockingIOError:
        return False
    except OSError:
        return True  # nobody reads it, or the disk is full
    return True


def _write(number: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(number, data) :]
