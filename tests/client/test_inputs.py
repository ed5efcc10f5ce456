"""Whatever callers have is sent as what the model takes, or refused by name."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import scipy.sparse
from onnx import helper

from client import Client, RequestFailed, UsageError
from client.message_size import LEAST_BYTES

TEXTS = ["", "one", "naïve", "two\0three"]


class ArrayLike:
    """Stands for a tensor of another library, such as torch, which numpy asks for an array."""

    def __init__(self, data, error=None):
        self._data = data
        self._error = error

    def __array__(self, dtype=None, copy=None):
        if self._error is not None:
            raise self._error
        return np.asarray(self._data, dtype)


class Interface:
    """Says where its numbers lie, and nothing else."""

    def __init__(self, data):
        self._data = data

    @property
    def __array_interface__(self):
        return self._data.__array_interface__


class DLPack:
    """Hands its numbers over as DLPack has it, and in no other way."""

    def __init__(self, data):
        self._data = data

    def __dlpack__(self, **options):
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._data.__dlpack_device__()


@pytest.fixture(scope="module")
def address(serve, graphs):
    """Models that give back what they take, of several dtypes, and one of two inputs."""
    for name, dtype in (
        ("float", "float32"),
        ("double", "float64"),
        ("half", "float16"),
        ("small", "int8"),
        ("bytes", "uint8"),
        ("ints", "int32"),
        ("flags", "bool"),
        ("text", "string"),
    ):
        value = {"x": (dtype, ["batch", 2])}, {"y": (dtype, ["batch", 2])}
        graphs.add(name, [helper.make_node("Identity", ["x"], ["y"])], *value)
    row = ("float32", ["batch", 2])
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["less"]),
    ]
    graphs.add("two", nodes, {"a": row, "b": row}, {"sum": row, "less": row})
    total = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    graphs.add("total", [total], {"x": ("float32", [3, 2])}, {"y": ("float32", [])})
    return serve(graphs.folder, max_batch_rows=8).address


@pytest.fixture(scope="module")
def client(address):
    """Make clients of the models."""
    opened = {}

    def of(model):
        if model not in opened:
            opened[model] = Client(address, model)
        return opened[model]

    yield of
    for one in opened.values():
        one.close()


def ways(client, x):
    """What each way to ask the model answers to the same rows."""
    yield client.predict(x)
    yield client.predict({"x": x})
    (streamed,) = client.stream([x])
    yield streamed
    ((response,),) = [answer.responses for answer in client.stream_answers([x])]
    yield response["y"]
    yield client.infer({"x": x})["y"]


NUMBERS = np.array([[1.5, -2], [0, 4]], np.float32)


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(NUMBERS.tolist(), id="lists"),
        pytest.param(tuple(map(tuple, NUMBERS.tolist())), id="tuples"),
        pytest.param(list(NUMBERS), id="a list of arrays"),
        pytest.param(NUMBERS.astype(np.float64), id="float64"),
        pytest.param(NUMBERS.astype(np.longdouble), id="longdouble"),
        pytest.param(NUMBERS.astype(np.float16), id="float16"),
        pytest.param(NUMBERS.astype(">f4"), id="big-endian"),
        pytest.param(NUMBERS.astype(">f8"), id="big-endian float64"),
        pytest.param(np.asfortranarray(NUMBERS), id="Fortran"),
        pytest.param(np.repeat(NUMBERS, 3, 0)[::3], id="strided"),
        pytest.param(NUMBERS[::-1, ::-1].copy()[::-1, ::-1], id="negative strides"),
        pytest.param(NUMBERS.astype(object), id="objects that are numbers"),
        pytest.param(memoryview(NUMBERS), id="a buffer"),
        pytest.param(ArrayLike(NUMBERS), id="__array__"),
        pytest.param(ArrayLike(NUMBERS.astype(np.float64)), id="__array__ of float64"),
        pytest.param(Interface(NUMBERS), id="__array_interface__"),
        pytest.param(DLPack(NUMBERS), id="__dlpack__"),
    ],
)
def test_every_way_to_ask_takes_what_stands_for_an_array(client, x):
    for got in ways(client("float"), x):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, NUMBERS)


@pytest.mark.parametrize("model", ["ints", "bytes", "small", "float", "half", "double"])
@pytest.mark.parametrize("dtype", [None, "int64", "uint64", ">i4", "int8", "bool"])
def test_integers_become_what_the_model_takes_where_all_fit(client, model, dtype):
    x = [[1, 0], [1, 1]]
    for got in ways(client(model), x if dtype is None else np.array(x, dtype)):
        np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        ("float", [[1, 2], [1e300, 4]], "element [1, 0] is 1e+300, which float32 cannot hold"),
        ("float", [[1, 2], [3, -1e39]], "element [1, 1] is -1e+39"),
        ("half", np.array([[1, 70000]]), "element [0, 1] is 70000"),
        ("half", np.array([[1, 70000]], np.float32), "element [0, 1] is 70000"),
        ("ints", [[1, 2], [3, 2**31]], "element [1, 1] is 2147483648; the model takes int32"),
        ("bytes", [[1, -1]], "element [0, 1] is -1; the model takes uint8, 0 to 255"),
        ("small", np.array([[128, 1]]), "element [0, 0] is 128; the model takes int8"),
    ],
)
def test_what_would_overflow_is_an_error_that_names_the_element(client, model, x, says):
    refused_by_every_way(client(model), x, f"input 'x': {says}")


def refused_by_every_way(client, x, says):
    asks = (
        client.predict,
        lambda x: list(client.stream([x])),
        lambda x: list(client.stream_answers([x])),
        lambda x: client.infer({"x": x}),
    )
    for ask in asks:
        with pytest.raises(UsageError, match=re.escape(says)):
            ask(x)


def test_infinities_and_nan_are_sent_as_they_are(client):
    x = np.array([[np.inf, np.nan], [-np.inf, 0]])
    for got in ways(client("float"), x):
        np.testing.assert_array_equal(got, x)


def test_an_element_of_a_later_message_is_named_by_its_own_row(client):
    x = np.zeros((100, 2))
    x[57, 1] = 1e300
    with pytest.raises(UsageError, match=r"element \[57, 1\] is 1e\+300"):
        client("float").predict(x)
    texts = np.full((100, 2), "a", object)
    texts[57, 1] = 5
    with pytest.raises(UsageError, match=r"element \[57, 1\] is 5"):
        client("text").predict(texts)


STRUCTURED = np.zeros(2, [("a", "f4"), ("b", "f4")])
MASKED = np.ma.masked_array(NUMBERS, NUMBERS == 0)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (scipy.sparse.csr_matrix(NUMBERS), "is sparse (scipy csr_matrix)"),
        (scipy.sparse.coo_array(NUMBERS), ".toarray()"),
        (MASKED, "is a masked array"),
        (list(MASKED), "is a masked array"),
        ([[1, 2], [3, np.ma.masked]], "is a masked array"),
        (STRUCTURED, "is a structured array with the fields a, b"),
        (NUMBERS.astype(complex), "has dtype complex128"),
        ([[1j, 2]], "has dtype complex128"),
        (np.zeros((2, 2), "M8[s]"), "has dtype datetime64[s]"),
        (np.zeros((2, 2), "m8[s]"), "has dtype timedelta64[s]"),
        (np.zeros((2, 2), "V4"), "has dtype |V4; the model takes float32"),
        ([["a", "b"]], "element [0, 0] is 'a' of type str; the model takes float32"),
        ([[1, "b"]], "element [0, 1] is 'b' of type str"),
        ([[1, None]], "element [0, 1] is None of type NoneType"),
        (np.array([["a", "b"]]), "has dtype <U1; the model takes float32"),
        ([[1, 2], [3]], "is not an array"),
        ({1, 2}, "has type set; expected an array"),
        (object(), "has type object; expected an array"),
        (None, "has type NoneType"),
        (ArrayLike(NUMBERS, RuntimeError("use tensor.detach()")), "use tensor.detach()"),
    ],
)
def test_what_no_model_can_take_is_refused_by_name(client, x, says):
    refused_by_every_way(client("float"), x, says)


def test_floats_are_not_cut_to_integers_nor_numbers_to_flags(client):
    refused_by_every_way(client("ints"), [[1.0, 2.0]], "has dtype float64; the model takes int32")
    refused_by_every_way(client("flags"), [[1, 0]], "has dtype int64; the model takes bool")


def text_arrays():
    rows = [[text, text + "!"] for text in TEXTS]
    yield pytest.param(rows, rows, id="lists")
    yield pytest.param(np.array(rows, object), rows, id="objects")
    yield pytest.param(np.array(rows, np.dtypes.StringDType()), rows, id="StringDType")
    yield pytest.param([[b"a\0", "b"]], [["a\0", "b"]], id="bytes that end in zero, and text")
    yield pytest.param(np.array([["a", "bc"]]), [["a", "bc"]], id="U")
    yield pytest.param(np.array([[b"a", b"bc"]]), [["a", "bc"]], id="S")
    yield pytest.param(ArrayLike(np.array(rows, object)), rows, id="__array__")
    yield pytest.param(
        np.array([[bytearray(b"a"), np.str_("b")]], object), [["a", "b"]], id="alike"
    )


@pytest.mark.parametrize(("x", "wanted"), list(text_arrays()))
def test_text_and_bytes_arrive_whole(client, x, wanted):
    for got in ways(client("text"), x):
        assert [[value.decode() for value in row] for row in got] == wanted


@pytest.mark.parametrize(
    "value", [5, True, np.int64(3), [1, 2], 5.5, None, float("nan"), {"a": 1}, np.zeros(2), b"a"[0]]
)
def test_an_element_that_is_neither_text_nor_bytes_is_refused_by_name(client, value):
    x = np.empty((2, 2), object)
    x[:] = "a"
    x[1, 0] = value
    kind = type(value).__name__
    client = client("text")
    refused_by_every_way(client, x, "input 'x': element [1, 0] is ")
    with pytest.raises(UsageError, match=f"of type {kind}; expected str or bytes"):
        client.predict(x)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ([["a", 5]], "element [0, 1] is 5 of type int"),
        (NUMBERS, "has dtype float32; the model takes text or bytes"),
        ([["a", "\ud800"]], "element [0, 1] is text that UTF-8 cannot carry"),
        (np.array([["a", "\ud800"]]), "element [0, 1] is text that UTF-8 cannot carry"),
        (
            np.array([["a", None]], np.dtypes.StringDType(na_object=None)),
            "element [0, 1] is None of type NoneType",
        ),
    ],
)
def test_what_is_no_text_is_refused_for_a_model_of_text(client, x, says):
    refused_by_every_way(client("text"), x, says)


def test_data_frames_and_series_are_taken(client):
    pandas = pytest.importorskip("pandas")
    frames = [
        pandas.DataFrame({"a": [1, 0], "b": [0.5, 2.5]}),
        pandas.DataFrame({"a": [True, False], "b": [0.5, 2.5]}),
        pandas.DataFrame({"a": pandas.array([1, 0], "Int64"), "b": pandas.array([0.5, 2.5])}),
    ]
    for frame in frames:
        for got in ways(client("float"), frame):
            np.testing.assert_array_equal(got, [[1, 0.5], [0, 2.5]])
    np.testing.assert_array_equal(client("float").predict(pandas.Series([1.0, 2.0])), [[1, 2]])
    texts = pandas.DataFrame({"a": ["x", "y"], "b": pandas.Categorical(["p", "q"])})
    for got in ways(client("text"), texts):
        assert got.tolist() == [[b"x", b"p"], [b"y", b"q"]]


def test_data_frames_that_no_model_can_take_are_refused_by_name(client):
    pandas = pytest.importorskip("pandas")
    sparse = pandas.DataFrame({"a": pandas.arrays.SparseArray([0, 1]), "b": [1, 2]})
    refused_by_every_way(client("float"), sparse, "is sparse (pandas DataFrame)")
    refused_by_every_way(client("float"), sparse["a"], ".sparse.to_dense()")
    mixed = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    refused_by_every_way(client("float"), mixed, "element [0, 1] is 'x' of type str")
    missing = pandas.DataFrame({"a": ["x", "y"], "b": ["z", None]})
    refused_by_every_way(client("text"), missing, "input 'x': element [1, 1] is ")


def test_rows_over_the_models_limit_are_cut(client):
    x = np.arange(10_000.0).reshape(5000, 2)
    client = client("float")
    before = client.statistics().inference_stats.success.count
    np.testing.assert_array_equal(client.predict(x), x)
    assert client.statistics().inference_stats.success.count - before == 5000 / 8
    (streamed,) = client.stream([x])
    np.testing.assert_array_equal(streamed, x)


def test_several_inputs_are_cut_alike(client):
    a = np.arange(100.0).reshape(50, 2)
    found = client("two").predict_outputs({"b": a[::-1], "a": a}, ["sum", "less"])
    np.testing.assert_array_equal(found["sum"], a + a[::-1])
    np.testing.assert_array_equal(found["less"], a - a[::-1])
    np.testing.assert_array_equal(client("two").predict({"a": a, "b": a}, "sum"), 2 * a)


def test_long_texts_are_cut_by_their_bytes(client):
    x = np.array([["a" * LEAST_BYTES, "b"]] * 3, object)
    before = client("text").statistics().inference_stats.success.count
    assert [row[1] for row in client("text").predict(x)] == [b"b"] * 3
    assert client("text").statistics().inference_stats.success.count - before == 3


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"a": NUMBERS, "b": NUMBERS[:1]}, "'a' has 2, 'b' has 1"),
        ({"a": NUMBERS, "c": NUMBERS}, "the model has inputs ['a', 'b']"),
        ({}, "the model has inputs ['a', 'b']"),
        (NUMBERS, "has inputs ['a', 'b']; expected exactly one"),
    ],
)
def test_inputs_that_do_not_go_together_are_a_usage_error(client, inputs, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        client("two").predict(inputs, "sum")


def test_one_request_over_the_limit_says_how_it_can_be_cut(client):
    with pytest.raises(
        UsageError, match=r"got 9 rows in one request; model 'float' takes at most 8: predict\(x\)"
    ):
        client("float").infer({"x": np.zeros((9, 2), np.float32)})


def test_rows_of_a_model_without_a_batch_axis_stay_together(client):
    client = client("total")
    assert client.predict(np.ones((3, 2))) == 6
    with pytest.raises(UsageError, match=r"has shape \[4, 2\]; the model takes \[3, 2\]"):
        client.predict(np.ones((4, 2)))


def test_a_model_of_another_output_than_label_needs_no_name(client):
    assert client("float").default_output() == "y"
    with pytest.raises(UsageError, match=r"has outputs \['sum', 'less'\]"):
        client("two").predict({"a": NUMBERS, "b": NUMBERS})


def test_a_server_that_tells_nothing_of_its_model_is_asked_as_it_is(address):
    """The protocol asks of servers for neither ModelMetadata nor ModelConfig."""
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(address))
        bare = grpc.server(ThreadPoolExecutor())
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        handler = grpc.unary_unary_rpc_method_handler(lambda message, _: infer(message))
        service = grpc.method_handlers_generic_handler(
            "inference.GRPCInferenceService", {"ModelInfer": handler}
        )
        bare.add_generic_rpc_handlers((service,))
        port = bare.add_insecure_port("127.0.0.1:0")
        bare.start()
        stack.callback(lambda: bare.stop(None).wait())
        client = stack.enter_context(Client(f"127.0.0.1:{port}", "float"))
        np.testing.assert_array_equal(client.infer({"x": NUMBERS})["y"], NUMBERS)
        with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
            client.infer({"x": NUMBERS.tolist()})
        with pytest.raises(UsageError, match="has inputs"):
            client.predict(NUMBERS)


def test_outputs_are_found_by_name(client):
    response = client("two").infer({"a": NUMBERS, "b": NUMBERS})
    assert response.names == tuple(response) == ("sum", "less")
    assert "less" in response
    assert "more" not in response
    np.testing.assert_array_equal(response["sum"], 2 * NUMBERS)
    with pytest.raises(KeyError, match=r"no output 'more'; it has \['sum', 'less'\]") as caught:
        response["more"]
    assert str(caught.value).startswith("the response")


def test_another_version_of_the_model_is_asked_about_again(launch, graphs, tmp_path, eventually):
    def write(version, dtype):
        value = (dtype, ["batch", 2])
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        repository = type(graphs)(tmp_path)
        repository.add("changing", nodes, {"x": value}, {"y": value}, version=version)

    write(1, "float32")
    server = launch(tmp_path, "--model-control", "poll", "--poll-s", "0.1")
    with Client(server.address, "changing") as client:

        def answered():
            try:
                return client.predict(NUMBERS).dtype
            except RequestFailed as error:
                return error.code

        assert answered() == np.float32
        write(2, "float64")
        eventually(lambda: answered() == np.float64, "the new version is asked as it wants")
