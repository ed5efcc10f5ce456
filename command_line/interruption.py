"""End a command by a signal without losing what it has measured."""

import contextlib
import functools
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S = 0.05


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end; `str` says which, and what became of the results."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number
        self.outcome = ""
        super().__init__(number)

    def __str__(self) -> str:
        return f"interrupted by {self.name}{self.outcome}"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread while the block runs.

    A signal that is ignored, as SIGHUP under nohup, stays so.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for number in map(int, _SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
        sys.unraisablehook = functools.partial(_raise_again, hook)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _raise_again(hook: Callable[[Any], Any], ignored: Any) -> None:
    """Send the signal anew where Python ignored its exception, as it does with one in a __del__."""
    if isinstance(ignored.exc_value, Interrupted):
        # To the thread that waits, or it would not wake; not at once, as this function is called
        # from where exceptions are ignored.
        to = threading.main_thread().ident, ignored.exc_value.number
        threading.Timer(_AGAIN_S, signal.pthread_kill, to).start()
    else:
        hook(ignored)


class Kept:
    """What `keeping` saw: `interrupted`, or None where the block came to its end."""

    interrupted: Interrupted | None = None

    def because(self, measured: int, what: str) -> dict[str, Any]:
        """Keys that mark a record of `measured` things as partial; none if it is whole.

        Raises Interrupted where there is nothing to write: nothing was measured.
        """
        if self.interrupted is None:
            return {}
        if not measured:
            self.interrupted.outcome = ": nothing was measured, so nothing is written"
            raise self.interrupted
        self.interrupted.outcome = f" after {what}"
        return {"partial": True, "partial_because": str(self.interrupted)}

    def end(self, where: object) -> None:
        """Raise Interrupted where there was one; the partial results are at `where`."""
        if self.interrupted is not None:
            self.interrupted.outcome += f": partial results are in {where}"
            raise self.interrupted


@contextlib.contextmanager
def keeping() -> Iterator[Kept]:
    """Let a signal end the block, but not the command."""
    kept = Kept()
    try:
        yield kept
    except Interrupted as interrupted:
        # Its traceback would keep alive what the block has left.
        kept.interrupted = interrupted.with_traceback(None)


@contextlib.contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make the folder for results; one that is new goes again if a signal comes before any."""
    is_new = not folder.exists()
    # Hours of measuring must not end at a folder that cannot be written.
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except Interrupted:
        if is_new and not any(folder.glob("*.json")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def holding_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait for the end of the block, in the main thread.

    For what must come to its end, such as the start of a process that nobody would end otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {int(number): signal.getsignal(number) for number in _SIGNALS}
    handled = {number: handler for number, handler in before.items() if callable(handler)}
    for number in handled:
        signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        for number in held[:1]:
            signal.raise_signal(number)
