"""Measure a server's memory over a series of streams."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from client.errors import UsageError
from measure.core.local_server import running_server
from measure.core.verification import Truth, check
from measure.side_by_side.service import MIB, Settings, connected
from measure.sweep.modes import Stream


@dataclass(frozen=True, slots=True)
class Memory:
    """A fresh server with defaults: peak and final resident MiB of each stream."""

    stream_mib: float
    weights_mib: float
    idle_mib: float
    peaks_mib: list[float]
    after_mib: list[float]
    wrong_labels: int

    @property
    def drift_mib(self) -> float:
        """Growth of the resident memory from the first stream to the last."""
        return self.after_mib[-1] - self.after_mib[0]


def watch(models: Path, settings: Settings, truth: Truth, report: Callable[[str], None]) -> Memory:
    """Send all examples repeatedly, each time on a new stream."""
    report(f"memory: {settings.memory_streams} streams of {truth.x.nbytes / MIB:,.0f} MiB")
    peaks, after = [], []
    wrong = 0
    with (
        running_server(models, ["--threads", str(settings.threads)]) as server,
        connected(server.address) as client,
    ):
        process = psutil.Process(server.pid)
        idle = process.memory_info().rss
        for _ in range(settings.memory_streams):
            server.forget_peak_memory()
            stream = Stream(client)
            try:
                wrong += check(truth, 0, stream.predict(truth.x).labels).wrong_labels
            finally:
                stream.close()
            peak = server.peak_memory_bytes()
            if peak is None:
                raise UsageError("this system does not report a process's peak memory")
            peaks.append(peak / MIB)
            after.append(process.memory_info().rss / MIB)
    experiment = settings.experiment
    weights_mib = experiment.classes * experiment.features * 4 / MIB
    return Memory(truth.x.nbytes / MIB, weights_mib, idle / MIB, peaks, after, wrong)
