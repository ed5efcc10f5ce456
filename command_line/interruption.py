"""End a command by a signal without losing its measurements."""

import contextlib
import linecache
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S = 0.05
_POSTPONED_S = 0.01
# Code of grpcio that is still there after so many waits for an answer, without a lock.
_MOST_POSTPONED = 5


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end; `str` names it, and where the results are."""

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
    """Raise Interrupted in the main thread for SIGINT, SIGTERM and SIGHUP while the block runs.

    A signal that is ignored, as SIGHUP under nohup, stays so. SIGALRM is used meanwhile.
    """
    postponed = 0
    again = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal postponed
        if _may_hold_a_lock(frame):
            interrupt_later(number, _POSTPONED_S)
        elif _module(frame) == "grpc" and postponed < _MOST_POSTPONED:
            postponed += 1
            interrupt_later(number, _POSTPONED_S)
        else:
            raise Interrupted(number)

    def interrupt_later(number: int, after_s: float) -> None:
        nonlocal again
        again = number
        # Not a thread: to start one takes locks, which the interrupted code may hold.
        signal.setitimer(signal.ITIMER_REAL, after_s)

    def unraisable(ignored: Any) -> None:
        # Python ignored the exception, as it does in a __del__, and would do so again here.
        if isinstance(ignored.exc_value, Interrupted):
            interrupt_later(ignored.exc_value.number, _AGAIN_S)
        else:
            hook(ignored)

    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for number in map(int, _SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
        alarm = signal.signal(signal.SIGALRM, lambda _, frame: interrupt(again, frame))
        before[signal.SIGALRM] = alarm
        sys.unraisablehook = unraisable
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _may_hold_a_lock(frame: FrameType | None) -> bool:
    """Whether an exception might come between a lock's acquisition and the code that releases it.

    Python calls signal handlers between any two instructions, also after `Condition.__enter__` has
    the lock and before its `with` block has begun.
    """
    if frame is None or _module(frame) != "threading":
        return False
    if frame.f_code is not threading.Condition.wait.__code__:
        return True
    # There it waits without the lock, and takes it again whatever happens.
    return "waiter.acquire(" not in linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def _module(frame: FrameType | None) -> str:
    name: str = "" if frame is None else frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


class Kept:
    """The result of `keeping`: `interrupted`, or None if the block ended by itself."""

    interrupted: Interrupted | None = None

    def because(self, measured: int, what: str) -> dict[str, Any]:
        """Keys that mark a record of `measured` results as partial; none if it is complete.

        Raises Interrupted if nothing was measured, so there is nothing to write.
        """
        if self.interrupted is None:
            return {}
        if not measured:
            self.interrupted.outcome = ": nothing was measured, so nothing is written"
            raise self.interrupted
        self.interrupted.outcome = f" after {what}"
        return {"partial": True, "partial_because": str(self.interrupted)}

    def end(self, where: object) -> None:
        """Raise Interrupted if there was one; the partial results are at `where`."""
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
        # Its traceback would keep the block's objects alive.
        kept.interrupted = interrupted.with_traceback(None)


@contextlib.contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make the folder for results; remove a new one if a signal comes before the first result."""
    is_new = not folder.exists()
    # Hours of measuring must not fail at a folder that cannot be written.
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

    For steps that must complete, such as starting a process that must not be left running.
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
