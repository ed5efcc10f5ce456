"""Spans of requests, as a collector gets them from a real server."""

import os
import socket
import sys
import time

import grpc
import numpy as np
import pytest
from certificates import Authority
from conftest import PATIENCE_S, SERVICE
from otlp_receiver import Receiver, attributes

from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.codec import decode_response

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = SAMPLED[:-1] + "0"
STAGES = ("receive", "decode", "queue", "assemble", "compute")
# OpenTelemetry waits so long before it sends spans.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    export(graphs.folder, "other", from_seed(4, 8, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module", autouse=True)
def environment():
    """OpenTelemetry's variables, for servers in this process and in others."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SOON.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def caller(serve, call, models, receiver):
    return call(serve(models, trace_otlp=receiver.address).address)


@pytest.fixture
def traces(receiver, caller, eventually):
    """A function that waits for so many new traces, and gives them."""
    caller.control("TraceSetting", settings=changes(trace_level=(), trace_rate=(), trace_count=()))
    seen = len(receiver.traces())

    def wait(count):
        eventually(lambda: len(receiver.traces()) >= seen + count, f"{count} traces")
        found = receiver.traces()[seen:]
        assert len(found) == count
        return found

    return wait


def changes(**values):
    return {
        name: pb.TraceSettingRequest.SettingValue(
            value=[value] if isinstance(value, str) else value
        )
        for name, value in values.items()
    }


def infer(caller, *traceparents, model="linear", timings=False, **more):
    message = caller.message(
        model,
        x=np.ones((2, 8), np.float32),
        parameters={"timings": True} if timings else None,
        **more,
    )
    metadata = [("traceparent", each) for each in traceparents]
    method = caller.channel.unary_unary(SERVICE + "ModelInfer")
    return decode_response(method(message, metadata=metadata, timeout=PATIENCE_S))


def inside(inner, outer):
    return (
        outer.start_time_unix_nano <= inner.start_time_unix_nano
        and inner.end_time_unix_nano <= outer.end_time_unix_nano
    )


def test_spans_are_nested_and_last_as_long_as_the_answer_says(caller, traces):
    before_ns = time.time_ns()
    answer = infer(caller, SAMPLED, timings=True, id="seven")
    (trace,) = traces(1)
    assert (
        {*STAGES, "InferRequest", "linear"}
        <= trace.names
        <= {*STAGES, "InferRequest", "linear", "encode"}
    )
    root = trace.root
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    parents = dict.fromkeys(("receive", "decode", "linear"), "InferRequest")
    parents |= dict.fromkeys(("queue", "assemble", "compute"), "linear")
    assert {name: trace.parent_of(name) for name in parents} == parents
    for name, parent in parents.items():
        assert inside(trace.only(name), trace.only(parent)), name
    for name in STAGES:
        span = trace.only(name)
        took_ns = span.end_time_unix_nano - span.start_time_unix_nano
        assert took_ns == answer.parameters[f"{name}_ns"], name
    starts = [trace.only(name).start_time_unix_nano for name in STAGES]
    assert starts == sorted(starts)
    assert abs(root.start_time_unix_nano - before_ns) < 60e9


def test_a_span_says_what_the_request_was(caller, traces):
    answer = infer(caller, SAMPLED, id="seven")
    (trace,) = traces(1)
    assert trace.resource["service.name"] == "argmax-server"
    known = attributes(trace.root)
    assert known.pop("argmax.request_bytes") > 64
    assert known.pop("argmax.response_bytes") > 0
    assert known.pop("argmax.close_reason") in ("full", "idle")
    assert known == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "triton.model_name": answer.model_name,
        "triton.model_version": "1",
        "triton.request_id": "seven",
        "argmax.rows": 2,
        "argmax.batch_rows": 2,
        "argmax.execution_provider": "CPUExecutionProvider",
    }


def test_each_message_of_a_stream_has_spans(caller, traces):
    message = caller.message("linear", x=np.ones((2, 8), np.float32))
    stream = caller.channel.stream_stream(SERVICE + "ModelStreamInfer")
    metadata = [("traceparent", SAMPLED)]
    assert len(list(stream(iter([message] * 3), metadata=metadata, timeout=PATIENCE_S))) == 3
    for trace in traces(3):
        assert trace.names >= {"linear", "compute"}
        assert trace.root.parent_span_id.hex() == SPAN_ID


def test_a_request_that_fails_has_a_span_with_its_code(caller, traces):
    parent = SAMPLED.replace("0af", "1af")
    with pytest.raises(grpc.RpcError):
        infer(caller, parent, model="nobody")
    (trace,) = traces(1)
    known = attributes(trace.root)
    assert (known["rpc.grpc.status_code"], known["triton.model_name"]) == (5, "nobody")
    assert "nobody" not in trace.names


@pytest.mark.parametrize("traceparents", [(), (UNSAMPLED,), ("nonsense",), (SAMPLED.upper(),)])
def test_a_call_that_does_not_ask_for_it_is_not_traced(caller, traces, traceparents):
    infer(caller, *traceparents)
    infer(caller, SAMPLED.replace("0af", "2af"))
    (trace,) = traces(1)
    assert trace.root.trace_id.hex().startswith("2af")


def test_a_share_of_requests_is_traced_whoever_sends_them(caller, traces):
    caller.control("TraceSetting", settings=changes(trace_rate="3"))
    for _ in range(3):
        infer(caller)
        infer(caller, UNSAMPLED)
        infer(caller, "nonsense")
    found = traces(2)
    assert all(not trace.root.parent_span_id for trace in found)


def test_a_model_may_have_its_own_settings(caller, traces):
    caller.control(
        "TraceSetting", model_name="other", settings=changes(trace_rate="1", trace_count="2")
    )
    for _ in range(4):
        infer(caller)
        infer(caller, model="other")
    assert {attributes(trace.root)["triton.model_name"] for trace in traces(2)} == {"other"}
    shown = caller.control("TraceSetting", model_name="other").settings
    assert shown["trace_count"].value == ["0"]
    caller.control(
        "TraceSetting", model_name="other", settings=changes(trace_rate=(), trace_count=())
    )
    assert caller.control("TraceSetting", model_name="other").settings["trace_count"].value == [
        "-1"
    ]


def test_with_the_level_off_nothing_is_traced(caller, traces):
    caller.control("TraceSetting", settings=changes(trace_level="OFF", trace_rate="1"))
    infer(caller)
    infer(caller, SAMPLED)
    caller.control("TraceSetting", settings=changes(trace_level="TIMESTAMPS"))
    infer(caller)
    (trace,) = traces(1)
    assert not trace.root.parent_span_id


def test_a_bad_setting_changes_none(caller, traces):
    bad = changes(trace_rate="1", trace_level="TENSORS", trace_count="5")
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("TraceSetting", settings=bad)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "trace_level" in caught.value.details()
    shown = {
        name: list(each.value) for name, each in caller.control("TraceSetting").settings.items()
    }
    assert shown == {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": ["0"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
        "trace_file": [""],
        "trace_mode": ["opentelemetry"],
    }


def test_settings_of_an_unknown_model_are_not_found(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("TraceSetting", model_name="nobody", settings=changes(trace_rate="1"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_collector_with_tls_is_reached_by_https(launch, call, models, monkeypatch, tmp_path):
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.sign("collector")
    pair = (key.read_bytes(), certificate.read_bytes())
    receiver = Receiver(grpc.ssl_server_credentials([pair]))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.certificate))
    server = launch(models, "--trace-otlp", f"https://{receiver.address}", "--trace-rate", "1")
    infer(call(server.address))
    assert server.stop() == 0
    assert len(receiver.traces()) == 1
    receiver.close()


def listening():
    """A port at which connections are not taken: a collector that stands still."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(1)
    return sock


