"""The metrics of a real server: their format, what they count, and that they never go back."""

import contextlib
import gc
import math

import grpc
import numpy as np
import pytest
from conftest import GROUP_ROWS
from http_pages import get, parse, scrape
from onnx import helper
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.registry import Collector

from server.app.management import exposition
from server.batching.statistics import Histogram
from transport.status import Code

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ODD = 'a "quoted" \\ name'
TRITON = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
}
GAUGES = {"nv_inference_pending_request_count", "nv_model_load_duration_secs"}
BATCH_ROWS = 3


def add_linear(graphs, name, version=1):
    graphs.add(
        name,
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["batch", 2])},
        version=version,
    )


@pytest.fixture(scope="module")
def models(graphs):
    graphs.add_steps()
    add_linear(graphs, "linear")
    add_linear(graphs, ODD)
    return graphs.folder


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(
        models,
        metrics_address="127.0.0.1:0",
        transport="native",
        group_rows=GROUP_ROWS,
        model_control="explicit",
        load_model=("*",),
    )


@pytest.fixture(scope="module")
def address(server):
    return server._management.address


@pytest.fixture
def caller(call, server):
    return call(server.address)


def linear(caller, model="linear", rows=BATCH_ROWS, **more):
    return caller.message(model, x=np.ones((rows, 2), np.float32), **more)


def attempt(function, *arguments, **options):
    with contextlib.suppress(grpc.RpcError):
        function(*arguments, **options)


def test_the_names_are_tritons_and_ours(address):
    samples = scrape(address)
    assert samples.names >= TRITON | GAUGES
    assert samples.names >= {
        "argmax_build_info",
        "argmax_request_seconds_bucket",
        "argmax_stage_seconds_bucket",
        "argmax_batch_rows_bucket",
        "argmax_batches_closed_total",
        "argmax_inflight_bytes",
        "argmax_streams_open",
        "argmax_connections_open",
        "argmax_refused_total",
        "argmax_dropped_total",
        "grpc_server_handled_total",
        "grpc_server_handling_seconds_bucket",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    }
    failures = [dict(labels) for name, labels in samples if name == "nv_inference_request_failure"]
    assert {each["reason"] for each in failures} == {"REJECTED", "CANCELED", "BACKEND", "OTHER"}
    assert set(failures[0]) == {"model", "version", "reason"}


def test_tritons_counters_are_declared_as_counters_and_its_gauges_as_gauges(address):
    text = get(address, "/metrics")[2].decode()
    types = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    assert {types[name] for name in TRITON} == {"counter"}
    assert {types[name] for name in GAUGES} == {"gauge"}
    assert "untyped" not in types.values()


def test_openmetrics_is_written_where_it_is_asked_for(address):
    _, headers, body = get(address, "/metrics", Accept=OPENMETRICS)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name for family in openmetrics_families(body.decode())}
    assert families >= TRITON | GAUGES | {"argmax_refused", "grpc_server_handled"}
    for accept in ("text/plain", "*/*", "application/openmetrics-text;version=x", "a;version=;="):
        assert get(address, "/metrics", Accept=accept)[0] == 200


def test_a_scraper_that_takes_both_formats_gets_the_cheaper_one(address):
    accept = f"{OPENMETRICS};q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    _, headers, body = get(address, "/metrics", Accept=accept)
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert parse(body.decode()).value("argmax_build_info") == 1


class Odd(Collector):
    """Families of every kind that the server has, with odd texts and values."""

    def collect(self):
        for number, kind in enumerate((CounterMetricFamily, GaugeMetricFamily)):
            family = kind(f"odd_{number}", 'a "text" \\ of\nlines', labels=["z", "a"])
            for value in (0, 0.1, 1e6, 12345678.9, 1e20, math.inf, -math.inf, math.nan):
                family.add_metric([ODD + "\n\u00e9", str(value)], value)
            yield family
        histogram = HistogramMetricFamily("odd_seconds", "Times", labels=["a"])
        histogram.add_metric(["b"], [("0.5", 1.0), ("+Inf", 3.0)], 2.5)
        yield histogram
        yield Metric("odd_unknown", "Unknown", "unknown")
        yield GaugeMetricFamily("odd_plain", "Without labels", 7)


