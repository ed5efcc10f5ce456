import contextlib
import itertools
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import numpy as np
import pytest
from clear_examples import clear_examples
from conftest import PATIENCE_S
from onnx import helper

from client.client import Client
from client.connection.channel import RetryPolicy
from client.errors import DeadlineExceeded, RequestFailed, Unavailable, UsageError
from client.message_size import LEAST_BYTES
from client.model_input import ModelInput
from examples.refusing_proxy import refusing_proxy
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 64, 4096, 600
NEVER = RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def models(graphs):
    weights = from_seed(CLASSES, FEATURES, 0)
    export(graphs.folder, "linear_argmax", weights, "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(models)


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture
def steps_client(server):
    with Client(server.address, "steps", output="done") as client:
        yield client


def answered(client):
    """Count the messages that were answered."""
    return client.statistics().inference_stats.success.count


def test_one_row_gets_one_label(client, examples):
    x, labels = examples
    for at in range(5):
        label = client.predict(x[at])
        assert (label.dtype, label.shape) == (np.int64, (1,))
        assert label[0] == labels[at]


def test_rows_get_their_labels_in_order(client, examples):
    x, labels = examples
    before = answered(client)
    np.testing.assert_array_equal(client.predict(x[:100]), labels[:100])
    assert answered(client) == before + 1


def test_rows_may_lie_in_memory_in_any_way(client, examples):
    x, labels = examples
    np.testing.assert_array_equal(client.predict(x[40::-2]), labels[40::-2])
    np.testing.assert_array_equal(client.predict(np.asfortranarray(x[:9])), labels[:9])
    np.testing.assert_array_equal(client.predict(x[:9].astype(">f4")), labels[:9])
    np.testing.assert_array_equal(client.predict(x[:9].astype(np.float64)), labels[:9])


def test_a_large_input_goes_as_several_messages(client, examples):
    x, labels = examples
    assert x.nbytes > LEAST_BYTES
    before = answered(client)
    np.testing.assert_array_equal(client.predict(x), labels)
    assert answered(client) - before == -(-x.nbytes // LEAST_BYTES)


def test_batches_of_any_size_share_a_stream(client, examples):
    x, labels = examples
    sizes = [1, 100, 7, 300, 64]
    starts = np.cumsum([0, *sizes])
    batches = [x[a:b] for a, b in itertools.pairwise(starts)]
    for at, size, got in zip(starts, sizes, client.stream(batches), strict=False):
        np.testing.assert_array_equal(got, labels[at : at + size])


def test_a_stream_of_nothing_yields_nothing(client):
    assert list(client.stream([])) == []


def test_an_endless_stream_can_be_left(client, examples, eventually):
    x, labels = examples
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield x[:64]

    with contextlib.closing(client.stream(endless())) as stream:
        for _ in range(5):
            np.testing.assert_array_equal(next(stream), labels[:64])
    # Whoever draws learns of the end at the next message.
    seen = -1

    def still():
        nonlocal seen
        last, seen = seen, drawn
        # As long as the server would take for another batch.
        np.testing.assert_array_equal(client.predict(x[:64]), labels[:64])
        return last == drawn

    eventually(still, "no more batches are drawn")


def test_nothing_is_drawn_before_the_first_label_is_asked_for(client, examples):
    drawn = []
    stream = client.stream(drawn.append(1) or batch for batch in [examples[0][:1]])
    assert drawn == []
    assert len(next(stream)) == 1
    assert drawn == [1]
    stream.close()


def test_batches_are_drawn_no_faster_than_the_server_takes_them(serve, models, examples):
    x, _ = examples
    window = 4 * x[:64].nbytes
    server = serve(models, group_rows=2, max_stream_bytes=window, max_inflight_bytes=2 * window)
    batches, drawn = 400, 0

    def counted():
        nonlocal drawn
        for _ in range(batches):
            drawn += 1
            yield x[:64]

    labels = []
    with Client(server.address) as client:
        client.predict(x[:1])
        stream = client.stream(counted())
        labels.append(next(stream))
        most_ahead = 0
        for number, got in enumerate(stream, 1):
            most_ahead = max(most_ahead, drawn - number)
            labels.append(got)
    assert len(labels) == batches
    # Four in the window, the rest in the buffers of the connection: 11 in all on a quiet machine.
    assert most_ahead < batches / 8


def test_the_array_may_be_changed_once_predict_returned(client, examples):
    x, labels = examples
    for rows in (50, ROWS):
        mine = x[:rows].copy()
        got = client.predict(mine)
        mine[:] = 0
        np.testing.assert_array_equal(got, labels[:rows])


def test_one_client_serves_many_threads(client, examples):
    x, labels = examples
    wrong = []

    def ask(first):
        for at in range(first, first + 40):
            size = 1 + at % 9
            got = client.predict(x[at : at + size])
            if not np.array_equal(got, labels[at : at + size]):
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(30 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("shape", [(), (7,), (2, 7), (1, 2, FEATURES), (FEATURES, 1)])
def test_rows_of_another_width_are_a_usage_error(client, shape):
    with pytest.raises(UsageError, match=rf"\[n, {FEATURES}\]"):
        client.predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", ["complex64", "<U3", "datetime64[s]", "timedelta64[s]"])
def test_rows_of_another_kind_are_a_usage_error(client, dtype):
    with pytest.raises(UsageError, match=re.escape(f"input 'x' has dtype {dtype}")):
        client.predict(np.zeros((2, FEATURES), dtype))


def test_a_wrong_batch_in_a_stream_is_a_usage_error_after_the_labels_before_it(client, examples):
    x, labels = examples
    stream = client.stream([x[:3], x[3:5, :-1], x[5:]])
    np.testing.assert_array_equal(next(stream), labels[:3])
    with pytest.raises(UsageError, match=str(FEATURES - 1)):
        next(stream)


def test_what_the_callers_own_iterator_raises_comes_out(client, examples):
    x, labels = examples

    def broken():
        yield x[:2]
        raise KeyError("mine")

    stream = client.stream(broken())
    np.testing.assert_array_equal(next(stream), labels[:2])
    with pytest.raises(KeyError, match="mine"):
        next(stream)


def test_without_rows_the_answer_is_empty(client, examples):
    before = answered(client)
    label, scores = client.predict(examples[0][:0]), client.predict(examples[0][:0], "scores")
    assert (label.dtype, label.shape) == (np.int64, (0,))
    assert (scores.dtype, scores.shape) == (np.float32, (0, CLASSES))
    assert answered(client) == before
    with pytest.raises(UsageError, match=rf"\[n, {FEATURES}\]"):
        client.predict(examples[0][:0, :-1])


def test_a_batch_without_rows_in_a_stream_is_a_usage_error(client, examples):
    x, labels = examples
    stream = client.stream([x[:1], x[:0]])
    np.testing.assert_array_equal(next(stream), labels[:1])
    with pytest.raises(UsageError, match="batch 1 of the stream has no rows"):
        next(stream)


def test_predict_needs_a_model_of_one_input(serve, graphs):
    row = ("float32", ["batch", 2])
    add = helper.make_node("Add", ["a", "b"], ["label"])
    graphs.add("two_inputs", [add], {"a": row, "b": row}, {"label": row})
    with (
        Client(serve(graphs.folder).address, "two_inputs") as client,
        pytest.raises(UsageError, match="'a', 'b'"),
    ):
        client.predict(np.zeros((1, 2), np.float32))


def test_an_error_of_the_server_keeps_its_code_and_text(server):
    with Client(server.address, "nobody") as client, pytest.raises(RequestFailed) as caught:
        client.predict(np.zeros((1, FEATURES), np.float32))
    assert caught.value.code == "NOT_FOUND"
    assert "'nobody'" in caught.value.text


def test_a_refused_message_ends_a_stream_with_its_code(server, examples):
    wide = ModelInput("x", np.dtype("float32"), (-1,))
    with Client(server.address, takes=wide) as client, pytest.raises(RequestFailed) as caught:
        list(client.stream([examples[0][:10], examples[0][:11, :-1]]))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert str(FEATURES - 1) in caught.value.text


def test_statistics_tell_what_the_model_did(client, examples):
    before = client.statistics()
    client.predict(examples[0][:7])
    after = client.statistics()
    assert after.name == "linear_argmax"
    assert after.inference_count - before.inference_count == 7


def test_live_and_ready(client, server):
    assert client.live()
    assert client.ready()
    for model, version in (("nobody", ""), ("linear_argmax", "9")):
        with Client(server.address, model, version) as other:
            assert other.live()
            assert not other.ready()


def test_scores_can_be_asked_for(server, examples):
    x, labels = examples
    with Client(server.address, output="scores") as client:
        scores = client.predict(x[:20])
    assert scores.shape == (20, CLASSES)
    np.testing.assert_array_equal(scores.argmax(axis=1), labels[:20])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("retry", [NEVER, RetryPolicy(attempts=3, initial_backoff_s=0.01)])
def test_no_server_is_unavailable(retry):
    x = np.zeros((1, FEATURES), np.float32)
    with Client(f"127.0.0.1:{free_port()}", retry=retry) as client:
        for ask in (client.live, client.statistics, lambda: client.predict(x)):
            with pytest.raises(Unavailable) as caught:
                ask()
            assert caught.value.code == "UNAVAILABLE"
        assert not client.ready()
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"within 0\.3 s"):
            client.wait_until_ready(0.3)
        assert 0.25 < time.monotonic() - started < PATIENCE_S


def test_a_server_that_comes_late_is_retried(launch, models, examples):
    x, labels = examples
    port = free_port()
    retry = RetryPolicy(attempts=1000, initial_backoff_s=0.1, max_backoff_s=0.1)
    got = []
    with Client(f"127.0.0.1:{port}", retry=retry) as client:
        asking = threading.Thread(target=lambda: got.append(client.predict(x[:20])))
        asking.start()
        launch(models, address=f"127.0.0.1:{port}")
        asking.join(30)
    np.testing.assert_array_equal(got[0], labels[:20])


class BreakingOff(grpc.GenericRpcHandler):
    """Passes unary calls on, but the first of each RPC: its answer begins and breaks off."""

    def __init__(self, channel):
        self._channel = channel
        self.broken_off = set()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(partial(self._answer, details.method))

    def _answer(self, method, message, context):
        if method not in self.broken_off:
            self.broken_off.add(method)
            context.send_initial_metadata(())
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return self._channel.unary_unary(method)(message)


def test_an_answer_that_breaks_off_is_asked_for_again(server, examples):
    x, labels = examples
    with contextlib.ExitStack() as stack:
        handler = BreakingOff(stack.enter_context(grpc.insecure_channel(server.address)))
        between = grpc.server(ThreadPoolExecutor())
        between.add_generic_rpc_handlers((handler,))
        address = f"127.0.0.1:{between.add_insecure_port('127.0.0.1:0')}"
        between.start()
        stack.callback(lambda: between.stop(None).wait())
        with Client(address, retry=NEVER) as client, pytest.raises(Unavailable, match="gone"):
            client.live()
        with Client(address) as client:
            np.testing.assert_array_equal(client.predict(x[:20]), labels[:20])
        told = {method.rpartition("/")[2] for method in handler.broken_off}
        assert told == {"ServerLive", "ModelMetadata", "ModelConfig", "ModelInfer"}


def test_retries_end_with_the_deadline(server):
    retry = RetryPolicy(attempts=50, initial_backoff_s=10, max_backoff_s=10)
    with (
        refusing_proxy(server.address) as proxy,
        Client(proxy, deadline_s=5, retry=retry) as client,
        pytest.raises(Unavailable, match="try again"),
    ):
        client.live()


def test_a_server_that_is_replaced_is_found_again(launch, models, examples):
    x, labels = examples
    address = f"127.0.0.1:{free_port()}"
    with Client(
        address, retry=RetryPolicy(attempts=50, initial_backoff_s=0.1, max_backoff_s=0.2)
    ) as client:
        for _ in range(2):
            process = launch(models, address=address)
            for rows in (20, ROWS):
                np.testing.assert_array_equal(client.predict(x[:rows]), labels[:rows])
            assert process.stop() == 0


@pytest.fixture
def small_messages(monkeypatch):
    """Let streams have many messages, of 10 rows."""
    monkeypatch.setattr("client.message_size.LEAST_BYTES", 10 * FEATURES * 4)


@pytest.mark.usefixtures("small_messages")
def test_a_stream_goes_on_where_a_killed_server_left_it(launch, models, examples):
    x, labels = examples
    address = f"127.0.0.1:{free_port()}"
    process = launch(models, address=address)
    buffer = np.empty((60, FEATURES), np.float32)

    def batches():
        for start in range(0, ROWS, len(buffer)):
            buffer[:] = x[start : start + len(buffer)]
            yield buffer  # overwritten as soon as the next one is asked for

    retry = RetryPolicy(attempts=10, initial_backoff_s=0.2)
    with Client(address, retry=retry) as client:
        answers = client.stream(batches())
        got = [next(answers)]
        for _ in range(2):
            process.popen.kill()
            process.wait()
            process = launch(models, address=address)
            got.append(next(answers))
        got += answers
    np.testing.assert_array_equal(np.concatenate(got), labels)


@pytest.mark.usefixtures("small_messages")
def test_a_stream_that_is_refused_while_it_is_sent_loses_nothing(server, examples):
    x, labels = examples
    retry = RetryPolicy(attempts=3, initial_backoff_s=0.01)
    with refusing_proxy(server.address) as proxy, Client(proxy, retry=retry) as client:
        for _ in range(5):
            np.testing.assert_array_equal(client.predict(x), labels)


@pytest.mark.usefixtures("small_messages")
def test_a_stream_that_breaks_without_progress_is_given_up(launch, models, examples):
    address = f"127.0.0.1:{free_port()}"
    process = launch(models, address=address)
    with Client(address, retry=RetryPolicy(attempts=3, initial_backoff_s=0.01)) as client:
        answers = client.stream(iter([examples[0][:60]] * 100))
        next(answers)
        process.popen.kill()
        process.wait()
        with pytest.raises(Unavailable):
            list(answers)


def test_an_answer_that_takes_too_long_is_deadline_exceeded(server, steps_client):
    steps = np.full((100, 1), 3 * 10**5)
    with Client(server.address, "steps", output="done", deadline_s=0.1) as hasty:
        for ask in (hasty.predict, lambda x: list(hasty.stream([x]))):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                ask(steps)
            assert caught.value.code == "DEADLINE_EXCEEDED"
            assert time.monotonic() - started < PATIENCE_S
    assert steps_client.predict(np.array([[3]])) == [[3]]
