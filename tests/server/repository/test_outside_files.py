"""Files outside of the repository are not read."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from repository_actions import (
    CLASSES,
    FEATURES,
    Code,
    add,
    answers,
    configure,
    index,
    load,
    refused,
)

from model.export import export
from model.weights import from_seed
from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

OPSETS = [helper.make_opsetid("", 13)]


def _link_model(folder, outside):
    (folder / "linear").symlink_to(outside / "linear")


def _link_version(folder, outside):
    (folder / "linear").mkdir()
    (folder / "linear" / "1").symlink_to(outside / "linear" / "1")


def _link_graph(folder, outside):
    (folder / "linear" / "1").mkdir(parents=True)
    (folder / "linear" / "1" / "model.onnx").symlink_to(outside / "linear" / "1" / "model.onnx")


def _link_config(folder, outside):
    add(folder)
    (folder / "linear" / "config.pbtxt").symlink_to(outside / "linear" / "config.pbtxt")


def _link_labels(folder, outside):
    add(folder)
    configure(folder, 'output { name: "label" label_filename: "labels.txt" }')
    (folder / "linear" / "labels.txt").symlink_to(outside / "linear" / "config.pbtxt")


@pytest.mark.parametrize(
    "link", [_link_model, _link_version, _link_graph, _link_config, _link_labels]
)
def test_what_leads_out_of_the_repository_is_not_read(explicit, folder, tmp_path, link):
    outside = tmp_path / "outside"
    add(outside)
    configure(outside, "max_batch_size: 3")
    folder.mkdir()
    link(folder, outside)
    caller = explicit()
    code, text = refused(load, caller)
    assert code is Code.INVALID_ARGUMENT
    assert "leads out of the model repository" in text
    assert str(tmp_path) not in text
    assert all(state == "UNAVAILABLE" for state, _ in index(caller).values())
    with pytest.raises(StartError, match="leads out"):
        Server(Config(models=folder, address="127.0.0.1:0"))


def _hard_link_graph(folder, outside):
    os.link(outside / "linear" / "1" / "model.onnx", folder / "linear" / "1" / "model.onnx")


def _hard_link_weights(folder, outside):
    graph = outside / "linear" / "1" / "model.onnx"
    (folder / "linear" / "1" / "model.onnx").write_bytes(graph.read_bytes())
    (folder / "linear" / "1" / "deep").mkdir()
    os.link(graph, folder / "linear" / "1" / "deep" / ".weights")


def _hard_link_config(folder, outside):
    os.link(outside / "linear" / "config.pbtxt", folder / "linear" / "config.pbtxt")


@pytest.mark.parametrize("link", [_hard_link_graph, _hard_link_weights, _hard_link_config])
def test_files_that_have_other_names_are_not_read(explicit, folder, tmp_path, link):
    outside = tmp_path / "outside"
    add(outside)
    configure(outside, "max_batch_size: 3")
    (folder / "linear" / "1").mkdir(parents=True)
    link(folder, outside)
    code, text = refused(load, explicit())
    assert code is Code.INVALID_ARGUMENT
    assert "has 2 names (hard links), expected a copy" in text


@pytest.mark.parametrize("place", ["config.pbtxt", "1/weights"])
def test_what_is_no_file_is_not_opened(explicit, folder, place):
    add(folder)
    os.mkfifo(folder / "linear" / place)
    code, text = refused(load, explicit())
    assert code is Code.INVALID_ARGUMENT
    assert text.endswith(f"linear/{place} is neither a file nor a folder")


def test_links_within_the_repository_and_to_it_are_fine(serve, call, folder, tmp_path):
    add(folder)
    (folder / "other").symlink_to(folder / "linear")
    (tmp_path / "link").symlink_to(folder)
    caller = call(serve(tmp_path / "link").address)
    assert answers(caller, 1, name="linear")
    assert answers(caller, 1, name="other")


def test_weights_outside_of_the_version_are_not_read(explicit, folder, tmp_path):
    path = add(folder)
    weights = from_seed(CLASSES, FEATURES, 1)
    export(tmp_path / "apart", "linear", weights, "float32", inline_limit_bytes=0)
    (data,) = (tmp_path / "apart" / "linear" / "1").glob("*.data")
    graph = (tmp_path / "apart" / "linear" / "1" / "model.onnx").read_bytes()
    caller = explicit()
    path.write_bytes(graph)
    (path.parent / data.name).symlink_to(data)
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    (path.parent / data.name).unlink()
    (path.parent / data.name).write_bytes(data.read_bytes())
    load(caller)
    assert answers(caller, 1)


def _external(location, name="w"):
    """A tensor of two numbers that lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(location))
    return tensor


def _initializer(model, tensor):
    model.graph.initializer.append(tensor)


def _sparse_initializer(model, tensor):
    indices = helper.make_tensor("at", TensorProto.INT64, [2], [0, 1])
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, indices=indices))
    model.graph.sparse_initializer[0].dims.append(2)


def _constant(model, tensor):
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    model.graph.node.insert(0, node)


def _initializer_of_a_branch(model, tensor):
    result = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])
    copy = helper.make_node("Identity", ["v"], ["o"])
    tensor.name = "v"
    branch = helper.make_graph([copy], "branch", [], [result], [tensor])
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(yes)
    node = helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(0, node)


def _constant_of_a_function(model, tensor):
    node = helper.make_node("Constant", [], ["v"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    model.functions.append(helper.make_function("own", "Made", [], ["v"], [node], OPSETS))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(0, helper.make_node("Made", [], ["w"], domain="own"))


@pytest.mark.parametrize(
    "put",
    [
        *(_initializer, _sparse_initializer, _constant),
        *(_initializer_of_a_branch, _constant_of_a_function),
    ],
)
@pytest.mark.parametrize("location", ["../../../secret", "deep/../../../../secret", "{absolute}"])
def test_weights_outside_of_the_version_are_not_read_wherever_they_are_named(
    explicit, folder, tmp_path, put, location
):
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([41, 42], np.float32).tobytes())
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "graph", values[:1], values[1:]
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=OPSETS)
    put(model, _external(location.format(absolute=secret)))
    path = folder / "linear" / "1" / "model.onnx"
    (path.parent / "deep").mkdir(parents=True)
    path.write_bytes(model.SerializeToString())
    code, text = refused(load, explicit())
    assert code is Code.INVALID_ARGUMENT
    assert text.endswith("outside its folder")
    assert str(tmp_path) not in text
