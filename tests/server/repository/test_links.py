import os
import shutil

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from server.errors import StartError
from server.onnx.engine import Engine

WIDTH = 64
X = np.random.default_rng(3).standard_normal((3, WIDTH), np.float32)


def weights(seed):
    return np.random.default_rng(seed).standard_normal((WIDTH, WIDTH), np.float32)


def product(seed, location, place="initializer"):
    """A graph that multiplies by weights of another file: its bytes, and those of that file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    kind = (TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", *kind)],
        [helper.make_tensor_value_info("y", *kind)],
    )
    if place == "initializer":
        graph.initializer.append(tensor)
    else:
        constant = helper.make_node("Constant", [], ["w"])
        constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
        graph.node.insert(0, constant)
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model.SerializeToString(), weights(seed).tobytes()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def link(path, target):
    """Make a relative link, as git and the Hugging Face cache do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def both_linked(folder, seed):
    """The Hugging Face cache: every file is a link into a folder of contents."""
    graph, data = product(seed, "model.onnx_data")
    put(folder / ".blobs" / "aaa", graph)
    put(folder / ".blobs" / "bbb", data)
    link(folder / "m" / "1" / "model.onnx", folder / ".blobs" / "aaa")
    link(folder / "m" / "1" / "model.onnx_data", folder / ".blobs" / "bbb")


def weights_linked(folder, seed):
    graph, data = product(seed, "model.onnx_data")
    put(folder / "m" / "1" / "model.onnx", graph)
    put(folder / ".blobs" / "bbb", data)
    link(folder / "m" / "1" / "model.onnx_data", folder / ".blobs" / "bbb")


def weights_of_a_node_linked(folder, seed):
    graph, data = product(seed, "model.onnx_data", "node")
    put(folder / "m" / "1" / "model.onnx", graph)
    put(folder / ".blobs" / "bbb", data)
    link(folder / "m" / "1" / "model.onnx_data", folder / ".blobs" / "bbb")


def graph_linked(folder, seed):
    graph, data = product(seed, "model.onnx_data")
    put(folder / ".blobs" / "aaa", graph)
    link(folder / "m" / "1" / "model.onnx", folder / ".blobs" / "aaa")
    put(folder / "m" / "1" / "model.onnx_data", data)


def apart(folder, seed):
    """Graph and weights are in two folders, and one link leads to another."""
    graph, data = product(seed, "model.onnx_data")
    put(folder / ".graphs" / "aaa", graph)
    put(folder / "shared" / "deep" / "bbb", data)
    link(folder / ".blobs" / "ccc", folder / "shared" / "deep" / "bbb")
    link(folder / "m" / "1" / "model.onnx", folder / ".graphs" / "aaa")
    link(folder / "m" / "1" / "model.onnx_data", folder / ".blobs" / "ccc")


def folder_of_weights_linked(folder, seed):
    graph, data = product(seed, "data/w")
    put(folder / "m" / "1" / "model.onnx", graph)
    put(folder / "shared" / "w", data)
    link(folder / "m" / "1" / "data", folder / "shared")


def version_linked(folder, seed):
    """A snapshot of the Hugging Face cache stands for the version."""
    hub = folder / ".hub" / "models--a--b"
    graph, data = product(seed, "model.onnx_data")
    put(hub / "blobs" / "aaa", graph)
    put(hub / "blobs" / "bbb", data)
    link(hub / "snapshots" / "c0ffee" / "model.onnx", hub / "blobs" / "aaa")
    link(hub / "snapshots" / "c0ffee" / "model.onnx_data", hub / "blobs" / "bbb")
    link(folder / "m" / "1", hub / "snapshots" / "c0ffee")


def model_linked(folder, seed):
    graph, data = product(seed, "model.onnx_data")
    put(folder / ".other" / "1" / "model.onnx", graph)
    put(folder / ".other" / "1" / "model.onnx_data", data)
    link(folder / "m", folder / ".other")


LAYOUTS = [
    *(both_linked, weights_linked, weights_of_a_node_linked, graph_linked, apart),
    *(folder_of_weights_linked, version_linked, model_linked),
]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def answers(caller, seed):
    """Whether the model multiplies by the weights of a seed."""
    response = caller.infer(caller.message("m", x=X))
    return np.allclose(response.outputs[0].data, X @ weights(seed), rtol=1e-4, atol=1e-4)


