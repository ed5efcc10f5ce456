"""The classification extension, with Triton's client: class_count of a requested output."""

import math
import queue

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import Graphs
from onnx import helper
from tritonclient.utils import shared_memory

from protos.codec import RequestedOutput
from server.errors import InvalidInput, LoadError, StartError
from server.loaded_model.labels import LabelTable, parse
from server.rpc import classification

TIMEOUT_S = 20
DTYPES = {
    "float32": "FP32",
    "float64": "FP64",
    "float16": "FP16",
    "int32": "INT32",
    "uint8": "UINT8",
    "int64": "INT64",
}
LABELS = "zero\n one \r\n\nthree: the last\n"
# The third line is blank, and there is no fifth.
NAMES = ("zero", "one", "", "three: the last")
X = np.array([[1, 5, 5, 0, 2], [4, 3, 2, 1, 0]])


@pytest.fixture(scope="module")
def client(graphs, serve):
    def add(name, dtype, shape, labelled=True):
        value = (dtype, shape)
        node = helper.make_node("Identity", ["x"], ["y"])
        graphs.add(name, [node], {"x": value}, {"y": value})
        if labelled:
            folder = graphs.folder / name
            (folder / "classes").write_text(LABELS)
            (folder / "config.pbtxt").write_text('output { name: "y" label_filename: "classes" }')

    for dtype in DTYPES:
        add(f"rows_{dtype}", dtype, ["batch", 5])
    add("fixed", "float32", [2, 5])
    add("images", "float32", ["batch", 2, 2])
    add("scalars", "int32", ["batch"])
    add("bare", "float32", ["batch", 5], labelled=False)
    add("text", "string", ["batch", 2], labelled=False)
    add("bools", "bool", ["batch", 2], labelled=False)
    with triton.InferenceServerClient(serve(graphs.folder).address) as connected:
        yield connected


def request(data, count, datatype="FP32"):
    x = triton.InferInput("x", list(data.shape), datatype).set_data_from_numpy(data)
    return {"inputs": [x], "outputs": [triton.InferRequestedOutput("y", class_count=count)]}


def classes(client, model, data, count, datatype="FP32"):
    """What the model gives: datatype on the wire, texts."""
    result = client.infer(model, **request(data, count, datatype))
    texts = [[text.decode() for text in row] for row in np.atleast_2d(result.as_numpy("y"))]
    assert list(result.as_numpy("y").shape) == list(result.get_output("y").shape)
    return result.get_output("y").datatype, texts


