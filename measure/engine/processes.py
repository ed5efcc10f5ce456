"""Run the processes that generate load, and combine their results."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from measure.core.child_process import ChildProcess, talking_to
from measure.core.record import decoded, encoded
from measure.engine.loop import Times
from measure.engine.pace import Pace
from measure.engine.slice import Slice
from measure.engine.worker_job import Job, Load

# Time for every process to read the order to start.
_HEAD_START_NS = 100_000_000
# A server that uses all cores must not delay requests that it has not received yet: senders get
# priority, as if they ran on another machine. Without the permission, they run at normal priority.
SENDER_NICE = -10


class LoadProcesses:
    """Connected processes that send on command; `nice` is their priority."""

    def __init__(self, processes: Sequence[ChildProcess]) -> None:
        self._processes = processes
        self.nice = max(os.getpriority(os.PRIO_PROCESS, process.pid) for process in processes)

    def start(
        self, pace: Pace, warm_up_s: float, slice_s: float, spools: Path | None = None
    ) -> "RunningLoad":
        """Start a load, each process with its part of the pace.

        With `spools`, an existing folder, each writes its requests to a spool there.

        Several loads may run at once, each on separate processes: clients of several kinds, or a
        load in the background, whose slices may last as long as the load.
        """
        start_ns = time.perf_counter_ns() + _HEAD_START_NS
        times = Times(start_ns, int(warm_up_s * 1e9), int(slice_s * 1e9))
        paces = pace.among(len(self._processes))
        files = [None if spools is None else str(spools / str(n)) for n in range(len(paces))]
        for process, part, file in zip(self._processes, paces, files, strict=True):
            process.send(encoded(Load(part, times, file)))
        return RunningLoad(self._processes, start_ns)


class RunningLoad:
    """A running load; each slice combines all processes, and the first is the warm-up."""

    def __init__(self, processes: Sequence[ChildProcess], start_ns: int) -> None:
        self._processes = processes
        self.start_ns = start_ns
        # Number of slices that were taken, the warm-up included.
        self.taken = 0

    def slice(self) -> Slice:
        """Wait for the next slice."""
        self.taken += 1
        return _sum(decoded(process.receive()["slice"], Slice) for process in self._processes)

    def window(self, is_full: Callable[[Slice], bool]) -> Slice:
        """Merge slices until `full` accepts the result."""
        whole = self.slice()
        while not is_full(whole):
            whole.add(self.slice())
        return whole

    def stop(self) -> Slice:
        """End the load; return the last slice, with the requests that had no answer by then."""
        for process in self._processes:
            process.send(None)
        return _sum(found for process in self._processes for found in _rest(process))


def _rest(process: ChildProcess) -> Iterator[Slice]:
    """Read a process's remaining slices: it may have ended one before it read the order to stop."""
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
    """Start processes for a job, and end them; RequestFailed or UsageError if they cannot send.

    When the block begins, each process has received an answer to its first request.
    """
    command = (sys.executable, "-m", "measure.engine.worker")
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(talking_to(command, "a load process")) for _ in range(count)
        ]
        for process, part in zip(processes, job.among(count), strict=True):
            with contextlib.suppress(PermissionError):
                # The priority of its first thread, which later threads inherit.
                os.setpriority(os.PRIO_PROCESS, process.pid, SENDER_NICE)
            process.send(encoded(part))
        for process in processes:
            process.receive()
        yield LoadProcesses(processes)
