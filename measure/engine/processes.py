"""Run the processes that make load, and gather what they saw."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from client.errors import RequestFailed, UsageError
from command_line.interruption import shielding_children
from measure.engine.loop import Pace, Times
from measure.engine.slice import Slice
from measure.engine.worker_job import Job, Load

_SOURCE = Path(__file__).resolve().parents[2]
# From the order to start until every process has read it.
_HEAD_START_NS = 100_000_000
_STOP_TIMEOUT_S = 10.0
# A server that takes all cores must not delay requests that it has not got yet: a sender goes
# first, as if it had a machine of its own. Where that is not allowed, it takes its turn.
SENDER_NICE = -10


class LoadProcesses:
    """Processes that are connected, and send when told to; `nice` is the priority they have."""

    def __init__(self, processes: Sequence["subprocess.Popen[str]"], log: IO[str]) -> None:
        self._processes = processes
        self._log = log
        self.nice = max(os.getpriority(os.PRIO_PROCESS, process.pid) for process in processes)

    def slices(
        self, paces: Sequence[Pace], warm_up_s: float, slice_s: float
    ) -> Generator[Slice, bool, None]:
        """Load with a pace for each process, and yield their slices, those of a time as one.

        The first is the warm-up. Send True to end the load; then the last one comes, with what
        had no answer until then.
        """
        start_ns = time.perf_counter_ns() + _HEAD_START_NS
        times = Times(start_ns, int(warm_up_s * 1e9), int(slice_s * 1e9))
        for process, pace in zip(self._processes, paces, strict=True):
            self._write(process, Load(pace, times).to_json())
        while not (yield self._next()):
            pass
        for process in self._processes:
            self._write(process, None)
        # A process may have ended a slice before it read that.
        yield self._last()

    def _next(self) -> Slice:
        first, *others = [self._read_slice(process) for process in self._processes]
        for other in others:
            first.add(other)
        return first

    def _last(self) -> Slice:
        whole: Slice | None = None
        for process in self._processes:
            while True:
                content = self._read(process)
                found = Slice.from_json(content["slice"])
                if whole is None:
                    whole = found
                else:
                    whole.add(found)
                if content["last"]:
                    break
        assert whole is not None
        return whole

    def _read_slice(self, process: "subprocess.Popen[str]") -> Slice:
        return Slice.from_json(self._read(process)["slice"])

    def _read(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._log.seek(0)
            said = self._log.read().strip().splitlines() or ["it said nothing"]
            raise UsageError(f"a process that makes load ended: {said[-1]}")
        content: dict[str, Any] = json.loads(line)
        if "code" in content:
            raise RequestFailed(content["code"], content["failed"])
        if "failed" in content:
            raise UsageError(content["failed"])
        return content

    def wait_until_ready(self) -> None:
        """Wait for the first answer to each; RequestFailed or UsageError when there is none."""
        for process in self._processes:
            self._read(process)

    @staticmethod
    def _write(process: "subprocess.Popen[str]", content: Any) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading from it will tell why
            process.stdin.write(json.dumps(content) + "\n")
            process.stdin.flush()


@contextlib.contextmanager
def load_processes(job: Job, count: int) -> Iterator[LoadProcesses]:
    """Start processes for a job, and end them."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        processes = [stack.enter_context(_process(log)) for _ in range(count)]
        running = LoadProcesses(processes, log)
        for process in processes:
            running._write(process, job.to_json())
        running.wait_until_ready()
        yield running


@contextlib.contextmanager
def _process(log: IO[str]) -> Iterator["subprocess.Popen[str]"]:
    with shielding_children():
        process = subprocess.Popen(
            [sys.executable, "-m", "measure.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=_SOURCE,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(PermissionError):
        # Of its first thread, from which those to come have it.
        os.setpriority(os.PRIO_PROCESS, process.pid, SENDER_NICE)
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        # One that still makes load has nobody to tell.
        process.stdout.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except BaseException as error:
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
