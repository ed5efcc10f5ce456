"""What the server counts, as metrics: read when they are asked for.

Names with `nv_` and their labels are Triton's, so that its dashboards and scaling rules work.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from server.app.management.sources import Sources
from server.batching.policy import CloseReason
from server.batching.statistics import Counts, FailReason, Histogram
from server.repository.totals import Version, VersionTotals
from server.rpc.accounting.call_ends import CallEnds
from server.rpc.accounting.request_ends import METHOD, STREAM_METHOD
from transport.status import Code

_NS_PER_US = 1000
_NS_PER_S = 1e9
# The bound of the last finite bucket is at most so long.
_LONGEST_NS = 16_384_000_000
_MOST_ROWS = 1024
_LABELS = ("model", "version")
_INFERENCE = (METHOD, STREAM_METHOD)

# Triton's counters of one version: name, meaning, value.
_TRITON: Sequence[tuple[str, str, Callable[[Counts], int]]] = (
    ("nv_inference_request_success", "Requests answered", lambda c: c.succeeded),
    ("nv_inference_count", "Rows of executed batches", lambda c: c.inference_rows),
    ("nv_inference_exec_count", "Executions of the model", lambda c: c.executions),
    (
        "nv_inference_request_duration_us",
        "Time of answered requests, from their last byte to their answer",
        lambda c: c.total_ns // _NS_PER_US,
    ),
    (
        "nv_inference_queue_duration_us",
        "Time of answered requests in the queue",
        lambda c: c.queue.ns // _NS_PER_US,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Time to decode answered requests and to assemble their batches",
        lambda c: c.compute_input.ns // _NS_PER_US,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time of answered requests in the model",
        lambda c: c.compute_infer.ns // _NS_PER_US,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time to encode answers",
        lambda c: c.compute_output.ns // _NS_PER_US,
    ),
)


class ServerMetrics(Collector):
    """Metrics of the models and of the calls, once `sources` is set: it is None before that."""

    def __init__(self, build: Mapping[str, str]) -> None:
        """`build`: labels that say what runs."""
        self._build = dict(build)
        self.sources: Sources | None = None

    def collect(self) -> Iterator[Metric]:
        """Every metric, in the order in which they are shown."""
        build = GaugeMetricFamily("argmax_build_info", "What runs", labels=list(self._build))
        build.add_metric(list(self._build.values()), 1)
        yield build
        sources = self.sources
        if sources is not None:
            totals = sources.totals.read()
            yield from _triton(totals)
            yield from _of_models(totals)
            yield from _of_server(sources)
            if sources.connections() is not None:
                yield from _of_calls(sources.calls)


def registry(metrics: ServerMetrics) -> CollectorRegistry:
    """What is shown: the server's metrics and its process's."""
    made = CollectorRegistry()
    made.register(metrics)
    ProcessCollector(registry=made)
    return made


def _triton(totals: Mapping[Version, VersionTotals]) -> Iterator[Metric]:
    for name, meaning, value in _TRITON:
        family = Metric(name, meaning, "unknown")
        for version, each in totals.items():
            family.add_sample(name, _labels(version), value(each.counts))
        yield family
    name = "nv_inference_request_failure"
    family = Metric(name, "Requests that a model had and that failed, by reason", "unknown")
    for version, each in totals.items():
        for reason in FailReason:
            count = each.counts.fail_reasons[reason]
            family.add_sample(name, {**_labels(version), "reason": reason.value}, count)
    yield family
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Requests that wait to be executed", labels=_LABELS
    )
    load = GaugeMetricFamily(
        "nv_model_load_duration_secs", "Time that the last load took", labels=_LABELS
    )
    for version, each in totals.items():
        labels = list(_labels(version).values())
        pending.add_metric(labels, each.waiting)
        load.add_metric(labels, each.load_s)
    yield pending
    yield load


def _of_models(totals: Mapping[Version, VersionTotals]) -> Iterator[Metric]:
    requests = HistogramMetricFamily(
        "argmax_request_seconds",
        "Time of answered requests, from their last byte to their answer",
        labels=[*_LABELS, "method"],
    )
    stages = HistogramMetricFamily(
        "argmax_stage_seconds", "Time of answered requests by stage", labels=[*_LABELS, "stage"]
    )
    rows = HistogramMetricFamily("argmax_batch_rows", "Rows of executed batches", labels=_LABELS)
    closed = CounterMetricFamily(
        "argmax_batches_closed",
        "Executed batches, by the reason to close them",
        labels=[*_LABELS, "reason"],
    )
    for version, each in totals.items():
        labels = list(_labels(version).values())
        counts = each.counts
        for method, times in zip(_INFERENCE, (counts.unary, counts.streamed), strict=True):
            _add_times(requests, [*labels, method], times)
        for stage, times in counts.stages.items():
            _add_times(stages, [*labels, stage], times)
        executed = {size: batch.compute_infer.count for size, batch in counts.batches.items()}
        rows.add_metric(labels, _row_buckets(executed), counts.inference_rows)
        for reason in CloseReason:
            closed.add_metric([*labels, reason.value], counts.closed[reason])
    yield from (requests, stages, rows, closed)


def _of_server(sources: Sources) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "argmax_inflight_bytes", "Bytes of requests in memory", sources.budget.used_bytes
    )
    yield GaugeMetricFamily(
        "argmax_streams_open", "Open calls of ModelStreamInfer", sources.streams.open
    )
    connections = sources.connections()
    if connections is not None:
        yield GaugeMetricFamily("argmax_connections_open", "Open gRPC connections", connections)
    refused = CounterMetricFamily(
        "argmax_refused", "Calls and requests that no model had, by status code", labels=["code"]
    )
    counted = sources.requests.refused + sources.calls.refused
    for code in Code:
        if code is not Code.OK:
            refused.add_metric([code.name], counted[code])
    yield refused
    dropped = CounterMetricFamily(
        "argmax_dropped",
        "Log lines that stderr did not take in time, and requests too many to be traced",
        labels=["what"],
    )
    for what, count in sources.dropped().items():
        dropped.add_metric([what], count)
    yield dropped


def _of_calls(calls: CallEnds) -> Iterator[Metric]:
    labels = ["grpc_type", "grpc_service", "grpc_method"]
    handled = CounterMetricFamily(
        "grpc_server_handled",
        "Calls that have ended, by status code",
        labels=[*labels, "grpc_code"],
    )
    handling = HistogramMetricFamily(
        "grpc_server_handling_seconds",
        "Time of calls, from their headers to their end",
        labels=labels,
    )
    for method in calls.methods:
        values = [method.kind, method.service, method.name]
        for code in Code:
            if method.codes[code] or code is Code.OK:
                handled.add_metric([*values, code.name], method.codes[code])
        # Of the others there are many.
        if any(method.codes) or method.name in _INFERENCE:
            _add_times(handling, values, method.times)
    yield handled
    yield handling


def _labels(version: Version) -> dict[str, str]:
    # Names of folders need not be UTF-8, which metrics are.
    name, number = version
    return {"model": name.encode("utf-8", "backslashreplace").decode(), "version": number}


def _add_times(family: HistogramMetricFamily, labels: Sequence[str], times: Histogram) -> None:
    buckets = [
        (str(bound_ns / _NS_PER_S), float(count))
        for bound_ns, count in times.cumulative(_LONGEST_NS)
    ]
    buckets.append(("+Inf", float(times.count)))
    family.add_metric(labels, buckets, times.ns / _NS_PER_S)


def _row_buckets(batches: Mapping[int, int]) -> list[tuple[str, float]]:
    """Numbers of batches with up to 1, 2, 4 ... rows."""
    buckets = []
    bound = 1
    while bound <= _MOST_ROWS:
        count = sum(count for rows, count in batches.items() if rows <= bound)
        buckets.append((str(float(bound)), float(count)))
        bound *= 2
    return [*buckets, ("+Inf", float(sum(batches.values())))]
