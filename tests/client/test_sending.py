"""Arrays are sent from their own memory, and what the caller does with them changes no answer."""

import contextlib
import gc
import itertools
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from clear_examples import clear_examples
from conftest import PATIENCE_S, ROOT

from client import Client, DeadlineExceeded, UsageError
from client.batch import Batch
from client.connection.blocking import Blocking
from client.connection.calls import Connection
from client.connection.infer_stream import Iterated
from client.connection.waiting import each
from client.message_size import MessageLimit
from client.model_input import ModelInput
from client.unanswered import Unanswered
from model.export import export
from model.weights import from_seed
from protos.codec import (
    InferRequest,
    InferResponse,
    decode_response,
    encode_response,
    request_pieces,
)
from protos.tensors import Tensor

CLASSES, FEATURES, ROWS = 8, 16384, 256


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


@pytest.fixture(scope="module", params=["grpcio", "native"])
def server(request, serve, models):
    """A server that takes little of a stream ahead."""
    limits = {"group_rows": 4, "max_stream_bytes": 2**22, "max_inflight_bytes": 2**25}
    return serve(models, transport=request.param, **limits)


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.mark.parametrize("rows", [1, 128])
def test_the_memory_of_a_batch_may_be_used_for_the_next_one(client, examples, rows):
    x, labels = examples
    buffer = np.empty((rows, FEATURES), np.float32)

    def batches():
        for start in range(0, ROWS, rows):
            buffer[:] = x[start : start + rows]
            yield buffer

    np.testing.assert_array_equal(np.concatenate(list(client.stream(batches()))), labels)


@pytest.mark.parametrize("stable", [False, True])
def test_batches_in_any_iterable_are_answered(client, examples, stable):
    x, labels = examples
    parts = np.split(x, 8)
    for batches in (parts, tuple(parts), iter(parts)):
        got = np.concatenate(list(client.stream(batches, stable=stable)))
        np.testing.assert_array_equal(got, labels)


def test_an_array_may_be_changed_once_its_request_sent_ahead_is_answered(server, examples):
    x, labels = examples
    buffer = np.empty((64, FEATURES), np.float32)
    got = []
    with contextlib.closing(Connection((server.address,))) as connection:
        for start in range(0, ROWS, 64):
            buffer[:] = x[start : start + 64]
            request = InferRequest("linear_argmax", (Tensor.of("x", buffer),))
            answered = threading.Event()

            def done(outcome, answered=answered):
                buffer[:] = 0
                got.append(outcome)
                answered.set()

            connection.infer_later(request_pieces(request), PATIENCE_S, done)
            assert answered.wait(PATIENCE_S)
    answers = [decode_response(outcome)["label"] for outcome in got]
    np.testing.assert_array_equal(np.concatenate(answers), labels)


def test_answers_cannot_be_written_to():
    answer = InferResponse("m", (Tensor.of("scores", np.ones(3)),))
    received = memoryview(bytearray(encode_response(answer)))
    assert not decode_response(received)["scores"].flags.writeable


def test_a_client_works_on_after_exceptions_of_signals(client, examples):
    x, labels = examples
    draw = random.Random(0)

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for _ in range(30):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, 2e-2))
                while True:
                    client.infer({"x": x}, ["label"])
            except Interrupted:
                interrupted += 1
            np.testing.assert_array_equal(client.predict(x[:3]), labels[:3])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 30


def test_a_client_that_nobody_closes_ends_its_threads(server, examples, eventually):
    before = set(threading.enumerate())
    client = Client(server.address)
    client.predict(examples[0][:1])
    names = ("grpc-channel", "grpc-connect", "grpc-unpack-0")
    started = [each for each in threading.enumerate() if each not in before and each.name in names]
    assert len(started) == len(names)
    del client
    gc.collect()
    eventually(lambda: not any(thread.is_alive() for thread in started), "they have ended")


