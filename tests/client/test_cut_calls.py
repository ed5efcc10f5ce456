"""Calls that something between client and server cuts are sent again; an error of a server is not.

The proxy here forwards each call to a server, and ends it as the proxies do that people run:
haproxy and Envoy reset streams with CANCEL, nginx with INTERNAL_ERROR, others answer CANCELLED.
"""

import asyncio
import contextlib
import threading
from functools import partial

import numpy as np
import pytest
from clear_examples import clear_examples
from conftest import PATIENCE_S

from client import AsyncClient, Interrupted, RequestFailed, RetryPolicy
from client.client import Client
from model.export import export
from model.weights import from_seed
from transport.calling.channel import Channel
from transport.http2.frames import ErrorCode
from transport.serving.handler import CallHandler
from transport.serving.server import Server
from transport.status import Code, Status

CLASSES, FEATURES, ROWS = 8, 64, 16
AT_ONCE = RetryPolicy(initial_backoff_s=0.001)
INFERENCE = ("ModelInfer", "ModelStreamInfer")


class Passed(CallHandler):
    """A call that is forwarded, and cut when so many answers were passed on."""

    open_ended = True

    def __init__(self, proxy, path, call):
        self._proxy, self._call = proxy, call
        self._cut = proxy.next_cut() if path.rpartition("/")[2] in INFERENCE else None
        self._passed = 0
        self._ended = False
        self._lock = threading.RLock()  # its end cancels, which calls back
        self._out = proxy.channel.stream_stream(path)(None, None, (("triton_grpc_error", "true"),))
        self._out.listen(self._answers)
        self._out.add_done_callback(lambda _: self._answers())

    def message(self, message):
        if self._cut is not None and self._cut[0] == 0:
            self._end(self._cut[1])
            return
        self._out.send_soon([bytes(message)], lambda _: None)

    def half_closed(self):
        self._out.half_close()

    def cancelled(self):
        self._out.cancel()
        self._proxy.cancelled.set()

    def _answers(self):
        with self._lock:
            done = self._out.done()
            while not self._ended and (answer := self._out.take()) is not None:
                self._call.send([bytes(answer)])
                self._passed += 1
                if self._cut is not None and self._passed == self._cut[0]:
                    self._end(self._cut[1])
            if done and not self._ended:
                self._ended = True
                self._call.finish(self._out.status())

    def _end(self, end):
        self._ended = True
        if isinstance(end, Status):
            self._call.finish(end)
        elif end is not None:
            self._call.reset(end)
        else:
            self._proxy.held.set()
            return
        self._out.cancel()


class Proxy:
    """Cuts the first calls of inference: pairs of a number of answers, and how it ends then.

    An end is a status, a code of a reset, or None: the call is held.
    """

    def __init__(self, server, *cuts):
        self.channel = Channel(server)
        self._cuts = list(cuts)
        self.calls = 0
        self.held, self.cancelled = threading.Event(), threading.Event()
        self._server = Server(["127.0.0.1:0"], lambda path: partial(Passed, self, path))
        self.address = self._server.addresses[0]

    def next_cut(self):
        self.calls += 1
        return self._cuts.pop(0) if self._cuts else None

    def close(self):
        self._server.stop()
        self.channel.close()


@pytest.fixture(scope="module")
def server(graphs, serve):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return serve(graphs.folder).address


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


@pytest.fixture
def proxy(server):
    """Start a proxy that cuts calls."""
    with contextlib.ExitStack() as stack:

        def start(*cuts):
            started = Proxy(server, *cuts)
            stack.callback(started.close)
            return started

        yield start


CUTS = [
    pytest.param(ErrorCode.CANCEL, id="reset-CANCEL"),
    pytest.param(ErrorCode.INTERNAL_ERROR, id="reset-INTERNAL_ERROR"),
    pytest.param(ErrorCode.STREAM_CLOSED, id="reset-STREAM_CLOSED"),
    pytest.param(ErrorCode.REFUSED_STREAM, id="reset-REFUSED_STREAM"),
    pytest.param(Status(Code.CANCELLED, "the upstream is gone"), id="CANCELLED"),
    pytest.param(Status(Code.UNAVAILABLE, "the upstream is gone"), id="UNAVAILABLE"),
]
ERRORS = [
    pytest.param(Status(Code.INTERNAL, "a bug of the server"), "INTERNAL", id="INTERNAL"),
    pytest.param(Status(Code.UNKNOWN, "an exception"), "UNKNOWN", id="UNKNOWN"),
    pytest.param(ErrorCode.ENHANCE_YOUR_CALM, "RESOURCE_EXHAUSTED", id="reset-CALM"),
]


