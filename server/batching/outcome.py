"""What becomes of a request: a value or an error, set by one thread and awaited by others."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Generic, TypeVar

Value = TypeVar("Value")
_log = logging.getLogger(__name__)


class Outcome(Generic[Value]):
    """The part of `concurrent.futures.Future` that a request needs, without its lock.

    A Future makes a lock and a condition and takes them several times, which small requests feel.
    Here appending to a list and taking from it are all that threads share, and those are atomic.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Outcome[Value]], object]] = []
        self._done = False
        self._error: Exception | None = None
        self._value: Value | None = None

    def done(self) -> bool:
        """Whether there is a value or an error."""
        return self._done

    def set_result(self, value: Value) -> None:
        """Set the value, once; the callbacks run in this thread."""
        self._value = value
        self._done = True
        if self._callbacks:
            self._call_back()

    def set_exception(self, error: Exception) -> None:
        """Set the error, in place of a value."""
        self._error = error
        self._done = True
        if self._callbacks:
            self._call_back()

    def add_done_callback(self, callback: "Callable[[Outcome[Value]], object]") -> None:
        """Call `callback(self)` once done: at once if it is, else from the thread that sets it."""
        self._callbacks.append(callback)
        # Either this thread or the one that sets the outcome takes it from the list.
        if self._done:
            self._call_back()

    def exception(self, timeout_s: float | None = None) -> Exception | None:
        """The error, or None for a value; waits up to `timeout_s`, then raises TimeoutError."""
        if not self._done:
            self._wait(timeout_s)
        return self._error

    def result(self, timeout_s: float | None = None) -> Value:
        """The value; raises the error instead, or TimeoutError after `timeout_s`."""
        if not self._done:
            self._wait(timeout_s)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set, as there is no error

    def _wait(self, timeout_s: float | None) -> None:
        ended = threading.Event()
        self.add_done_callback(lambda _: ended.set())
        if not ended.wait(timeout_s):
            raise FutureTimeout

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return  # the other thread took it
            try:
                callback(self)
            except Exception:
                _log.exception("a callback of a request failed")
