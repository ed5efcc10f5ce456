"""The asyncio client does what the blocking one does, without threads, and can be cancelled."""

import asyncio
import inspect
import itertools
import signal
import socket
import threading
from contextlib import aclosing

import numpy as np
import pytest
from clear_examples import clear_examples
from conftest import GROUP_ROWS
from event_loop import PATIENCE_S, eventually, in_event_loop
from recording_proxy import recording_proxy

from client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    ModelInput,
    RequestFailed,
    RetryPolicy,
    Unreachable,
    UsageError,
)
from examples.refusing_proxy import refusing_proxy
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 16384, 600
# Fewer than the server holds, so none is refused.
ATTEMPTS = 100
# Methods of one kind of client: how it is left.
LEAVING = {"__enter__", "__exit__", "__aenter__", "__aexit__"}


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(models, group_rows=GROUP_ROWS)


@pytest.fixture
def servers(launch, models):
    return [launch(models, "--group-rows", GROUP_ROWS) for _ in range(2)]


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def methods(kind):
    return {
        name: method
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_") or name in LEAVING
    }


def parameters(method):
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(method).parameters.values()
    ]


@pytest.mark.parametrize("name", sorted(methods(Client).keys() - LEAVING))
def test_each_method_takes_the_same_arguments(name):
    assert parameters(methods(AsyncClient)[name]) == parameters(methods(Client)[name])


def test_both_clients_are_made_of_the_same_arguments():
    assert parameters(AsyncClient.__init__) == parameters(Client.__init__)


@in_event_loop
async def test_predictions_are_those_of_the_blocking_client(server, examples):
    x, labels = examples
    with Client(server.address) as blocking:
        async with AsyncClient(server.address) as client:
            for rows in (x[:5], x[7], x[:0], x, x[:9].tolist()):
                got, wanted = await client.predict(rows), blocking.predict(rows)
                assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
                np.testing.assert_array_equal(got, wanted)
            several = await client.predict_outputs(x[:3], ["label", "scores"])
            np.testing.assert_array_equal(several["label"], labels[:3])
            assert several["scores"].shape == (3, CLASSES)
            response = await client.infer({"x": x[:3]}, ["label"])
            np.testing.assert_array_equal(response["label"], labels[:3])
            np.testing.assert_array_equal(await client.predict_in_one_request(x[:3]), labels[:3])


@in_event_loop
async def test_what_a_server_and_its_model_are_is_read(server):
    with Client(server.address) as blocking:
        async with AsyncClient(server.address) as client:
            await client.wait_until_ready()
            await client.check_reachable()
            assert [await client.live(), await client.server_ready(), await client.ready()] == [
                True
            ] * 3
            for name in ("metadata", "config", "server_metadata", "input", "default_output"):
                assert await getattr(client, name)() == getattr(blocking, name)()
            assert await client.told("max_message_bytes") == blocking.told("max_message_bytes")
            assert (await client.statistics()).name == "linear_argmax"
            assert [await client.fits_one_message(n) for n in (1, 10**6)] == [True, False]


@in_event_loop
async def test_rows_in_shared_memory_are_predicted(server, examples):
    x, labels = examples
    async with AsyncClient(server.address) as client, client.shared(x[:20]) as region:
        response = await client.infer_tensors([region.rows("x", 5, 20)], ("label",))
        np.testing.assert_array_equal(response["label"], labels[5:20])


async def asynchronous(batches):
    for batch in batches:
        await asyncio.sleep(0)
        yield batch


@pytest.mark.parametrize("kind", [list, iter, asynchronous])
@in_event_loop
async def test_batches_of_any_iterable_are_streamed(server, examples, kind):
    x, labels = examples
    ends = np.cumsum([0, 1, 100, 7, 300, 64])
    async with AsyncClient(server.address) as client:
        at = 0
        async for got in client.stream(kind([x[a:b] for a, b in itertools.pairwise(ends)])):
            np.testing.assert_array_equal(got, labels[at : at + len(got)])
            at += len(got)
    assert at == ends[-1]


@in_event_loop
async def test_the_memory_of_a_batch_may_be_used_for_the_next_one(server, examples):
    x, labels = examples
    buffer = np.empty((64, FEATURES), np.float32)

    async def batches():
        for start in range(0, 576, 64):
            buffer[:] = x[start : start + 64]
            yield buffer

    async with AsyncClient(server.address) as client:
        got = [labels async for labels in client.stream(batches())]
    np.testing.assert_array_equal(np.concatenate(got), labels[:576])