def test_the_text_is_that_of_the_library():
    registry = CollectorRegistry()
    registry.register(Odd())
    ProcessCollector(registry=registry)
    expected = generate_latest(registry).decode().splitlines()
    text = exposition.encode(registry, "")[0].decode().splitlines()
    # The process goes on meanwhile.
    assert [line for line in text if not line.startswith("process_")] == [
        line for line in expected if not line.startswith("process_")
    ]
    assert len(text) == len(expected)


def test_names_of_models_are_escaped(address, caller):
    caller.infer(linear(caller, ODD))
    text = get(address, "/metrics")[2].decode()
    escaped = ODD.replace("\\", "\\\\").replace('"', '\\"')
    assert f'nv_inference_request_success{{model="{escaped}",version="1"}} 1.0\n' in text
    assert parse(text).value("nv_inference_request_success", model=ODD) == 1
    list(openmetrics_families(get(address, "/metrics", Accept=OPENMETRICS)[2].decode()))


def test_an_answered_request_is_counted_with_its_rows_times_and_batch(address, caller):
    before = scrape(address)
    caller.infer(linear(caller))
    caller.stream([linear(caller, rows=1)] * 2)
    after = scrape(address)

    def more(name, **labels):
        labels = {"model": "linear", **labels}
        return after.value(name, **labels) - before.value(name, **labels)

    assert more("nv_inference_request_success") == 3
    assert more("nv_inference_count") == BATCH_ROWS + 2
    executed = more("nv_inference_exec_count")
    assert 2 <= executed <= 3
    assert more("argmax_batch_rows_count") == executed
    assert more("argmax_batch_rows_sum") == BATCH_ROWS + 2
    assert more("argmax_batches_closed_total") == executed
    assert more("argmax_batch_rows_bucket", le="4.0") == executed
    assert more("argmax_request_seconds_count", method="ModelInfer") == 1
    assert more("argmax_request_seconds_count", method="ModelStreamInfer") == 2
    assert more("argmax_request_seconds_bucket", le="+Inf") == 3
    total_s = more("argmax_request_seconds_sum")
    assert total_s == pytest.approx(more("nv_inference_request_duration_us") / 1e6, abs=1e-5)
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert all(more("argmax_stage_seconds_count", stage=stage) == 3 for stage in stages)
    for stage in stages:
        stage_s = more("argmax_stage_seconds_sum", stage=stage)
        assert 0 < stage_s < total_s
        assert stage_s == pytest.approx(more(f"nv_inference_{stage}_duration_us") / 1e6, abs=1e-5)


def test_what_waits_and_what_is_open_is_shown(server, address, caller, eventually):
    steps = caller.message("steps", steps=np.zeros((1, 1), np.int64))
    with caller.busy_worker():
        waiting = [caller.infer_later(steps) for _ in range(3)]
        stream = caller.open_stream(iter([steps]))
        # With the request that keeps the worker busy, of which rows wait.
        eventually(
            lambda: scrape(address).value("nv_inference_pending_request_count", model="steps") == 5,
            "five wait",
        )
        samples = scrape(address)
        assert samples.value("argmax_streams_open") == 1
        assert samples.value("argmax_connections_open") >= 1
        assert samples.value("argmax_inflight_bytes") >= 4 * len(steps)
        for each in (*waiting, stream):
            each.cancel()
    eventually(
        lambda: scrape(address).value("nv_inference_pending_request_count", model="steps") == 0,
        "none waits",
    )
    assert scrape(address).value("argmax_streams_open") == 0


def test_counters_never_go_back_when_a_model_is_reloaded_or_unloaded(
    server, address, caller, eventually
):
    caller.infer(linear(caller))

    def counters():
        samples = scrape(address)
        return {
            key: value
            for key, value in samples.items()
            if dict(key[1]).get("model") == "linear" and key[0] not in GAUGES
        }

    before = counters()
    loads = scrape(address).value("nv_model_load_duration_secs", model="linear")
    assert loads > 0
    for _ in range(3):
        caller.control("RepositoryModelLoad", model_name="linear")
        # The statistics begin anew, and the counters do not.
        assert caller.statistics("linear").inference_stats.success.count == 0
        after = counters()
        assert after.keys() == before.keys()
        assert all(after[key] >= before[key] for key in before)
        caller.infer(linear(caller))
    name = "nv_inference_request_success"
    assert sum(v for k, v in counters().items() if k[0] == name) == 3 + sum(
        v for k, v in before.items() if k[0] == name
    )
    before = counters()
    caller.control("RepositoryModelUnload", model_name="linear")
    assert counters() == before
    caller.control("RepositoryModelLoad", model_name="linear")
    gc.collect()
    assert counters() == before
    # What is gone takes no memory but its counts.
    eventually(lambda: len(server._repository.totals._loads) == 3, "three models are left")