def text(dtype, value):
    """A value as C++'s std::to_string writes it."""
    return f"{value}.000000" if dtype.startswith("float") else str(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_strongest_classes_of_each_row_come_as_text(client, dtype):
    one, two, three, four, five = (text(dtype, value) for value in (1, 2, 3, 4, 5))
    assert classes(client, f"rows_{dtype}", X.astype(dtype), 4, DTYPES[dtype]) == (
        "BYTES",
        [
            [f"{five}:1:one", f"{five}:2", f"{two}:4", f"{one}:0:zero"],
            [f"{four}:0:zero", f"{three}:1:one", f"{two}:2", f"{one}:3:three: the last"],
        ],
    )


def test_more_classes_than_there_are_elements_give_all_of_them(client):
    _, texts = classes(client, "rows_int32", X[1:].astype(np.int32), 1000, "INT32")
    assert texts == [["4:0:zero", "3:1:one", "2:2", "1:3:three: the last", "0:4"]]


def test_without_a_batch_axis_all_elements_are_one_list(client):
    result = client.infer("fixed", **request(X.astype(np.float32), 3))
    # The first two are elements 1 and 2 of ten.
    assert result.as_numpy("y").tolist() == [b"5.000000:1:one", b"5.000000:2", b"4.000000:5"]
    assert result.get_output("y").shape == [3]


def test_the_elements_of_a_row_are_counted_through_all_its_axes(client):
    x = np.array([[[0, 1], [2, 3]], [[7, 6], [5, 4]]], np.float32)
    _, texts = classes(client, "images", x, 2)
    assert texts == [
        ["3.000000:3:three: the last", "2.000000:2"],
        ["7.000000:0:zero", "6.000000:1:one"],
    ]


def test_a_row_may_be_a_single_value(client):
    _, texts = classes(client, "scalars", np.array([9, -3], np.int32), 2, "INT32")
    assert texts == [["9:0:zero"], ["-3:0:zero"]]


def test_an_output_without_a_label_file_has_no_labels(client):
    assert classes(client, "bare", X[:1].astype(np.float32), 1)[1] == [["5.000000:1"]]


def test_a_stream_gives_the_same(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        for row in X.astype(np.float32):
            client.async_stream_infer("rows_float32", **request(row[np.newaxis], 1))
        results = [answers.get(timeout=TIMEOUT_S) for _ in X]
    finally:
        client.stop_stream()
    assert [error for _, error in results] == [None, None]
    texts = [result.as_numpy("y").tolist() for result, _ in results]
    assert texts == [[[b"5.000000:1:one"]], [[b"4.000000:0:zero"]]]


def test_the_extension_is_listed_and_the_labels_are_among_the_parameters(client):
    assert "classification" in client.get_server_metadata().extensions
    parameters = client.get_model_config("fixed").config.parameters
    assert parameters["labels:y"].string_value == '["zero", "one", "", "three: the last"]'
    assert "labels:y" not in client.get_model_config("bare").config.parameters


def refusal(client, model, data, count=1, datatype="FP32", region=""):
    """The status and text with which a request is refused; its output may lie in a region."""
    asked = request(data, count, datatype)
    if region:
        # Triton's client refuses to ask for both.
        parameters = asked["outputs"][0]._get_tensor().parameters
        parameters["shared_memory_region"].string_param = region
        parameters["shared_memory_byte_size"].int64_param = 4096
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer(model, **asked)
    return caught.value.status(), caught.value.message()


@pytest.mark.parametrize("count", [0, -1, "2", 1.0, True])
def test_anything_but_a_positive_count_is_refused(client, count):
    output = RequestedOutput("y", {classification.PARAMETER: count})
    with pytest.raises(InvalidInput, match=r"output 'y' .*integer of at least 1"):
        classification.counts([output], {"y": np.dtype(np.float32)})


def test_a_negative_count_is_an_invalid_argument(client):
    status, text = refusal(client, "bare", X.astype(np.float32), -1)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "-1, expected an integer" in text


@pytest.mark.parametrize(
    ("model", "data", "datatype"),
    [
        ("text", np.array([[b"a", b"b"]], np.object_), "BYTES"),
        ("bools", np.array([[True, False]]), "BOOL"),
    ],
)
def test_classes_of_what_is_no_number_are_an_invalid_argument(client, model, data, datatype):
    status, text = refusal(client, model, data, 1, datatype)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "output 'y' is no tensor of numbers" in text


def test_classes_in_shared_memory_are_an_invalid_argument(client):
    key = "argmax-test-classification"
    region = shared_memory.create_shared_memory_region(key, key, 4096)
    try:
        client.register_system_shared_memory(key, key, 4096)
        status, text = refusal(client, "bare", X.astype(np.float32), region=key)
        client.unregister_system_shared_memory(key)
    finally:
        shared_memory.destroy_shared_memory_region(region)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "'classification' and 'shared_memory_region', expected one of them" in text


def test_more_text_than_an_answer_should_have_is_refused():
    rows = np.zeros((2**11, 2**10), np.float32)
    with pytest.raises(InvalidInput, match=f"{2**21} classes .* at most {2**20}"):
        classification.strongest("output 'y'", rows, 2**10, (), batched=True)


# Which are the strongest, against sorting in Python.


def naive(row, count):
    def order(index):
        return math.isnan(row[index]), -row[index], index

    return sorted(range(len(row)), key=order)[:count]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "bfloat16", "int8", "uint8", "int64", "uint64"]
)
def test_ties_extremes_and_nan_keep_their_order(dtype, count):
    random = np.random.default_rng(0)
    if dtype == "bfloat16" or dtype.startswith("float"):
        ends = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5]
        dtype = getattr(ml_dtypes, dtype, dtype)
    else:
        ends = [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1]
    rows = np.array(ends, dtype)[random.integers(0, len(ends), (20, 23))]
    texts = classification.strongest("y", rows, count, (), batched=True)
    indices = [[int(text.split(b":")[1]) for text in row] for row in texts]
    assert indices == [naive(row.tolist(), count) for row in rows]