@in_event_loop
async def test_many_predictions_of_one_event_loop_take_no_threads(server, examples):
    x, labels = examples
    with recording_proxy(server.address) as proxy:
        async with AsyncClient(proxy.address) as client:
            assert await client.live()
            # Those of the proxy come and go, those of clients before end.
            threads = {each for each in threading.enumerate() if each.name.startswith("grpc-")}

            async def ask(at):
                return np.array_equal(await client.predict(x[at : at + 2]), labels[at : at + 2])

            right = await asyncio.gather(*map(ask, range(300)))
            now = {each for each in threading.enumerate() if each.name.startswith("grpc-")}
            assert all(right)
            assert now <= threads
    # All of them began without the model's metadata.
    names = [name for name, _ in proxy.calls]
    assert [names.count(each) for each in ("ModelMetadata", "ModelConfig")] == [1, 1]
    assert names.count("ModelInfer") == 300


@in_event_loop
async def test_waiting_for_another_tasks_reading_ends_with_the_deadline(launch, models, examples):
    process = launch(models)
    async with AsyncClient(process.address) as client:
        await client.wait_until_ready()
        process.freeze()
        patient = asyncio.create_task(client.predict(examples[0][:1]))
        with pytest.raises(DeadlineExceeded):
            await client.predict(examples[0][:1], timeout_s=0.2)
        assert not patient.done()
        process.popen.send_signal(signal.SIGCONT)
        np.testing.assert_array_equal(await patient, examples[1][:1])


@in_event_loop
async def test_a_cancelled_task_cancels_its_call(server, call):
    caller = call(server.address)

    def failed():
        return caller.statistics("steps").inference_stats.fail.count

    async with AsyncClient(server.address, "steps", output="done") as client:
        assert await client.predict(np.array([[2]])) == [[2]]
        with caller.busy_worker():
            for ask in (client.predict, lambda x: anext(client.stream([x]))):
                before = failed()

                # It is cancelled wherever it is: before the server has it, queued, or answered.
                for number in range(1, ATTEMPTS):
                    task = asyncio.ensure_future(ask(np.array([[3]])))
                    await asyncio.sleep(number / 500)
                    if not task.cancel():
                        assert await task == [[3]]
                        continue
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    if failed() > before:
                        break
                await eventually(lambda before=before: failed() > before, "the server dropped one")
        assert await client.predict(np.array([[2]])) == [[2]]


@in_event_loop
async def test_a_stream_that_is_left_draws_no_more(server, examples):
    x, labels = examples
    drawn = 0

    async def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield x[:64]
            await asyncio.sleep(0)

    async with AsyncClient(server.address) as client:
        batches = endless()
        # Closing them is an error while another task draws.
        async with aclosing(batches), aclosing(client.stream(batches)) as stream:
            for _ in range(3):
                np.testing.assert_array_equal(await anext(stream), labels[:64])
        seen = drawn
        np.testing.assert_array_equal(await client.predict(x[:64]), labels[:64])
        assert drawn == seen


@in_event_loop
async def test_a_stream_can_be_left_while_no_batch_is_there(server, examples):
    x, labels = examples
    nothing = asyncio.Event()

    async def stuck():
        yield x[:3]
        await nothing.wait()

    async with AsyncClient(server.address) as client:
        async with aclosing(client.stream(stuck())) as stream:
            np.testing.assert_array_equal(await anext(stream), labels[:3])
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert tasks == set()


@in_event_loop
async def test_what_the_callers_own_iterator_raises_comes_out(server, examples):
    async def broken():
        yield examples[0][:2]
        raise KeyError("mine")

    async with AsyncClient(server.address) as client:
        stream = client.stream(broken())
        np.testing.assert_array_equal(await anext(stream), examples[1][:2])
        with pytest.raises(KeyError, match="mine"):
            await anext(stream)


@in_event_loop
async def test_an_iterator_that_is_cancelled_by_others_ends_the_stream(server, examples):
    async def cancelled():
        yield examples[0][:2]
        raise asyncio.CancelledError

    async with AsyncClient(server.address) as client:
        with pytest.raises(RequestFailed) as caught:
            [labels async for labels in client.stream(cancelled())]
        assert caught.value.code == "CANCELLED"


