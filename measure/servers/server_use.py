"""What a server used and counted while it was under load: its process, or its metrics."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import ClassVar, Literal, Protocol
from urllib.request import ProxyHandler, build_opener

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from client.errors import UsageError
from measure.servers.statistics import ServerStatistics

_TIMEOUT_S = 2.0
_MOST_BYTES = 16 * 2**20
_CPU, _RSS = "process_cpu_seconds_total", "process_resident_memory_bytes"
_RECORDED = ("nv_", "argmax_", "process_cpu_")
_REFUSED = "argmax_refused_total"
Origin = Literal["process", "metrics", "statistics"]
# Series by name and labels.
Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a server at an instant (time.perf_counter_ns); None, and no series: unknown."""

    at_ns: int
    cpu_s: float | None
    rss_bytes: int | None
    series: Series


@dataclass(frozen=True, slots=True)
class ServerUse:
    """What a server did in `seconds`, between two readings of its process or its metrics.

    With the source `statistics` neither was read, and all is from ModelStatistics. Of several
    servers together the numbers are sums; `batch_rows` and `queue_ns` are means over all of them.
    `cpu_s` is processor time, and `cores` that per second; `rss_bytes` is its resident memory, the
    larger of the readings. The rest is of all clients' requests to the models under load: requests
    `answered` and `failed`, mean rows of an execution, mean nanoseconds of an answered request in
    the queue; of a process without metrics, what ModelStatistics says of these. `refused` counts
    calls of all clients that no model got. None where that is not reported. `counters` has every
    difference that is not 0, by series.
    """

    DERIVED: ClassVar = ("cores",)

    source: Origin
    seconds: float
    cpu_s: float | None
    rss_bytes: int | None
    answered: int | None
    failed: int | None
    refused: int | None
    batch_rows: float | None
    queue_ns: float | None
    counters: dict[str, float]

    @property
    def cores(self) -> float | None:
        """Cores that were busy on average."""
        return None if self.cpu_s is None else self.cpu_s / self.seconds


class Source(Protocol):
    """Where readings come from."""

    name: Origin

    def read(self) -> Reading | None:
        """The state now; None if it cannot be read."""


class ServerProcess:
    """A server's process on this machine."""

    name: Origin = "process"

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def read(self) -> Reading | None:
        """See Source."""
        try:
            times, memory = self._process.cpu_times(), self._process.memory_info()
        except psutil.Error:
            return None
        return Reading(time.perf_counter_ns(), times.user + times.system, memory.rss, {})


class ServerMetrics:
    """Metrics in Prometheus's text format, at a URL."""

    name: Origin = "metrics"

    def __init__(self, url: str) -> None:
        """UsageError if they cannot be read there now."""
        self._url = url
        # A proxy that is meant for other hosts would be asked for those of this machine, too.
        self._opener = build_opener(ProxyHandler({}))
        try:
            self._get()
        except (OSError, ValueError, HTTPException) as error:
            raise UsageError(
                f"--server-metrics {url}: got {error}, expected metrics in Prometheus's text format"
            ) from None

    def read(self) -> Reading | None:
        """See Source."""
        try:
            return self._get()
        except (OSError, ValueError, HTTPException):
            return None

    def _get(self) -> Reading:
        with self._opener.open(self._url, timeout=_TIMEOUT_S) as answer:
            text = answer.read(_MOST_BYTES).decode()
        at_ns = time.perf_counter_ns()
        series: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        cpu_s, rss_bytes, families = None, None, 0
        for family in text_string_to_metric_families(text):
            families += 1
            for sample in family.samples:
                if sample.name == _CPU:
                    cpu_s = sample.value
                elif sample.name == _RSS:
                    rss_bytes = int(sample.value)
                if _adds_up(family.type, sample):
                    series[_name(sample), tuple(sorted(sample.labels.items()))] = sample.value
        if not families:
            raise ValueError("no metrics")
        return Reading(at_ns, cpu_s, rss_bytes, series)