def test_a_request_that_ends_after_its_model_was_replaced_is_counted(
    server, address, caller, eventually
):
    name = "nv_inference_request_failure"
    before = scrape(address).value(name, model="steps", reason="CANCELED")
    with caller.busy_worker() as busy:
        caller.control("RepositoryModelLoad", model_name="steps")
        busy.cancel()
    eventually(
        lambda: scrape(address).value(name, model="steps", reason="CANCELED") == before + 1,
        "it is counted",
    )


def test_what_clients_invent_makes_no_labels(address, caller):
    before = scrape(address)
    for number in range(20):
        attempt(caller.infer, linear(caller, f"none-{number}"))
        attempt(caller.infer, linear(caller, version=str(10 + number)))
        attempt(caller.raw, f"None{number}", b"")
        attempt(caller.channel.unary_unary(f"/x.Y{number}/Z"), b"")
    after = scrape(address)
    new = after.keys() - before.keys()
    # A code that a method had not ended with before.
    assert {name for name, _ in new} <= {
        "grpc_server_handled_total",
        *(f"grpc_server_handling_seconds_{what}" for what in ("bucket", "count", "sum")),
    }
    assert {dict(labels)["grpc_method"] for _, labels in new} <= {"ModelInfer", "unknown"}
    assert after.value("argmax_refused_total", code="NOT_FOUND") == 40 + before.value(
        "argmax_refused_total", code="NOT_FOUND"
    )
    unknown = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_code": "UNIMPLEMENTED"}
    name = "grpc_server_handled_total"
    assert after.value(name, **unknown) == 40 + before.value(name, **unknown)


def test_calls_are_counted_by_their_method_and_code(address, caller, eventually):
    name = "grpc_server_handled_total"

    def handled(method, code, kind="unary"):
        labels = {"grpc_method": method, "grpc_code": code.name, "grpc_type": kind}
        return scrape(address).value(name, **labels)

    live, wrong = handled("ServerLive", Code.OK), handled("ModelConfig", Code.NOT_FOUND)
    health, stream = handled("Check", Code.OK), handled("ModelStreamInfer", Code.OK, "bidi_stream")
    caller.control("ServerLive")
    attempt(caller.control, "ModelConfig", name="none")
    caller.health()
    caller.stream([linear(caller)])
    eventually(lambda: handled("ServerLive", Code.OK) == live + 1, "a control call")
    eventually(lambda: handled("ModelConfig", Code.NOT_FOUND) == wrong + 1, "a failed one")
    eventually(lambda: handled("Check", Code.OK) == health + 1, "a health check")
    eventually(
        lambda: handled("ModelStreamInfer", Code.OK, "bidi_stream") == stream + 1, "a stream"
    )
    counted = scrape(address).value("grpc_server_handling_seconds_count", grpc_method="Check")
    assert counted == handled("Check", Code.OK)


@pytest.mark.parametrize(
    ("ns", "place"),
    [
        (0, 0),
        (1, 0),
        (499_999, 0),
        (500_000, 0),
        (500_001, 1),
        (1_000_000, 1),
        (1_000_001, 2),
        (16_384_000_000, 15),
        (16_384_000_001, 16),
        (2**62, 44),
    ],
)
def test_a_duration_is_in_the_bucket_of_the_first_bound_that_is_not_below_it(ns, place):
    histogram = Histogram(500_000)
    histogram.add(ns)
    assert histogram.buckets.index(1) == place
    bounds = histogram.cumulative(16_384_000_000)
    assert len(bounds) == 16
    assert [count for _, count in bounds] == [int(bound_ns >= ns) for bound_ns, _ in bounds]
    assert (histogram.count, histogram.ns) == (1, ns)
