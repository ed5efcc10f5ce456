"""End the process at a fixed time, whatever hangs in it.

The kernel keeps the time, and the signal's handler is libc's `_exit`: neither needs Python, a lock,
a thread that still runs, memory or the log. A handler in Python would not do, as the main thread
may never return to Python, nor the default action, which process 1 of a container does not have.
"""

import ctypes
import signal

# `_exit` gets the number of the signal.
EXIT_CODE = int(signal.SIGALRM)


def install() -> None:
    """Let SIGALRM end the process with EXIT_CODE; the main thread calls, before others start."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(EXIT_CODE, ctypes.cast(libc._exit, ctypes.c_void_p))
    # Another program may have started this one with the signal blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


def within(seconds: float) -> None:
    """End the process in so many seconds unless it has ended by then; any thread, at any time."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