@in_event_loop
async def test_errors_are_those_of_the_blocking_client(server, examples):
    x, _ = examples
    async with AsyncClient(server.address) as client:
        with pytest.raises(UsageError, match=rf"\[n, {FEATURES}\]"):
            await client.predict(x[:3, :7])
        with pytest.raises(UsageError, match="batch 1 of the stream has no rows"):
            [labels async for labels in client.stream([x[:1], x[:0]])]
    with pytest.raises(UsageError, match="the client is closed"):
        await client.predict(x[:1])
    with pytest.raises(UsageError, match="the client is closed"):
        await anext(client.stream([x[:1]]))
    async with AsyncClient(server.address, "nobody") as client:
        with pytest.raises(RequestFailed, match="NOT_FOUND"):
            await client.predict(x[:1])
        assert not await client.ready()
    wide = ModelInput("x", np.dtype("float32"), (-1,))
    async with AsyncClient(server.address, takes=wide) as client:
        with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
            [labels async for labels in client.stream([x[:10], x[:11, :-1]])]
    async with AsyncClient(free_address(), retry=RetryPolicy(attempts=2)) as client:
        for ask in (client.live, client.check_reachable, lambda: client.predict(x[:1])):
            with pytest.raises(Unreachable, match="connection refused"):
                await ask()
        with pytest.raises(Unreachable, match=r"within 0\.2 s"):
            await client.wait_until_ready(0.2)


@in_event_loop
async def test_the_event_loop_goes_on_while_a_server_hangs(servers, examples):
    process = servers[0]
    async with AsyncClient(process.address) as client:
        await client.predict(examples[0][:1])
        process.freeze()
        asked = [
            asyncio.ensure_future(ask)
            for ask in (
                client.predict(examples[0][:1]),
                client.predict(examples[0]),
                anext(client.stream([examples[0]])),
            )
        ]
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert not any(task.done() for task in asked)
        process.popen.send_signal(signal.SIGCONT)
        one, many, first = await asyncio.gather(*asked)
        np.testing.assert_array_equal(one, examples[1][:1])
        np.testing.assert_array_equal(many, examples[1])
        np.testing.assert_array_equal(first, examples[1])


@in_event_loop
async def test_refused_calls_and_streams_are_retried(server, examples, monkeypatch):
    monkeypatch.setattr("client.message_size.LEAST_BYTES", 10 * FEATURES * 4)
    x, labels = examples
    retry = RetryPolicy(attempts=3, initial_backoff_s=0.01)
    with refusing_proxy(server.address) as proxy:
        async with AsyncClient(proxy, retry=retry) as client:
            for _ in range(3):
                np.testing.assert_array_equal(await client.predict(x), labels)
                np.testing.assert_array_equal(await client.predict(x[:3]), labels[:3])


@in_event_loop
async def test_a_slow_request_goes_to_a_second_server(servers):
    first, second = servers
    addresses = [first.address, second.address]
    async with AsyncClient(addresses, "steps", output="done", hedge_after_s=0.02) as client:
        assert await client.predict(np.array([[1]])) == [[1]]
        first.freeze()

        async def ask(number):
            return (await client.predict(np.array([[number]]))).item()

        assert await asyncio.gather(*map(ask, range(40))) == list(range(40))
        first.popen.send_signal(signal.SIGCONT)


class Load:
    """Tasks that ask one client without a pause; what they saw."""

    def __init__(self, client, x, labels):
        self._client, self._x, self._labels = client, x, labels
        self._stop = False
        self.asked = self.right = self.streamed = 0

    async def __aenter__(self):
        kinds = [self._unary] * 6 + [self._stream] * 2
        self._tasks = [
            asyncio.create_task(kind(np.random.default_rng(seed)))
            for seed, kind in enumerate(kinds)
        ]
        return self

    async def __aexit__(self, *_):
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def goes_on(self):
        right, streamed = self.right, self.streamed
        await eventually(
            lambda: self.right > right + 30 and self.streamed > streamed + 10, "both are answered"
        )

    def _draw(self, draw):
        self.asked += 1
        return draw.integers(0, len(self._x), draw.integers(1, 8))

    def _judge(self, rows, labels):
        self.right += np.array_equal(labels, self._labels[rows])

    async def _unary(self, draw):
        while not self._stop:
            rows = self._draw(draw)
            self._judge(rows, await self._client.predict(self._x[rows]))

    async def _stream(self, draw):
        sent = []

        async def batches():
            while not self._stop:
                sent.append(self._draw(draw))
                yield self._x[sent[-1]]

        at = 0
        async for labels in self._client.stream(batches()):
            self._judge(sent[at], labels)
            self.streamed += 1
            at += 1


@in_event_loop
async def test_a_server_that_is_killed_costs_no_request(servers, launch, models, call, examples):
    first, second = servers
    async with (
        AsyncClient([first.address, second.address], deadline_s=PATIENCE_S) as client,
        Load(client, *examples) as load,
    ):
        await load.goes_on()
        first.popen.kill()
        await load.goes_on()
        again = call((await asyncio.to_thread(launch, models, address=first.address)).address)
        # Until it is connected to, retries would end before.
        await eventually(
            lambda: again.statistics("linear_argmax").execution_count, "it has its share again"
        )
        second.popen.kill()
        await load.goes_on()
    assert load.right == load.asked
