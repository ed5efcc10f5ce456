"""Write lines to stderr, whose reader may be slow or stand still: that holds up no other thread."""

import os
import select
import threading
import time
from collections.abc import Callable

from server.app.bounded_queue import BoundedQueue

# Makes a line, in the thread that writes: for lines that take long to make.
Render = Callable[[], str]
# Makes the line of a warning, with fields beside its text.
Warn = Callable[[str, dict[str, object]], str]

_MOST_LINES = 8192
# A pipe that can be written takes so many bytes, in one piece.
_PIPE_BYTES = select.PIPE_BUF
_LINES_AT_ONCE = 64
_REPORT_S = 60.0


class LogWriter:
    """Lines of all threads to a file descriptor.

    A short line is written at once if the descriptor takes it and nothing waits. Else, or if it is
    rendered first, it waits for a thread of its own. At most 8192 lines wait; further ones are
    dropped and counted, as those are that the descriptor does not take for good. A line says so,
    once a minute at most and at the end.
    """

    def __init__(self, descriptor: int, warn: Warn) -> None:
        self._descriptor = descriptor
        self._warn = warn
        self._queue: BoundedQueue[Render | threading.Event] = BoundedQueue(_MOST_LINES)
        self._writing = threading.Lock()
        self._rest = b""  # of a line of which the descriptor took a part only
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._reported = 0
        self._reported_s = -_REPORT_S
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Lines that were dropped so far."""
        return self._queue.dropped

    def write(self, line: str) -> None:
        """Write a line, at once or later; any thread."""
        data = line.encode("ascii", "backslashreplace")
        if len(data) > _PIPE_BYTES or not self._write_now(data):
            self._queue.put(lambda: line)

    def write_later(self, render: Render) -> None:
        """Write the line that `render` returns; any thread, and nothing is written in it."""
        self._queue.put(render)

    def drop(self) -> None:
        """Count a line that cannot be made."""
        self._queue.drop(1)

    def flush(self, timeout_s: float) -> bool:
        """Write all that waits, within `timeout_s`. False: some still waits."""
        written = threading.Event()
        self._queue.put_always(written)
        return written.wait(timeout_s)

    def _write_now(self, data: bytes) -> bool:
        if not self._writing.acquire(blocking=False):
            return False
        try:
            if self._rest or not self._queue.empty or not self._poll.poll(0):
                return False
            try:
                self._rest = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                return False
            except OSError:
                self._lost(data)
            if self._rest:
                self._queue.put_always(str)
            return True
        finally:
            self._writing.release()

    def _run(self) -> None:
        while True:
            unreported = self._queue.dropped > self._reported
            wait_s = max(0.0, self._reported_s + _REPORT_S - time.monotonic())
            items = self._queue.take(_LINES_AT_ONCE, wait_s if unreported else None)
            flushed = [item for item in items if isinstance(item, threading.Event)]
            lines = [self._line(item) for item in items if not isinstance(item, threading.Event)]
            self._write("".join(lines))
            if flushed or time.monotonic() >= self._reported_s + _REPORT_S:
                self._report_dropped()
            for event in flushed:
                event.set()

    def _line(self, render: Render) -> str:
        try:
            return render()
        except Exception as error:
            return self._warn("a log line cannot be made", {"reason": repr(error)})

    def _report_dropped(self) -> None:
        dropped = self._queue.dropped
        if dropped > self._reported:
            self._reported, self._reported_s = dropped, time.monotonic()
            self._write(self._warn("log lines were dropped", {"dropped": dropped}))

    def _write(self, lines: str) -> None:
        """Write all of some lines, however long that takes."""
        with self._writing:
            data = self._rest + lines.encode("ascii", "backslashreplace")
            self._rest = b""
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    self._poll.poll()
                except OSError:
                    self._lost(data)
                    return

    def _lost(self, data: bytes) -> None:
        """Nobody reads any more, or the disk is full."""
        self._queue.drop(data.count(b"\n"))
