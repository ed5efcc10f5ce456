"""Texts of a graph are UTF-8 by the format, and nothing makes its author keep to that."""

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 4, 8
# Texts of the graph; in each run one is no UTF-8.
INVALID = b"\xff\xfe"
REFUSED = "model not loaded"  # in the log


def graph():
    """A linear model, with a text wherever there may be one."""
    batch = "axis-x"

    def value(name, kind, shape):
        info = helper.make_tensor_value_info(name, kind, shape, doc_string=f"doc-{name}")
        info.type.denotation = f"denotation-{name}"
        return info

    weights = numpy_helper.from_array(np.ones((FEATURES, CLASSES), np.float32), "weights-name")
    weights.doc_string = "doc-weights"
    argmax = helper.make_node("ArgMax", ["scores-name"], ["label-name"], axis=1, keepdims=0)
    argmax.attribute[0].doc_string = "doc-attribute"
    text = helper.make_node("Constant", [], ["text-name"], value_string=b"text-value")
    matmul = helper.make_node("MatMul", ["x-name", "weights-name"], ["scores-name"])
    for node in (argmax, matmul, text):
        node.name, node.doc_string = f"node-{node.op_type}", f"doc-{node.op_type}"
    entry = matmul.metadata_props.add()
    entry.key, entry.value = "node-key", "node-value"
    made = helper.make_graph(
        [matmul, argmax, text],
        "graph-name",
        [value("x-name", TensorProto.FLOAT, [batch, FEATURES])],
        [
            value("label-name", TensorProto.INT64, [batch]),
            value("scores-name", TensorProto.FLOAT, [batch, CLASSES]),
        ],
        [weights],
        doc_string="doc-graph",
    )
    entry = made.metadata_props.add()
    entry.key, entry.value = "graph-key", "graph-value"
    model = helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    model.producer_name, model.producer_version = "producer-name", "producer-version"
    model.domain, model.doc_string = "domain-name", "doc-model"
    entry = model.metadata_props.add()
    entry.key, entry.value = "model-key", "model-value"
    return model


def linked():
    """A model whose weights lie in another file."""
    model = graph()
    (weights,) = model.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": "128"}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return model


def texts(message):
    for field, value in message.ListFields():
        for each in value if field.is_repeated else [value]:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from texts(each)
            elif field.type == FieldDescriptor.TYPE_STRING and each:
                yield each.encode()
            elif field.name == "s":
                yield each


def damaged(model):
    """The model with each of its texts damaged, wherever that occurs."""
    data = model.SerializeToString()
    for text in sorted(set(texts(model))):
        yield text.decode(), data.replace(text, INVALID[: len(text)] + text[len(INVALID) :])


@pytest.fixture(scope="module")
def start(launch_for_module, tmp_path_factory):
    """Start a server; the folder of its models, and its process."""

    def started(**options):
        folder = tmp_path_factory.mktemp("models")
        export(folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
        words = ("--model-control", "explicit", "--load-model", "linear")
        return folder, launch_for_module(folder, *words, **options)

    return started


def put(folder, data):
    path = folder / "damaged" / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    (path.parent / "weights.bin").write_bytes(np.ones((FEATURES, CLASSES), np.float32).tobytes())


def refusal(caller, folder, data):
    """Why a model is refused, which is one line; None where it is served."""
    put(folder, data)
    try:
        caller.control("RepositoryModelLoad", model_name="damaged")
    except grpc.RpcError as error:
        code, text = error.code(), error.details()
    else:
        code, text = None, ""
    if code is not None:
        assert code is grpc.StatusCode.INVALID_ARGUMENT, text
        (line,) = text.splitlines()
        return line
    message = caller.message("damaged", **{"x-name": np.ones((2, FEATURES), np.float32)})
    outputs = {output.name: output.data for output in caller.infer(message).outputs}
    assert outputs["scores-name"].tolist() == [[FEATURES] * CLASSES] * 2
    for method in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
        caller.control(method, name="damaged")
    return None


@pytest.fixture(scope="module")
def process(start):
    return start()


@pytest.mark.parametrize("made", [graph, linked])
def test_any_text_that_is_no_utf_8_is_refused_in_one_line_or_served(process, call, made):
    folder, started = process
    caller = call(started.address)
    before = "\n".join(started.said()).count(REFUSED)
    found = {text: refusal(caller, folder, data) for text, data in damaged(made())}
    assert found["doc-graph"] is found["producer-name"] is None
    assert "x-name" in found
    if made is linked:
        assert "has weights in b'\\xff\\xfeights.bin', expected UTF-8" in found["weights.bin"]
    said = "\n".join(started.said())
    assert "Traceback" not in said
    refused = sum(line is not None for line in found.values())
    assert said.count(REFUSED) - before == refused


def test_a_text_that_is_no_utf_8_does_not_end_the_process_that_tries_the_model(start, call):
    folder, started = start(validation=True)
    caller = call(started.address)
    ((text, data),) = [each for each in damaged(linked()) if each[0] == "weights.bin"]
    line = refusal(caller, folder, data)
    assert line.endswith("expected UTF-8"), (text, line)
