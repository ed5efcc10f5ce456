"""Run a graph on one of two threads, and leave the other core to receiving what is to be run next.

ONNX Runtime divides a product of matrices between its threads, and the thread that called it spins
until the other one has done its half. Where receiving takes a core from one half, the spinning
takes the other core. `run_async` runs the whole graph on the session's only other thread.
"""

import contextlib
import queue
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from command_line.onnx_runtime import ort

# With more threads, the parts of a product would not be shared evenly by all but one of them.
THREADS = 2
# To receive fewer takes no core, and to wake another thread takes time.
LEAST_BYTES = 2**20
# Rows of single bytes take a quarter of the receiving that float32 takes, and as much computing.
LEAST_ITEM_BYTES = 2
_FREED_S = 1.0


class _Token:
    """Belongs to one run; ONNX Runtime drops it together with the inputs."""

    __slots__ = ("__weakref__",)


def run(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    inputs: Mapping[str, NDArray[Any]],
    how: ort.RunOptions | None = None,
) -> list[NDArray[Any]]:
    """The outputs as `session.run` returns them, of a session of `THREADS` threads.

    `how`: options of the run, None: the usual ones.
    """
    results: list[NDArray[Any]] = []
    failed = False
    done = threading.Lock()
    done.acquire()

    def take(outputs: Sequence[NDArray[Any]], _: object, error: str) -> None:
        nonlocal failed
        failed = bool(error)
        results.extend(() if failed else outputs)
        done.release()

    dropped: queue.SimpleQueue[object] = queue.SimpleQueue()
    token = _Token()
    watched = weakref.ref(token, dropped.put)
    session.run_async(outputs, inputs, take, token, how)
    del token
    done.acquire()
    # Until then the inputs hold memory that the caller believes to be free.
    with contextlib.suppress(queue.Empty):
        dropped.get(timeout=_FREED_S)
    del watched
    if failed:
        # The callback has only a text: the exception has a type.
        unfailed: list[NDArray[Any]] = session.run(outputs, inputs)
        return unfailed
    return results
