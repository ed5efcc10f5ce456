"""No text that reaches a client tells where anything lies on the server."""

import os
import sys
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line.onnx_runtime import ort
from protos import inference_pb2 as pb
from protos.codec import decode_stream_response

ROOT = Path(__file__).resolve().parents[3]
X = np.array([[1, 2]], np.float32)


def external(location):
    """A graph whose weights lie in another file."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=str(location))
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()


def put(folder, name, graph=b"", config=None):
    """Write a model, which need not be one."""
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(graph)
    if config is not None:
        (folder / name / "config.pbtxt").write_text(config)
    return path


@pytest.fixture(scope="module")
def repository(graphs, tmp_path_factory):
    """Models of which each fails to load in a way of its own, and one that serves."""
    folder = graphs.folder
    graphs.add(
        "good",
        [helper.make_node("Div", ["a", "x"], ["y"])],
        {"x": ("int64", ["batch", 2])},
        {"y": ("int64", ["batch", 2])},
        {"a": np.array([1, 1])},
    )
    good = (folder / "good" / "1" / "model.onnx").read_bytes()
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_bytes(X.tobytes())
    put(folder, "empty")
    put(folder, "junk", b"junk")
    put(folder, "cut", good[:-10])
    put(folder, "upwards", external("../../../secret"))
    put(folder, "absolute", external(secret))
    put(folder, "absent", external("nothing.bin"))
    (put(folder, "link", external("data")).parent / "data").symlink_to(secret)
    os.link(secret, put(folder, "hard", external("data")).parent / "data")
    os.mkfifo(put(folder, "pipe", good).parent / "pipe")
    put(folder, "outside").unlink()
    (folder / "outside" / "1" / "model.onnx").symlink_to(secret)
    put(folder, "gone").unlink()
    (folder / "gone" / "1" / "model.onnx").symlink_to(folder / "gone" / "1" / "nothing")
    put(folder, "labels", good, 'output { name: "y" label_filename: "no.txt" }')
    put(folder, "sneaking", good, 'default_model_filename: "../../good/1/model.onnx"')
    put(folder, "misspelt", good, "max_batch: 1")
    put(folder, "unfit", good, 'input { name: "z" }')
    put(folder, "binary", good)
    (folder / "binary" / "config.pbtxt").write_bytes(b"\xff")
    put(folder, "bare").unlink()
    (folder / "folder" / "1" / "model.onnx").mkdir(parents=True)
    put(folder, "config", good)
    (folder / "config" / "config.pbtxt").mkdir()
    return folder


@pytest.fixture(scope="module", params=["absolute", "relative", "linked"])
def served(request, launch_for_module, repository, tmp_path_factory):
    """A server of that folder, named in one of several ways, and all that must not be told."""
    folder = repository
    if request.param == "relative":
        folder = Path(os.path.relpath(repository, ROOT))
    elif request.param == "linked":
        folder = tmp_path_factory.mktemp("links") / "models"
        folder.symlink_to(repository)
    options = ("--model-control", "explicit", "--load-model", "good")
    process = launch_for_module(folder, *options)
    hidden = [
        *(str(folder), str(repository), str(repository.parent)),
        *(str(ROOT), sys.prefix, str(Path(ort.__file__).parent), "/tmp/", "/home/"),
        *("Traceback", 'File "', ".py", "0x7f", "elsewhere"),
    ]
    return process, hidden


def names(folder):
    return sorted(each.name for each in folder.iterdir() if each.name != "good")


def control_errors(caller, repository):
    """Texts of everything but inference."""
    requests = [
        *(("RepositoryModelLoad", {"model_name": name}) for name in names(repository)),
        *(("RepositoryModelLoad", {"model_name": name}) for name in ("..", "/etc", "a/b", "", "x")),
        ("RepositoryModelLoad", {"model_name": "good", "parameters": parameters('{"x')}),
        ("RepositoryModelLoad", {"model_name": "good", "parameters": parameters('{"x": 1}')}),
        ("RepositoryModelUnload", {"model_name": "../good"}),
        *(("ModelMetadata", {"name": name}) for name in names(repository)),
        ("ModelConfig", {"name": "good", "version": "../1"}),
        ("ModelStatistics", {"name": "good", "version": "9" * 5000}),
        ("LogSettings", {"settings": {"log_file": setting("/etc/passwd")}}),
        *(
            ("SystemSharedMemoryRegister", {"name": "r", "key": key, "byte_size": 8})
            for key in ("absent", "../passwd", "/", "", "a" * 300, "a\0b")
        ),
    ]
    texts = []
    for method, fields in requests:
        try:
            caller.control(method, **fields)
        except grpc.RpcError as error:
            texts.append(error.details())
        else:
            pytest.fail(f"{method} of {fields} is no error")
    return texts


def parameters(config):
    return {"config": pb.ModelRepositoryParameter(string_param=config)}


def setting(text):
    return pb.LogSettingsRequest.SettingValue(string_param=text)


def inference_errors(caller):
    """Texts of requests that the model, or the graph itself, refuses."""
    good = np.array([[1, 2]])
    messages = [
        b"\xff",
        caller.message("good", x=X),
        caller.message("good", z=good),
        caller.message("good", x=good[:, :1]),
        caller.message("good", x=good[:0]),
        caller.message("good", x=np.zeros((1, 2), np.int64)),
        caller.message("good", outputs=["/etc"], x=good),
        caller.message("../good", x=good),
        caller.message("junk", x=good),
        caller.message("good", version="x", x=good),
    ]
    texts = []
    for message in messages:
        with pytest.raises(grpc.RpcError) as caught:
            caller.infer(message)
        assert caught.value.code() is not grpc.StatusCode.UNKNOWN
        texts.append(caught.value.details())
    stream = caller.open_stream(iter(messages[1:]))
    texts += [decode_stream_response(answer)[0] for answer in stream]
    return texts


def test_no_text_tells_a_path_of_the_server(served, call, repository):
    process, hidden = served
    caller = call(process.address)
    texts = [*control_errors(caller, repository), *inference_errors(caller)]
    states = caller.control("RepositoryIndex").models
    texts += [state.reason for state in states if state.name != "good"]
    assert all(texts)
    told = [(text, name) for text in texts for name in hidden if name in text]
    assert told == []


def test_operators_are_told_where_it_lies(served):
    process, hidden = served
    refusals = [line for line in process.said() if "model not loaded" in line]
    assert any(hidden[0] in line for line in refusals)


def test_external_data_is_what_the_test_says(repository):
    model = onnx.load(repository / "upwards" / "1" / "model.onnx", load_external_data=False)
    assert model.graph.initializer[0].external_data[0].value == "../../../secret"
