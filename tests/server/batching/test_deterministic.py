"""A deterministic server gives a row the same bits in any company, at any place, however it came.

Without the option, rows of the float64 model get other bits alone than among 64 on processors whose
kernels differ by size, so what is held here fails once a single execution is not padded.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper

from client.shared_memory import SharedArray
from model.export import export
from model.weights import from_seed
from protos.codec import InferRequest, RequestedOutput, decode_stream_response, encode_request
from server.errors import StartError
from server.loaded_model.fixed_size import fixed_size
from server.loaded_model.group_size import GroupSize
from server.onnx.engine import Engine

CLASSES, FEATURES, GROUP_ROWS, THREADS, MOST_ROWS = 64, 1000, 64, 2, 1024
DTYPES = ("float32", "float64")
# What a batch is drawn from; no rows are alike.
ROWS = 100


@pytest.fixture(scope="module")
def models(graphs):
    for dtype in DTYPES:
        export(graphs.folder, dtype, from_seed(CLASSES, FEATURES, 1), dtype, 1)
    export(graphs.folder, "few", from_seed(CLASSES, FEATURES, 1), "float64", 1)
    (graphs.folder / "few" / "config.pbtxt").write_text("max_batch_size: 5")
    graphs.add(
        "texts",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": ("string", ["batch", 2])},
        {"y": ("string", ["batch", 2])},
    )
    graphs.add(
        "unbatched",
        [helper.make_node("ArgMax", ["x"], ["y"], axis=0, keepdims=0)],
        {"x": ("float32", [3])},
        {"y": ("int64", [])},
    )
    return graphs.folder


@pytest.fixture(scope="module", params=[1, 2], ids=lambda count: f"{count}-instances")
def server(request, serve, models):
    return serve(
        models,
        deterministic=True,
        # Of each execution, which decides how it rounds.
        threads=THREADS * request.param,
        instances=request.param,
        group_rows=GROUP_ROWS,
        # So that requests of several clients do share executions.
        queue_delay_us=2000,
    )


@pytest.fixture(scope="module")
def caller(call, server):
    return call(server.address)


def rows(dtype):
    return np.random.default_rng(2).standard_normal((ROWS, FEATURES)).astype(dtype)


def scores(response):
    (tensor,) = response.outputs
    return tensor.data


def infer(caller, model, x, **parameters):
    message = caller.message(model, x=x, outputs=["scores"], parameters=parameters)
    return scores(caller.infer(message))


@pytest.fixture(scope="module", params=DTYPES)
def alone(request, caller):
    """A model, rows, and the scores that each of them gets alone."""
    x = rows(request.param)
    with ThreadPoolExecutor(1) as one_by_one:
        found = list(one_by_one.map(lambda row: infer(caller, request.param, row[None]), x))
    return request.param, x, np.concatenate(found)


def same_bits(got, wanted):
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got.view(np.uint8), np.ascontiguousarray(wanted).view(np.uint8))


def test_a_row_is_the_same_at_every_place_of_a_batch(caller, alone):
    model, x, wanted = alone
    for first in range(GROUP_ROWS):
        at = np.roll(np.arange(GROUP_ROWS), first)
        same_bits(infer(caller, model, x[at]), wanted[at])


@pytest.mark.parametrize("size", [2, 3, 16, 63, 65, 100, 192, 300])
def test_a_row_is_the_same_in_a_request_of_any_size(caller, alone, size):
    model, x, wanted = alone
    at = np.arange(size) % ROWS
    same_bits(infer(caller, model, x[at]), wanted[at])


def test_a_row_is_the_same_beside_those_of_other_clients(call, server, alone):
    model, x, wanted = alone
    clients = 12
    together = threading.Barrier(clients)
    before = call(server.address).statistics(model).execution_count

    def ask(seed):
        caller, rng = call(server.address), np.random.default_rng(seed)
        together.wait()
        for _ in range(8):
            at = rng.integers(0, ROWS, rng.integers(1, 30))
            same_bits(infer(caller, model, x[at]), wanted[at])

    with ThreadPoolExecutor(clients) as pool:
        for _ in pool.map(ask, range(clients)):
            pass
    executions = call(server.address).statistics(model).execution_count - before
    assert executions < 8 * clients  # or else nothing was shared


def test_a_row_is_the_same_on_a_stream(caller, alone):
    model, x, wanted = alone
    sizes = [1, 2, 5, 40, 64, 70, 3]
    picked = [np.arange(start, start + size) % ROWS for start, size in enumerate(sizes)]
    messages = [
        caller.message(model, x=x[at], outputs=["scores"], parameters={"more_follows": True})
        for at in picked
    ]
    answers = [decode_stream_response(data) for data in caller.open_stream(iter(messages))]
    for at, (error, response) in zip(picked, answers, strict=True):
        assert not error
        same_bits(scores(response), wanted[at])


def test_a_row_is_the_same_through_shared_memory(caller, alone):
    model, x, wanted = alone
    with SharedArray(x.shape, x.dtype) as shared:
        shared.array[...] = x
        caller.control(
            "SystemSharedMemoryRegister",
            name=shared.key,
            key=shared.key,
            offset=0,
            byte_size=shared.byte_size,
        )
        try:
            for start, stop in ((0, 1), (7, 71), (5, 100), (99, 100)):
                message = encode_request(
                    InferRequest(
                        model, (shared.rows("x", start, stop),), (RequestedOutput("scores"),)
                    )
                )
                same_bits(scores(caller.infer(message)), wanted[start:stop])
        finally:
            caller.control("SystemSharedMemoryUnregister", name=shared.key)


def test_a_model_that_takes_fewer_rows_than_a_group_runs_with_as_many_as_it_takes(caller):
    x = rows("float64")
    assert told(caller, "few")["deterministic_rows"] == "5"
    alone = np.concatenate([infer(caller, "few", row[None]) for row in x[:5]])
    for order in ([4, 3, 2, 1, 0], [2, 0], [1, 2, 3, 4]):
        same_bits(infer(caller, "few", x[order]), alone[order])


def test_texts_are_padded_too(caller):
    x = np.array([[b"a", b""], [b"bc", b"d"]], object)
    for _ in range(2):
        np.testing.assert_array_equal(scores(caller.infer(caller.message("texts", x=x))), x)
        x = x[:1]


def told(caller, model):
    config = caller.control("ModelConfig", name=model).config
    return {name: value.string_value for name, value in config.parameters.items()}


def test_the_configuration_tells_the_size_and_the_threads(caller):
    assert {
        name: value
        for name, value in told(caller, "float64").items()
        if name.startswith("deterministic")
    } == {
        "deterministic": "on",
        "deterministic_rows": str(GROUP_ROWS),
        "deterministic_threads": str(THREADS),
    }
    # Nothing need be padded where every request is one execution.
    assert "deterministic" not in told(caller, "unbatched")


def test_no_label_depends_on_the_batch(caller):
    for model, x in (("float64", rows("float64")[:3]), ("unbatched", np.ones(3, np.float32))):
        response = caller.infer(caller.message(model, x=x, parameters={"timings": True}))
        assert response.parameters["batch_dependent"] is False


def linear(graphs, name, nodes, constants):
    path = graphs.add(
        name, nodes, {"x": ("int64", ["n"])}, {"y": ("int64", ["n"])}, constants=constants
    )
    return path, Engine(path, 1)


def test_a_model_that_takes_no_zeros_is_refused_by_name(graphs):
    # Its table has three entries, and it looks up x - 5.
    path, engine = linear(
        graphs,
        "picky",
        [
            helper.make_node("Sub", ["x", "five"], ["at"]),
            helper.make_node("Gather", ["table", "at"], ["y"]),
        ],
        {"five": np.int64(5), "table": np.arange(3)},
    )
    with pytest.raises(
        StartError, match=r"picky/1/model\.onnx: the model cannot be run on rows of zeros"
    ):
        fixed_size(path, engine, engine.inputs, GroupSize(8, "set"))


def test_executions_take_one_row_where_its_place_matters(graphs):
    # y = x + [0, 1, 2, ...]
    path, engine = linear(
        graphs,
        "counts",
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Squeeze", ["shape"], ["rows"]),
            helper.make_node("Range", ["zero", "rows", "one"], ["places"]),
            helper.make_node("Add", ["x", "places"], ["y"]),
        ],
        {"zero": np.int64(0), "one": np.int64(1)},
    )
    found = fixed_size(path, engine, engine.inputs, GroupSize(8, "set"))
    assert found == GroupSize(1, "a row's outputs depend on its place among 8")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels_of_the_linear_model_treat_all_places_alike(models, dtype):
    path = models / dtype / "1" / "model.onnx"
    engine = Engine(path, THREADS, deterministic=True)
    assert fixed_size(path, engine, engine.inputs, GroupSize(64, "set")).rows == 64
