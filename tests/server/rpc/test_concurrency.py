import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from conftest import SLOW_STEPS

from model.examples import standard_normal
from model.export import export
from model.reference import expect
from model.weights import exported, from_seed
from protos.codec import decode_response
from server.onnx.engine import Engine

CLASSES, ROWS = 1000, 400
FEATURES = {"float32": 256, "float64": 64}
CLIENTS, ROUNDS = 16, 12
MOST_ROWS = 100

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def models(graphs):
    for seed, (dtype, features) in enumerate(FEATURES.items()):
        export(graphs.folder, dtype, from_seed(CLASSES, features, seed), dtype, seed)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module", params=[1, 2], ids=lambda count: f"{count}-instances")
def server(request, serve, models):
    # Small batches, so that requests are split over several and share them with others.
    return serve(models, group_rows=16, max_batch_rows=MOST_ROWS, instances=request.param)


@pytest.fixture(scope="module")
def examples():
    """Rows of each model, with labels of the float64 reference, no row too close to call."""
    made = {}
    for seed, (dtype, features) in enumerate(FEATURES.items()):
        x = standard_normal(2 * ROWS, features, seed, dtype)
        expected = expect(exported(from_seed(CLASSES, features, seed), dtype), x, dtype)
        clear = np.flatnonzero(~expected.near_ties)[:ROWS]
        assert len(clear) == ROWS
        made[dtype] = (x[clear], expected.labels[clear])
        # A row put in another's place would hardly get the other's label.
        assert Counter(made[dtype][1].tolist()).most_common(1)[0][1] < 10
    return made


def label(response):
    (tensor,) = response.outputs
    assert tensor.name == "label"
    return tensor.data


def batches(rng, examples, count):
    """Draw what to send: the model, its rows, and the labels they should get."""
    for _ in range(count):
        model = str(rng.choice(list(FEATURES)))
        x, labels = examples[model]
        rows = int(rng.integers(1, MOST_ROWS + 1)) if rng.random() < 0.5 else 1
        chosen = rng.choice(ROWS, rows, replace=False)
        yield model, x[chosen], labels[chosen]


def ask_one_by_one(caller, rng, examples):
    for model, x, labels in batches(rng, examples, ROUNDS):
        response = caller.infer(caller.message(model, outputs=["label"], id=model, x=x))
        assert (response.model_name, response.id) == (model, model)
        np.testing.assert_array_equal(label(response), labels)
        yield len(labels)


def ask_on_a_stream(caller, rng, examples):
    sent = list(batches(rng, examples, ROUNDS))
    messages = [
        caller.message(
            model,
            outputs=["label"],
            id=str(number),
            parameters={"more_follows": bool(rng.random() < 0.3)},
            x=x,
        )
        for number, (model, x, _) in enumerate(sent)
    ]
    answers = caller.stream(messages)
    for number, ((text, response), (model, _, labels)) in enumerate(
        zip(answers, sent, strict=True)
    ):
        assert text == ""
        assert (response.model_name, response.id) == (model, str(number))
        np.testing.assert_array_equal(label(response), labels)
        yield len(labels)


def ask_wrongly(caller, rng, examples):
    for model, x, labels in batches(rng, examples, ROUNDS):
        good = caller.message(model, outputs=["label"], x=x)
        bad = [
            caller.message(model, id="bad", x=x[:, :-1]),
            caller.message(model, id="bad", x=x.astype(np.float16)),
            caller.message(model, id="bad", outputs=["nothing"], x=x),
            good[:-1],
        ][int(rng.integers(4))]
        (one, refused, two) = caller.stream([good, bad, good])
        assert refused[0]
        with pytest.raises(grpc.RpcError) as caught:
            caller.raw("ModelInfer", bad)
        assert caught.value.code() is Code.INVALID_ARGUMENT
        for text, response in (one, two):
            assert text == ""
            np.testing.assert_array_equal(label(response), labels)
            yield len(labels)


