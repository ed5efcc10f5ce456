"""Write the answers of one batch together, where they go to the same connection.

A write for each answer costs a system call, and the wait for the interpreter lock after it. The
worker that hands out a batch opens a scope; a callback that answers names the
connection, which then gathers what this thread sends until the scope ends.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Connection(Protocol):
    """Gathers what a thread sends, from `cork` to `uncork`; small amounts only."""

    def cork(self) -> None:
        """Gather from now on."""

    def uncork(self) -> None:
        """Write what was gathered."""


class _Scope(threading.local):
    corked: dict[Connection, None] | None = None


_scope = _Scope()


@contextlib.contextmanager
def answers_together() -> Iterator[None]:
    """Gather what this thread answers within the block."""
    corked: dict[Connection, None] = {}
    _scope.corked = corked
    try:
        yield
    finally:
        _scope.corked = None
        for connection in corked:
            connection.uncork()


def gather(connection: Connection) -> None:
    """Have a connection gather this thread's answers, if a scope is open."""
    corked = _scope.corked
    if corked is not None and connection not in corked:
        corked[connection] = None
        connection.cork()