@pytest.mark.parametrize("answering", [False, None])
def test_an_unreachable_collector_holds_up_neither_requests_nor_the_end(
    launch, call, models, answering
):
    collector = listening()
    address = f"127.0.0.1:{collector.getsockname()[1]}"
    if answering is None:
        collector.close()
    server = launch(models, "--trace-otlp", address, "--trace-rate", "1")
    caller = call(server.address)
    for _ in range(300):
        infer(caller, timings=True)
    began_s = time.monotonic()
    assert server.stop() == 0
    # Exporters wait 10 s for a collector, and as long for what is left.
    assert time.monotonic() - began_s < 10
    assert len([line for line in server.said() if "traces" in line]) == 1
    collector.close()


def test_what_waits_is_sent_before_the_end(launch, call, models, receiver, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    server = launch(models, "--trace-otlp", receiver.address)
    infer(call(server.address), SAMPLED.replace("0af", "3af"))
    assert server.stop() == 0
    (trace,) = (each for each in receiver.traces() if each.root.trace_id.hex().startswith("3af"))
    assert trace.resource["deployment.environment"] == "test"
    assert receiver.metadata["x-tenant"] == "blue"


def test_with_opentelemetry_disabled_no_span_is_sent(launch, call, models, receiver, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    server = launch(models, "--trace-otlp", receiver.address)
    infer(call(server.address), SAMPLED.replace("0af", "5af"))
    assert server.stop() == 0
    assert not [each for each in receiver.traces() if each.root.trace_id.hex().startswith("5af")]


def test_the_rate_needs_a_collector(refusal, models):
    line = refusal("--models", models, "--trace-rate", "1/10", "--validation", "off")
    assert line == "got --trace-rate 1/10 alone, expected --trace-otlp"


def test_without_its_packages_the_extra_is_named(refusal, models, monkeypatch, receiver):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp", None)
    monkeypatch.delitem(sys.modules, "server.app.observers.otlp", raising=False)
    for name in list(sys.modules):
        if name.startswith("opentelemetry.exporter.otlp."):
            monkeypatch.delitem(sys.modules, name)
    line = refusal("--models", models, "--trace-otlp", receiver.address, "--validation", "off")
    assert line.startswith("--trace-otlp needs the extra [otel]: run `pip install")


def test_a_bad_variable_of_opentelemetry_is_named(refusal, models, monkeypatch, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none-such")
    line = refusal("--models", models, "--trace-otlp", receiver.address, "--validation", "off")
    assert "none-such" in line
    assert os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] == "none-such"