def refused(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("RepositoryModelLoad", model_name="m")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details()


@pytest.fixture
def explicit(serve, call, folder):
    return lambda **options: call(serve(folder, model_control="explicit", **options).address)


@layouts
def test_links_inside_the_repository_are_followed(explicit, folder, layout):
    layout(folder, 1)
    caller = explicit(load_model=("*",))
    assert answers(caller, 1)


def test_links_are_followed_in_the_process_that_tries_a_model_too(explicit, folder):
    both_linked(folder, 1)
    assert answers(explicit(load_model=("*",), validation=True), 1)


def test_a_repository_that_is_a_relative_path_and_a_link_itself_is_served(
    serve, call, folder, tmp_path, monkeypatch
):
    weights_linked(folder, 1)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    caller = call(serve(type(folder)("link")).address)
    assert answers(caller, 1)


@layouts
def test_a_poll_sees_that_what_links_lead_to_has_changed(serve, call, folder, layout, eventually):
    layout(folder, 1)
    caller = call(serve(folder, model_control="poll", poll_s=0.01).address)
    assert answers(caller, 1)
    # Whatever file it is that has these bytes, it is replaced where it lies.
    old, new = (product(seed, "")[1] for seed in (1, 2))
    (path,) = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.read_bytes() == old
    ]
    temporary = path.with_name(".new")
    temporary.write_bytes(new)
    temporary.replace(path)
    eventually(lambda: answers(caller, 2), "the new weights serve")


@layouts
def test_what_links_lead_to_may_not_be_outside(explicit, folder, tmp_path, layout):
    layout(tmp_path / "outside", 1)
    shutil.copytree(tmp_path / "outside", folder, symlinks=True, dirs_exist_ok=True)
    caller = explicit(load_model=("*",))
    assert answers(caller, 1)
    # The same, but for one of the files that links lead to.
    data = weights(1).tobytes()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
            path.unlink()
            path.symlink_to(tmp_path / "outside" / path.relative_to(folder))
    assert "leads out of the model repository" in refused(caller)
    assert str(tmp_path) not in refused(caller)


def test_a_graph_is_not_loaded_with_weights_that_lie_outside(folder):
    weights_linked(folder, 1)
    path = folder / "m" / "1" / "model.onnx"
    assert Engine(path, 1, repository=folder).inputs[0].shape == (None, WIDTH)
    # Without a repository it is the graph's own folder that links may not leave.
    with pytest.raises(StartError, match="which leads out of the model repository"):
        Engine(path, 1)
    with pytest.raises(StartError, match="which leads out of the model repository"):
        Engine(path, 1, repository=folder / "m")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.link(path.parent / "bbb", path)])
def test_links_to_what_is_no_plain_file_of_one_name_are_refused(explicit, folder, make):
    both_linked(folder, 1)
    target = folder / ".blobs" / "other"
    make(target)
    link(folder / "m" / "1" / "more", target)
    text = refused(explicit())
    assert "neither a file nor a folder" in text or "has 2 names (hard links)" in text


def test_a_pipe_in_a_folder_that_a_link_leads_to_is_refused(explicit, folder):
    folder_of_weights_linked(folder, 1)
    os.mkfifo(folder / "shared" / "pipe")
    assert refused(explicit()).endswith("m/1/data/pipe is neither a file nor a folder")


@pytest.mark.parametrize("name", ["model.onnx", "more"])
def test_links_in_a_circle_are_refused(explicit, folder, name):
    if name != "model.onnx":
        both_linked(folder, 1)
    for one, other in ((name, "back"), ("back", name)):
        link(folder / "m" / "1" / one, folder / "m" / "1" / other)
    assert "Too many levels of symbolic links" in refused(explicit())


def test_a_link_to_a_folder_above_it_is_no_endless_way(explicit, folder):
    both_linked(folder, 1)
    link(folder / "m" / "1" / "up", folder / "m")
    link(folder / "m" / "1" / "all", folder)
    assert answers(explicit(load_model=("*",)), 1)


def test_a_link_that_leads_nowhere_is_named(explicit, folder):
    link(folder / "m" / "1" / "model.onnx", folder / ".blobs" / "gone")
    assert refused(explicit()).endswith("m/1/model.onnx: No such file or directory")
    shutil.rmtree(folder / "m")
    graph, _ = product(1, "model.onnx_data")
    put(folder / "m" / "1" / "model.onnx", graph)
    link(folder / "m" / "1" / "model.onnx_data", folder / ".blobs" / "gone")
    text = refused(explicit())
    assert text.endswith("m/1/model.onnx has weights in 'model.onnx_data', a broken link")


def test_a_location_may_not_leave_its_folder_without_a_link(explicit, folder):
    graph, data = product(1, "../../shared/w")
    put(folder / "m" / "1" / "model.onnx", graph)
    put(folder / "shared" / "w", data)
    assert refused(explicit()).endswith("in '../../shared/w', outside its folder")


def test_a_graph_with_its_weights_inside_is_linked_as_well(explicit, folder):
    graph, _ = product(1, "w")
    model = onnx.load_from_string(graph)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(1), "w"))
    put(folder / ".blobs" / "aaa", model.SerializeToString())
    link(folder / "m" / "1" / "model.onnx", folder / ".blobs" / "aaa")
    assert answers(explicit(load_model=("*",)), 1)
