"""The trace of the caller goes along if the program uses OpenTelemetry."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from recording_proxy import recording_proxy

from client import AsyncClient, Client
from model.export import export
from model.weights import from_seed

FEATURES = 16
X = np.zeros((2, FEATURES), np.float32)
TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACED = [TRACEPARENT], ["vendor=1"]


@pytest.fixture(scope="module")
def server(serve, graphs):
    export(graphs.folder, "linear_argmax", from_seed(2, FEATURES, 0), "float32", 0)
    return serve(graphs.folder)


@pytest.fixture
def proxy(server):
    with recording_proxy(server.address) as proxy:
        yield proxy


@pytest.fixture
def span():
    """A sampled span that another process began."""
    state = TraceState([("vendor", "1")])
    context = SpanContext(TRACE_ID, SPAN_ID, True, TraceFlags(TraceFlags.SAMPLED), state)
    return NonRecordingSpan(context)


def sent(proxy):
    """The trace of each call."""
    return [(parent, state) for _, parent, state in proxy.sent("traceparent", "tracestate")]


def test_every_call_has_the_trace_of_the_current_span(proxy, span):
    with Client(proxy.address) as client, trace.use_span(span):
        client.predict(X)
        list(client.stream([X]))
        client.live()
    assert sent(proxy) == [TRACED] * 5


def test_without_a_current_span_there_is_no_trace(proxy, span):
    with Client(proxy.address) as client:
        client.live()
        with trace.use_span(span):
            pass
        client.live()
    assert sent(proxy) == [([], [])] * 2


def test_a_span_of_the_sdk_is_the_parent(proxy):
    tracer = TracerProvider().get_tracer("test")
    with Client(proxy.address) as client, tracer.start_as_current_span("own") as own:
        client.live()
    context = own.get_span_context()
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert sent(proxy) == [([expected], [])]


def test_a_stream_belongs_to_the_span_in_which_it_was_begun(proxy, span):
    with Client(proxy.address) as client:
        with trace.use_span(span):
            answers = client.stream([X])
        assert len(list(answers)) == 1
    assert sent(proxy)[-1] == TRACED


def test_tasks_of_an_event_loop_have_their_own_spans(proxy):
    tracer = TracerProvider().get_tracer("test")

    async def ask(client):
        with tracer.start_as_current_span("own") as own:
            await client.live()
            answers = [labels async for labels in client.stream([X])]
            assert len(answers) == 1
        return own.get_span_context().trace_id

    async def main():
        async with AsyncClient(proxy.address) as client:
            await client.predict(X)
            proxy.calls.clear()
            return await asyncio.gather(*(ask(client) for _ in range(5)))

    traces = asyncio.run(main())
    got = [int(parent[0].split("-")[1], 16) for parent, _ in sent(proxy)]
    assert sorted(got) == sorted([*traces, *traces])
    assert len(set(traces)) == 5


def test_metadata_of_the_caller_win(proxy, span):
    other = TRACEPARENT.replace("b7", "c8")
    with Client(proxy.address) as client, trace.use_span(span):
        client.live(metadata=[("traceparent", other)])
    assert sent(proxy) == [([other], ["vendor=1"])]


def test_a_program_without_opentelemetry_does_not_import_it(server):
    script = f"""
import sys
import numpy as np
from client import Client
with Client({server.address!r}) as client:
    client.predict(np.zeros((2, {FEATURES}), np.float32))
print([name for name in sys.modules if "opentelemetry" in name])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"
