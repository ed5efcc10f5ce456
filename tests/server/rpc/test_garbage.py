import gc
import threading
from functools import partial

import grpc
import numpy as np
import pytest

from model.export import export
from model.weights import from_seed
from protos import malloc
from transport.serving.handler import CallHandler
from transport.serving.server_call import ServerCall

FEATURES = 16
Code = grpc.StatusCode
THREADS = 2
CALLS = 10
MOST_BYTES = 2**16


@pytest.fixture(scope="module")
def caller(graphs, serve, call):
    export(graphs.folder, "linear", from_seed(4, FEATURES, 0), "float32", 0)
    options = {"workers": THREADS, "max_streams": THREADS, "max_message_bytes": MOST_BYTES}
    return call(serve(graphs.folder, **options).address)


@pytest.fixture
def _no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def good(caller):
    return caller.message("linear", x=np.zeros((1, FEATURES), np.float32))


def narrow(caller):
    return caller.message("linear", x=np.zeros((1, FEATURES - 1), np.float32))


def good_again(caller):
    assert status(lambda: caller.infer(good(caller))) is Code.OK


def status(ask):
    """Call; the status, whatever it is."""
    try:
        ask()
    except grpc.RpcError as error:
        return error.code()
    return Code.OK


def unary(message, code):
    def ask(caller):
        assert status(lambda: caller.infer(message(caller))) is code

    return ask


def stream(messages, *, errors_end_it=False, code=Code.OK):
    def ask(caller):
        sent = [message(caller) for message in messages]
        assert status(lambda: caller.stream(sent, errors_end_it=errors_end_it)) is code

    return ask


def cancelled_stream(later):
    """Cancelled once the first answer is there, with messages like `later` under way."""

    def ask(caller):
        silence = threading.Event()

        def messages():
            yield good(caller)
            yield from [message(caller) for message in later]
            silence.wait(20)

        call = caller.open_stream(messages())
        # Those before may be about to end.
        while (code := status(partial(next, call))) is Code.RESOURCE_EXHAUSTED:
            call = caller.open_stream(messages())
        assert code is Code.OK
        call.cancel()
        silence.set()

    return ask


def cancelled(caller):
    caller.infer_later(good(caller)).cancel()


def late(caller):
    code = status(lambda: caller.infer(good(caller), timeout=1e-6))
    assert code in (Code.OK, Code.DEADLINE_EXCEEDED)


WAYS = {
    "unary": unary(good, Code.OK),
    "unary, refused": unary(narrow, Code.INVALID_ARGUMENT),
    "unary, malformed": unary(lambda _: b"\xff", Code.INVALID_ARGUMENT),
    "unary, too large": unary(lambda _: bytes(MOST_BYTES + 1), Code.RESOURCE_EXHAUSTED),
    "unary, late": late,
    "unary, cancelled": cancelled,
    "stream": stream([good, good]),
    "stream with an error": stream([good, narrow, good]),
    "stream that an error ends": stream([narrow], errors_end_it=True, code=Code.INVALID_ARGUMENT),
    "stream, cancelled": cancelled_stream([]),
    "stream, cancelled with messages under way": cancelled_stream([good] * 5),
    "stream, cancelled with errors under way": cancelled_stream([narrow] * 5),
}


def held_calls():
    """Calls, and what answers them, that the server still holds."""
    return sum(isinstance(each, (ServerCall, CallHandler)) for each in gc.get_objects())


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_a_call_that_ended_needs_no_collector_to_be_let_go_of(caller, ask, eventually):
    good_again(caller)
    before = held_calls()
    for _ in range(CALLS):
        ask(caller)
    # What was cancelled may still be on its way; this comes behind it.
    good_again(caller)
    eventually(lambda: held_calls() <= before, "no call is held")


@pytest.mark.usefixtures("_no_collector")
def test_giving_memory_back_leaves_nothing_to_collect():
    malloc.give_back()
    assert gc.collect() == 0