@pytest.mark.parametrize("end", CUTS)
def test_a_request_that_is_cut_is_sent_again(proxy, examples, end):
    x, labels = examples
    # Before its answer, then after it: neither has a status that decides.
    cutting = proxy((0, end), (1, end))
    with Client(cutting.address, deadline_s=PATIENCE_S, retry=AT_ONCE) as client:
        np.testing.assert_array_equal(client.predict(x), labels)
    # One that is refused unseen is sent again by the transport.
    assert cutting.calls == 3


@pytest.mark.parametrize("end", CUTS)
def test_a_stream_that_is_cut_goes_on_where_it_was(proxy, examples, end):
    x, labels = examples
    cutting = proxy((0, end), (3, end), (1, end))
    batches = [x[row : row + 1] for row in range(ROWS)]
    with Client(cutting.address, deadline_s=PATIENCE_S, retry=AT_ONCE) as client:
        np.testing.assert_array_equal(np.concatenate(list(client.stream(batches))), labels)
    assert cutting.calls == 4


def test_the_asyncio_client_sends_again_too(proxy, examples):
    x, labels = examples
    cutting = proxy((0, ErrorCode.CANCEL), (2, ErrorCode.INTERNAL_ERROR))

    async def ask():
        async with AsyncClient(cutting.address, deadline_s=PATIENCE_S, retry=AT_ONCE) as client:
            return [part async for part in client.stream([x[:5], x[5:9], x[9:]])]

    np.testing.assert_array_equal(np.concatenate(asyncio.run(ask())), labels)
    assert cutting.calls == 3


@pytest.mark.parametrize(("end", "code"), ERRORS)
def test_an_error_of_the_server_is_not_sent_again(proxy, examples, end, code):
    x, _ = examples
    for ask in (lambda client: client.predict(x), lambda client: list(client.stream([x]))):
        refusing = proxy((0, end))
        with (
            Client(refusing.address, deadline_s=PATIENCE_S, retry=AT_ONCE) as client,
            pytest.raises(RequestFailed) as caught,
        ):
            ask(client)
        assert caught.value.code == code
        assert type(caught.value) is RequestFailed
        assert refusing.calls == 1


@pytest.mark.parametrize(
    ("end", "code"), [(ErrorCode.CANCEL, "CANCELLED"), (ErrorCode.INTERNAL_ERROR, "INTERNAL")]
)
def test_what_is_always_cut_fails_after_the_attempts(proxy, examples, end, code):
    x, _ = examples
    for ask in (lambda client: client.predict(x), lambda client: list(client.stream([x]))):
        cutting = proxy(*[(0, end)] * 10)
        with (
            Client(cutting.address, deadline_s=PATIENCE_S, retry=AT_ONCE) as client,
            pytest.raises(Interrupted, match=f"^{code}: the server reset the stream"),
        ):
            ask(client)
        assert cutting.calls == AT_ONCE.attempts


def test_what_the_caller_cancels_is_not_sent_again(proxy, examples):
    x, _ = examples
    held = proxy((0, None))

    async def cancel():
        async with AsyncClient(held.address, deadline_s=PATIENCE_S, retry=AT_ONCE) as client:
            asking = asyncio.create_task(client.predict(x))
            await asyncio.to_thread(held.held.wait, PATIENCE_S)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.to_thread(held.cancelled.wait, PATIENCE_S)
            assert held.calls == 1
            # The client goes on, with one call more.
            await client.predict(x)

    asyncio.run(cancel())
    assert held.cancelled.is_set()
    assert held.calls == 2


def test_calls_of_a_client_that_is_closed_are_not_sent_again(proxy, examples):
    x, _ = examples
    held = proxy((0, None))
    failed = []
    client = Client(held.address, deadline_s=PATIENCE_S, retry=AT_ONCE)

    def ask():
        with pytest.raises(RequestFailed) as caught:
            client.predict(x)
        failed.append(caught.value)

    asking = threading.Thread(target=ask)
    asking.start()
    assert held.held.wait(PATIENCE_S)
    client.close()
    asking.join(PATIENCE_S)
    assert [error.code for error in failed] == ["CANCELLED"]
    assert held.calls == 1


def test_hedging_asks_the_next_server_at_once_where_a_call_was_cut(proxy, server, examples):
    x, labels = examples
    cutting = proxy(*[(0, ErrorCode.CANCEL)] * 10)
    once = RetryPolicy(attempts=1)
    addresses = [cutting.address, server]
    with Client(addresses, deadline_s=PATIENCE_S, retry=once, hedge_after_s=PATIENCE_S) as client:
        for _ in range(2):
            np.testing.assert_array_equal(client.infer({"x": x}, ["label"])["label"], labels)
    assert cutting.calls == 1