def test_a_batch_without_rows_or_elements_has_no_classes():
    for shape in ((0, 3), (2, 0)):
        texts = classification.strongest("y", np.zeros(shape, np.int32), 2, (), batched=True)
        assert texts.shape == (shape[0], min(2, shape[1]))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float32(0.1), b"0.100000"),
        (np.float64(1e22), b"10000000000000000000000.000000"),
        (np.float32(-0.0), b"-0.000000"),
        (np.float32("inf"), b"inf"),
        (np.float32("nan"), b"nan"),
        (np.float16(0.1), b"0.099976"),
        (np.uint64(2**64 - 1), b"18446744073709551615"),
    ],
)
def test_a_value_is_written_as_to_string_writes_it(value, written):
    (text,) = classification.strongest("y", np.array([value]), 1, ("a",), batched=False)
    assert text == written + b":0:a"


# Label files.


def test_a_label_is_a_line_without_the_blanks_around_it():
    assert tuple(parse(LABELS.encode())) == NAMES
    for data in (b"\xef\xbb\xbfa\nb", "\ufeffa\nb".encode("utf-16-le")):
        assert tuple(parse(data)) == ("a", "b")
    assert tuple(parse(b"")) == ()
    # Only these end a line; str.splitlines knows more.
    assert tuple(parse("a\u2028b\x0bc\n".encode())) == ("a\u2028b\x0bc",)


def test_a_table_of_labels_is_read_like_a_list():
    names = ["", "é", "three words here", ""]
    table = LabelTable.of(names)
    assert list(table) == names
    assert [table[-1 - index] for index in range(4)] == names[::-1]
    assert table[1:3] == names[1:3]
    assert list(LabelTable.of([])) == []
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            table[beyond]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"a\n\xff\n", "byte 2"), (b"a\n" + 1025 * b"b", "line 2 has 1025 characters")],
)
def test_a_label_file_that_is_none_is_refused(data, reason):
    with pytest.raises(StartError, match=reason):
        parse(data)


@pytest.fixture
def folder(tmp_path):
    """A repository of one model, and the label file that its configuration names."""
    value = ("float32", ["batch", 2])
    node = helper.make_node("Identity", ["x"], ["y"])
    Graphs(tmp_path).add("m", [node], {"x": value}, {"y": value})
    config = 'output { name: "y" label_filename: "classes" }'
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    (tmp_path / "m" / "classes").write_text("no\nyes\n")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "reason"), [(b"\xff", "byte 0"), (b"a\n" * 2**23 + b"b", "more than 16777216 bytes")]
)
def test_a_label_file_at_fault_fails_the_load_by_name(serve, folder, data, reason):
    (folder / "m" / "classes").write_bytes(data)
    with pytest.raises(LoadError, match=f"m/classes.*{reason}"):
        serve(folder)


def test_changed_labels_count_once_the_model_is_loaded_again(serve, folder):
    server = serve(folder, model_control="explicit", load_model=("m",))
    x = np.array([[1, 2]], np.float32)
    with triton.InferenceServerClient(server.address) as client:
        assert classes(client, "m", x, 1)[1] == [["2.000000:1:yes"]]
        (folder / "m" / "classes").write_text("nein\nja\n")
        assert classes(client, "m", x, 1)[1] == [["2.000000:1:yes"]]
        client.load_model("m")
        assert classes(client, "m", x, 1)[1] == [["2.000000:1:ja"]]


def test_labels_too_large_for_an_answer_are_no_parameter_but_still_labels(serve, folder):
    (folder / "m" / "classes").write_text("".join(f"{i:01000}\n" for i in range(1100)))
    with triton.InferenceServerClient(serve(folder).address) as client:
        assert "labels:y" not in client.get_model_config("m").config.parameters
        x = np.array([[1, 2]], np.float32)
        assert classes(client, "m", x, 1)[1] == [[f"2.000000:1:{1:01000}"]]
