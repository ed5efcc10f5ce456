"""Run the processes that make load, and gather what they saw."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from measure.core.child_process import ChildProcess, talking_to
from measure.core.record import decoded, encoded
from measure.engine.loop import Pace, Times
from measure.engine.slice import Slice
from measure.engine.worker_job import Job, Load

# From the order to start until every process has read it.
_HEAD_START_NS = 100_000_000
# A server that takes all cores must not delay requests that it has not got yet: a sender goes
# first, as if it had a machine of its own. Where that is not allowed, it takes its turn.
SENDER_NICE = -10


class LoadProcesses:
    """Processes that are connected, and send when told to; `nice` is the priority they have."""

    def __init__(self, processes: Sequence[ChildProcess]) -> None:
        self._processes = processes
        self.nice = max(os.getpriority(os.PRIO_PROCESS, process.pid) for process in processes)

    def start(self, pace: Pace, warm_up_s: float, slice_s: float) -> "RunningLoad":
        """Begin a load, each process with its part of the pace.

        Several may run at once, each on processes of its own: clients of several kinds, or a load
        in the background, whose slices may be as long as it lasts.
        """
        start_ns = time.perf_counter_ns() + _HEAD_START_NS
        times = Times(start_ns, int(warm_up_s * 1e9), int(slice_s * 1e9))
        paces = pace.among(len(self._processes))
        for process, part in zip(self._processes, paces, strict=True):
            process.send(encoded(Load(part, times)))
        return RunningLoad(self._processes)


class RunningLoad:
    """A load under way; its slices are of all processes together, and the first is the warm-up."""

    def __init__(self, processes: Sequence[ChildProcess]) -> None:
        self._processes = processes

    def slice(self) -> Slice:
        """Wait for the next slice."""
        return _sum(decoded(process.receive()["slice"], Slice) for process in self._processes)

    def window(self, is_full: Callable[[Slice], bool]) -> Slice:
        """As many slices as it takes until they are full, as one."""
        whole = self.slice()
        while not is_full(whole):
            whole.add(self.slice())
        return whole

    def stop(self) -> Slice:
        """End the load; the last slice, with the requests that had no answer until then."""
        for process in self._processes:
            process.send(None)
        return _sum(found for process in self._processes for found in _rest(process))


def _rest(process: ChildProcess) -> Iterator[Slice]:
    """What a process still has to say: it may have ended a slice before it read to stop."""
    last = False
    while not last:
        content = process.receive()
        last = content["last"]
        yield decoded(content["slice"], Slice)


def _sum(slices: Iterator[Slice]) -> Slice:
    whole = next(slices)
    for other in slices:
        whole.add(other)
    return whole


@contextlib.contextmanager
def load_processes(job: Job, count: int = 1) -> Iterator[LoadProcesses]:
    """Start processes for a job, and end them; RequestFailed or UsageError when they cannot send.

    When the block begins, each had an answer to a first request.
    """
    command = (sys.executable, "-m", "measure.engine.worker")
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(talking_to(command, "a process that makes load"))
            for _ in range(count)
        ]
        for process in processes:
            with contextlib.suppress(PermissionError):
                # Of its first thread, from which those to come have it.
                os.setpriority(os.PRIO_PROCESS, process.pid, SENDER_NICE)
            process.send(encoded(job))
        for process in processes:
            process.receive()
        yield LoadProcesses(processes)