def test_a_deadline_holds_while_a_server_takes_nothing(launch, models, examples):
    x, labels = examples
    process = launch(models)
    large = np.broadcast_to(x[:1], (2048, FEATURES))
    with (
        Client(process.address, deadline_s=PATIENCE_S) as patient,
        Client(process.address, deadline_s=0.5) as hasty,
    ):
        for each in (patient, hasty):
            np.testing.assert_array_equal(each.predict(x[:3]), labels[:3])
        process.freeze()
        for ask in (hasty.predict, lambda x: list(hasty.stream([x]))):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                ask(large)
            assert time.monotonic() - started < 10
        process.popen.send_signal(signal.SIGCONT)
        np.testing.assert_array_equal(patient.predict(x[:3]), labels[:3])
        np.testing.assert_array_equal(hasty.predict(x[:3]), labels[:3])


def test_a_request_over_the_protocols_limit_is_a_usage_error(client):
    with pytest.raises(UsageError, match="at most 2147483647"):
        client.infer({"x": np.zeros((1, 2**29), np.float32)})


def test_the_library_needs_no_grpcio(server, examples):
    x, labels = examples
    script = f"""
import sys
sys.modules["grpc"] = None
from client import Client
import numpy as np
x = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(-1, {FEATURES})
with Client({server.address!r}) as client:
    print(client.predict(x).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=x[:5].tobytes(),
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stderr.decode() == ""
    assert done.stdout.decode() == f"{labels[:5].tolist()}\n"


def test_a_process_ends_that_closes_neither_its_client_nor_its_shared_memory(server, examples):
    script = f"""
from client import Client
import numpy as np
client = Client({server.address!r})
shared = client.shared(np.zeros((1, {FEATURES}), np.float32))
shared.__enter__()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


# --- what is kept of a stream until it is answered

SPEC = {"x": ModelInput("x", np.dtype(np.float32), (4,))}
LIMIT = MessageLimit(32, None)


def unanswered(arrays, *, stable=False):
    """Messages of two rows each, which are the rows' bytes alone."""
    batches = (Batch.of(SPEC, {"x": array}) for array in arrays)

    def encode(batch, part, request_id, more_follows):
        return [batch.tensors(part)[0].data.reshape(-1).view(np.uint8).data]

    return Unanswered(Iterated(batches), encode, LIMIT, Blocking(), stable=stable)


def messages_of(kept):
    """What a new stream sends."""
    return each(kept.messages())


def first_numbers(messages):
    return [np.frombuffer(b"".join(pieces), np.float32)[0] for pieces in messages]


def overwritten(count, dtype=np.float32):
    """Batches of two messages that lie in the same memory, whose rows hold their number."""
    buffer = np.empty((4, 4), dtype)
    for number in range(count):
        buffer[:] = 2 * number
        buffer[2:] += 1
        yield buffer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_messages_without_an_answer_can_be_sent_again_when_their_memory_is_in_use(dtype):
    kept = unanswered(overwritten(3, dtype))
    assert first_numbers(itertools.islice(messages_of(kept), 5)) == [0, 1, 2, 3, 4]
    kept.answer()
    assert first_numbers(messages_of(kept)) == [1, 2, 3, 4, 5]


def test_stable_messages_are_never_copied():
    arrays = [np.full((4, 4), number, np.float32) for number in range(3)]
    for _ in range(2):
        kept = unanswered(arrays, stable=True)
        for at, (view,) in enumerate(messages_of(kept)):
            assert np.shares_memory(np.frombuffer(view, np.uint8), arrays[at // 2])


def test_what_was_converted_is_not_copied_again():
    kept = unanswered(overwritten(3, np.float64))
    first = next(messages := messages_of(kept))
    next(messages), next(messages)
    assert next(messages_of(kept)) is first


def test_the_thread_of_a_broken_stream_draws_no_more_batches():
    kept = unanswered(overwritten(3))
    broken = messages_of(kept)
    assert first_numbers(itertools.islice(broken, 2)) == [0, 1]
    new = messages_of(kept)
    (again,) = next(new)
    assert list(broken) == []
    # It still lies in the batch that was drawn first.
    assert np.frombuffer(again, np.float32)[0] == 0
    assert first_numbers(new) == [1, 2, 3, 4, 5]
