"""tritonclient, connected directly to a server that is killed, stopped or replaced."""

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from clear_examples import clear_examples
from client_load import STREAMED, UNARY
from conftest import GROUP_ROWS, PATIENCE_S, SLICE_ROWS, SLOW_STEPS
from triton_load import (
    Stream,
    TritonLoad,
    ask,
    connected,
    outcome,
    seen_of_a_kill,
)

from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 16384, 16
EXECUTIONS = 10


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


def test_a_kill_ends_what_the_server_has_as_unavailable(launch, models, examples):
    server = launch(models)
    assert seen_of_a_kill(server, server.address, examples[0]) == {
        "request": "UNAVAILABLE",
        "stream": "UNAVAILABLE",
        "later request": "UNAVAILABLE",
        "later stream": "UNAVAILABLE",
    }


def test_a_stop_answers_what_the_server_has_and_ends_streams_as_unavailable(
    launch, models, examples, call, eventually
):
    x, labels = examples
    server = launch(models, "--group-rows", GROUP_ROWS)
    caller = call(server.address)
    steps = np.full((SLICE_ROWS * (1 + EXECUTIONS), 1), SLOW_STEPS)
    steps[:SLICE_ROWS] = 0
    tensor = triton.InferInput("steps", steps.shape, "INT64")
    tensor.set_data_from_numpy(steps)
    with (
        ThreadPoolExecutor(1) as pool,
        connected(server.address) as client,
        Stream(client) as stream,
    ):
        stream.send(x)
        np.testing.assert_array_equal(stream.take(), labels)
        before = caller.statistics("steps").execution_count
        had = pool.submit(outcome, lambda: client.infer("steps", [tensor]))
        eventually(lambda: caller.statistics("steps").execution_count > before, "it is computed")
        server.popen.send_signal(signal.SIGTERM)
        eventually(lambda: outcome(lambda: ask(client, x)) != "OK", "no more is accepted")
        assert outcome(lambda: ask(client, x)) == "UNAVAILABLE"
        assert had.result(PATIENCE_S) == "OK"
        assert outcome(stream.take) == "UNAVAILABLE"
        assert server.wait() == 0
        assert outcome(lambda: ask(client, x)) == "UNAVAILABLE"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_a_server_that_is_replaced_costs_unavailable_and_the_client_reconnects(
    number, launch, models, examples, eventually
):
    server = launch(models)
    load = TritonLoad(server.address, *examples)
    with load.running():
        load.goes_on(eventually)
        server.stop(number)
        eventually(lambda: all(load.codes().values()), "both kinds have failed")
        launch(models, address=server.address)
        load.goes_on(eventually)
    assert load.broken == []
    assert not load.wrong
    assert load.codes() == {UNARY: {"UNAVAILABLE"}, STREAMED: {"UNAVAILABLE"}}