def ask_and_leave(caller, rng, examples):
    for number, (model, x, labels) in enumerate(batches(rng, examples, ROUNDS)):
        message = caller.message(model, outputs=["label"], x=x)
        abandoned = caller.infer_later(message)
        answers = caller.open_stream(iter([message] * 5))
        # What is sent on while these are given up shares batches with them.
        kept = caller.infer_later(message)
        if number % 2:
            next(answers)
        abandoned.cancel()
        answers.cancel()
        response = caller.infer(message)
        np.testing.assert_array_equal(label(response), labels)
        assert kept.result()
        yield len(labels)


def test_labels_are_right_whatever_else_the_batch_holds(server, call, models, examples):
    ways = [ask_one_by_one, ask_on_a_stream, ask_one_by_one, ask_on_a_stream]
    ways += [ask_wrongly, ask_and_leave]
    start = threading.Barrier(CLIENTS)
    callers = [call(server.address) for _ in range(CLIENTS)]

    def client(number):
        rng = np.random.default_rng(number)
        start.wait(10)
        return sum(ways[number % len(ways)](callers[number], rng, examples))

    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = sum(pool.map(client, range(CLIENTS)))
    assert answered > CLIENTS * ROUNDS * MOST_ROWS / 8
    told = [callers[0].statistics(model) for model in FEATURES]
    # Requests did share batches.
    assert sum(one.execution_count for one in told) < sum(
        -(-one.inference_count // 4) for one in told
    )


@pytest.mark.parametrize("dtype", FEATURES)
def test_local_engine_unary_and_stream_give_the_same_labels(server, call, models, examples, dtype):
    x, labels = examples[dtype]
    caller = call(server.address)
    engine = Engine(models / dtype / "1" / "model.onnx", threads=1)
    (local,) = engine.run(["label"], {"x": x})
    np.testing.assert_array_equal(local, labels)
    starts = range(0, ROWS, MOST_ROWS)
    messages = [caller.message(dtype, outputs=["label"], x=x[at : at + MOST_ROWS]) for at in starts]
    unary = np.concatenate([label(caller.infer(message)) for message in messages])
    np.testing.assert_array_equal(unary, labels)
    one_row = [caller.message(dtype, outputs=["label"], x=x[at : at + 1]) for at in range(ROWS)]
    for messages_sent in (messages, one_row):
        streamed = [label(response) for _, response in caller.stream(messages_sent)]
        np.testing.assert_array_equal(np.concatenate(streamed), labels)


def test_rows_gathered_from_many_clients_come_back_to_their_own(serve, call, models):
    caller = call(serve(models, group_rows=32).address)
    rows = 200
    messages = [caller.message("steps", id=str(n), steps=np.array([[n]])) for n in range(rows)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(caller.infer, messages))
    for number, answer in enumerate(answers):
        assert answer.id == str(number)
        np.testing.assert_array_equal(answer.outputs[0].data, [[number]])


def test_results_are_not_overwritten_by_later_batches(server, call, examples):
    x, labels = examples["float32"]
    caller = call(server.address)
    starts = range(0, ROWS - 3, 3)
    messages = [caller.message("float32", outputs=["label"], x=x[at : at + 3]) for at in starts]
    # All are answered before the first answer is read.
    pending = [caller.infer_later(message) for message in messages]
    streamed = caller.stream(messages)
    answers = [decode_response(future.result()) for future in pending]
    for at, unary, (_, stream) in zip(starts, answers, streamed, strict=True):
        np.testing.assert_array_equal(label(unary), labels[at : at + 3])
        np.testing.assert_array_equal(label(stream), labels[at : at + 3])


def test_another_client_is_answered_while_a_long_execution_runs(serve, call, models):
    server = serve(models, group_rows=2, instances=2)
    one, other = call(server.address), call(server.address)
    # Takes more than a second, in one execution that cannot be interrupted.
    with one.busy_worker(executions=1, slow_steps=20 * SLOW_STEPS) as busy:
        other.infer(other.message("steps", steps=np.array([[1]])))
        assert not busy.done()
        assert busy.result()