def summed(readings: Sequence[Reading]) -> Reading:
    """The sums of several servers' readings, as of one server, at the last of their instants."""
    series: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for reading in readings:
        for key, value in reading.series.items():
            series[key] = series.get(key, 0.0) + value
    cpu_s = [one.cpu_s for one in readings if one.cpu_s is not None]
    rss_bytes = [one.rss_bytes for one in readings if one.rss_bytes is not None]
    return Reading(
        max(one.at_ns for one in readings),
        sum(cpu_s) if len(cpu_s) == len(readings) else None,
        sum(rss_bytes) if len(rss_bytes) == len(readings) else None,
        series,
    )


def of_statistics(counts: ServerStatistics, seconds: float) -> ServerUse:
    """What ModelStatistics alone says of a server."""
    unknown = ServerUse("statistics", seconds, *(None,) * 7, {})
    return with_statistics(unknown, counts)


def with_statistics(use: ServerUse, counts: ServerStatistics) -> ServerUse:
    """Take from ModelStatistics what metrics do not say."""
    return replace(
        use,
        answered=counts.requests,
        batch_rows=counts.rows / counts.executions if counts.executions else None,
        queue_ns=counts.queue_ns / counts.requests if counts.requests else None,
    )


def server_use(
    source: Origin, first: Reading | None, last: Reading | None, models: Collection[str]
) -> ServerUse | None:
    """What happened between two readings of a source.

    None without both of them, and if the server has started again in between.
    """
    if first is None or last is None or last.at_ns <= first.at_ns:
        return None
    cpu_s = None
    if first.cpu_s is not None and last.cpu_s is not None:
        cpu_s = last.cpu_s - first.cpu_s
        if cpu_s < 0:
            return None
    used = [one.rss_bytes for one in (first, last) if one.rss_bytes is not None]
    # A series that was not there before has counted from 0.
    changed = {key: value - first.series.get(key, 0.0) for key, value in last.series.items()}
    counts = _Counts(changed, models)
    executions = counts.of_models("nv_inference_exec_count")
    answered = counts.of_models("nv_inference_request_success")
    rows = counts.of_models("nv_inference_count")
    queue_us = counts.of_models("nv_inference_queue_duration_us")
    return ServerUse(
        source=source,
        seconds=(last.at_ns - first.at_ns) / 1e9,
        cpu_s=cpu_s,
        rss_bytes=max(used, default=None),
        answered=_whole(answered),
        failed=_whole(counts.of_models("nv_inference_request_failure")),
        refused=_whole(counts.of_all(_REFUSED)),
        batch_rows=rows / executions if rows is not None and executions else None,
        queue_ns=queue_us * 1e3 / answered if queue_us is not None and answered else None,
        counters={_text(*key): value for key, value in changed.items() if value},
    )


class _Counts:
    """Sums of the differences of series; None where a server has no such series."""

    def __init__(self, changed: Series, models: Collection[str]) -> None:
        self._changed = changed
        self._models = models

    def of_all(self, name: str) -> float | None:
        return self._sum(value for (other, _), value in self._changed.items() if other == name)

    def of_models(self, name: str) -> float | None:
        return self._sum(
            value
            for (other, labels), value in self._changed.items()
            if other == name and dict(labels).get("model") in self._models
        )

    @staticmethod
    def _sum(values: Iterator[float]) -> float | None:
        found = list(values)
        return sum(found) if found else None


def _adds_up(kind: str, sample: Sample) -> bool:
    """Whether a series is recorded: it counts, and is not a bucket of a histogram."""
    counts = kind in ("counter", "unknown", "untyped", "histogram", "summary")
    ours = sample.name.startswith(_RECORDED)
    return counts and ours and not sample.name.endswith(("_bucket", "_created"))


def _name(sample: Sample) -> str:
    # The parser gives all counters the suffix that Triton's lack.
    return sample.name.removesuffix("_total") if sample.name.startswith("nv_") else sample.name


def _text(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in labels)
    return f"{name}{{{inside}}}" if inside else name


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
