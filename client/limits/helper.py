"""Run a function that serves in a process of its own, for as long as a block lasts."""

import contextlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from client.errors import UsageError
from client.limits.sockets import UNIX
from command_line.interruption import shielding_children

_START_TIMEOUT_S = 60.0


@contextlib.contextmanager
def serving(serve: Callable[..., None], *arguments: Any, unix: bool = False) -> Iterator[str]:
    """Call `serve(address, told, *arguments)` in a process; where it can be reached.

    `serve` listens at the address and sends through `told` where that is. UsageError when it does
    not come so far.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        wanted = f"{UNIX}{os.path.join(folder, 's')}" if unix else "127.0.0.1:0"
        # A fork would copy what this process holds; a process ended with its parent is enough.
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(wanted, there, *arguments), daemon=True
        )
        with shielding_children():
            process.start()
        there.close()
        try:
            yield _address(here)
        finally:
            process.terminate()
            process.join()


def _address(told: Connection) -> str:
    try:
        if told.poll(_START_TIMEOUT_S):
            address: str = told.recv()
            return address
    except EOFError:
        pass
    raise UsageError("a process that the limits are measured with did not start")
