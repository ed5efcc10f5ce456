"""Show what every thread is doing."""

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType

from server.app import logs

# The first ones, from the innermost on.
_MOST_FRAMES = 60


def dump() -> None:
    """Log the stack of each thread, whatever the log's level.

    faulthandler.register would do it within a signal handler. It reads stacks while their threads
    run on, which ended servers under load.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = [
        _line(names.get(ident, ""), frame) for ident, frame in sorted(sys._current_frames().items())
    ]
    logs.writer().write("".join(lines))


def _line(thread: str, frame: FrameType) -> str:
    return logs.line(
        {
            "time": logs.time_text(time.time()),
            "level": "INFO",
            "logger": __name__,
            "message": "stack",
            "thread": thread,
            "stack": list(_frames(frame)),
        }
    )


def _frames(frame: FrameType) -> Iterator[str]:
    """Each function, and where it is; the innermost first."""
    for count, (each, number) in enumerate(traceback.walk_stack(frame)):
        if count == _MOST_FRAMES:
            yield "..."
            return
        code = each.f_code
        yield f"{code.co_qualname} ({code.co_filename}:{number})"
