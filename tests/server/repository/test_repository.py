import json
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from conftest import STEPS_CONFIG
from onnx import TensorProto, helper

from model.export import export
from model.weights import from_seed
from protos.codec import decode_response, decode_stream_response
from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

CLASSES, FEATURES = 4, 8
X = np.random.default_rng(1).standard_normal((5, FEATURES), np.float32)
OPSETS = [helper.make_opsetid("", 13)]
MIB = 2**20

Code = grpc.StatusCode


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def explicit(serve, call, folder):
    """Start a server that loads by request; a caller of it."""
    return lambda **options: call(serve(folder, model_control="explicit", **options).address)


def add(folder, name="linear", version=1, seed=None):
    """Write a model whose scores tell its seed, which is its version unless given."""
    weights = from_seed(CLASSES, FEATURES, version if seed is None else seed)
    return export(folder, name, weights, "float32", version=version)


def scores(seed):
    return X @ from_seed(CLASSES, FEATURES, seed).astype(np.float32).T


def answers(caller, seed, version="", name="linear"):
    """Whether the model gives the scores of a seed."""
    response = caller.infer(caller.message(name, outputs=["scores"], version=version, x=X))
    return np.allclose(response.outputs[0].data, scores(seed), rtol=1e-5)


def configure(folder, text, name="linear"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "config.pbtxt").write_text(text)


def load(caller, name="linear", **parameters):
    caller.control("RepositoryModelLoad", model_name=name, parameters=parameters)


def unload(caller, name="linear", **parameters):
    caller.control("RepositoryModelUnload", model_name=name, parameters=parameters)


def index(caller, **fields):
    """State and reason by name and version."""
    told = caller.control("RepositoryIndex", **fields).models
    return {(one.name, one.version): (one.state, one.reason) for one in told}


def refused(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return caught.value.code(), caught.value.details()


# Versions.


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (None, ["3"]),
        ("latest { num_versions: 2 }", ["2", "3"]),
        ("all {}", ["1", "2", "3"]),
        ("specific { versions: [1, 2] }", ["1", "2"]),
    ],
)
def test_the_version_policy_decides_what_serves(serve, call, folder, policy, served):
    for version in (1, 2, 3):
        add(folder, version=version)
    if policy:
        configure(folder, f"version_policy {{ {policy} }}")
    caller = call(serve(folder).address)
    assert answers(caller, int(served[-1]))
    for version in ("1", "2", "3"):
        state, reason = index(caller)["linear", version]
        if version in served:
            assert answers(caller, int(version), version)
            assert caller.control("ModelReady", name="linear", version=version).ready
            metadata = caller.control("ModelMetadata", name="linear", version=version)
            assert list(metadata.versions) == served
            config = caller.control("ModelConfig", name="linear", version=version).config
            assert (
                config.version_policy.WhichOneof("policy_choice") == (policy or "latest").split()[0]
            )
            assert (state, reason) == ("READY", "")
        else:
            for call_it in (
                lambda: answers(caller, 0, version),  # noqa: B023
                lambda: caller.control("ModelReady", name="linear", version=version),  # noqa: B023
            ):
                assert refused(call_it)[0] is Code.NOT_FOUND
            assert (state, reason) == ("UNAVAILABLE", "not of the version policy")
    assert len(index(caller)) == 3
    assert list(index(caller, ready=True)) == [("linear", version) for version in served]


def test_each_version_has_statistics_of_its_own(serve, call, folder):
    for version in (2, 10):
        add(folder, version=version)
    configure(folder, "version_policy { all {} }")
    caller = call(serve(folder).address)
    for version, times in (("2", 1), ("10", 2), ("", 3)):
        for _ in range(times):
            answers(caller, 0, version)
    both = caller.control("ModelStatistics", name="linear").model_stats
    assert {one.version: one.execution_count for one in both} == {"2": 1, "10": 5}
    (one,) = caller.control("ModelStatistics", name="linear", version="2").model_stats
    assert one.execution_count == 1


# Who may load and unload.


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_requests_may_not_load_unless_control_is_explicit(serve, call, folder, mode):
    add(folder)
    caller = call(serve(folder, model_control=mode).address)
    for change in (load, unload):
        code, text = refused(change, caller)
        assert code is Code.UNAVAILABLE
        assert "explicit model load / unload is not allowed" in text
        assert mode in text
    assert answers(caller, 1)


def test_explicit_control_starts_with_nothing(explicit, folder):
    add(folder)
    caller = explicit()
    assert caller.control("ServerReady").ready
    assert index(caller) == {("linear", "1"): ("UNAVAILABLE", "not loaded")}
    assert index(caller, ready=True) == {}
    assert refused(answers, caller, 1)[0] is Code.NOT_FOUND
    load(caller)
    assert answers(caller, 1)


@pytest.mark.parametrize(
    ("names", "loaded"), [(("b",), ["b"]), (("b", "a"), ["a", "b"]), (("*",), ["a", "b", "c"])]
)
def test_explicit_control_starts_with_what_it_is_told(explicit, folder, names, loaded):
    for name in ("a", "b", "c"):
        add(folder, name)
    caller = explicit(load_model=names)
    assert [name for name, _ in index(caller, ready=True)] == loaded


@pytest.mark.parametrize("mode", ["explicit", "poll"])
def test_an_empty_repository_is_fine_where_models_may_come_later(serve, call, folder, mode):
    folder.mkdir()
    caller = call(serve(folder, model_control=mode).address)
    assert index(caller) == {}
    assert caller.control("ServerReady").ready


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["holds no model"]),
        ({"model_control": "explicit", "load_model": ("nobody",)}, ["--load-model", "'nobody'"]),
        ({"model_control": "explicit", "load_model": ("../x",)}, ["--load-model", "'../x'"]),
        ({"model_control": "explicit", "load_model": ("*", "a")}, ["--load-model", "'*'"]),
        ({"load_model": ("a",)}, ["--load-model", "none"]),
    ],
)
def test_what_cannot_be_started_with_is_refused(folder, options, words):
    folder.mkdir()
    with pytest.raises(StartError) as caught:
        Server(Config(models=folder, address="127.0.0.1:0", **options))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"model_control": "explicit", "load_model": ("*",)}])
@pytest.mark.parametrize(
    ("text", "words"),
    [("max_batch_size: x", ["config.pbtxt", "line 1"]), ('name: "z"', ["config.pbtxt", "'z'"])],
)
def test_a_model_that_cannot_be_loaded_at_start_is_refused(folder, options, text, words):
    add(folder, "good")
    add(folder)
    configure(folder, text)
    with pytest.raises(StartError) as caught:
        Server(Config(models=folder, address="127.0.0.1:0", validation=False, **options))
    for word in (str(folder / "linear"), *words):
        assert word in str(caught.value)


# Load and unload.


def test_a_model_is_unloaded_and_loaded_again(explicit, folder):
    add(folder)
    caller = explicit(load_model=("linear",))
    assert index(caller) == {("linear", "1"): ("READY", "")}
    unload(caller, unload_dependents={"bool_param": True})
    assert index(caller) == {("linear", "1"): ("UNAVAILABLE", "unloaded")}
    assert not caller.control("ModelReady", name="linear").ready
    code, text = refused(answers, caller, 1)
    assert code is Code.UNAVAILABLE
    assert "'linear'" in text
    assert "unloaded" in text
    unload(caller)
    load(caller)
    assert index(caller) == {("linear", "1"): ("READY", "")}
    assert answers(caller, 1)


def test_loading_again_takes_what_the_files_hold_now(explicit, folder):
    add(folder)
    caller = explicit(load_model=("linear",))
    add(folder, seed=7)
    assert answers(caller, 1)
    load(caller)
    assert answers(caller, 7)
    load(caller)
    assert answers(caller, 7)
    add(folder, version=2)
    load(caller)
    assert answers(caller, 2)
    assert list(index(caller, ready=True)) == [("linear", "2")]


def test_a_load_that_fails_leaves_what_serves_and_says_why(explicit, folder):
    path = add(folder)
    caller = explicit(load_model=("linear",))
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(good[:100])
    code, text = refused(load, caller)
    assert code is Code.INVALID_ARGUMENT
    assert "linear/1/model.onnx" in text
    assert str(folder) not in text
    ((state, reason),) = index(caller).values()
    assert state == "READY"
    assert "linear/1/model.onnx" in reason
    assert answers(caller, 1)
    add(folder, seed=3)
    load(caller)
    assert index(caller) == {("linear", "1"): ("READY", "")}
    assert answers(caller, 3)


def test_all_versions_are_loaded_or_none(explicit, folder):
    add(folder, version=1)
    configure(folder, "version_policy { all {} }")
    caller = explicit(load_model=("linear",))
    add(folder, version=1, seed=8)
    add(folder, version=3)
    add(folder, version=2).write_bytes(b"no graph")
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    states = index(caller)
    assert [state for state, _ in states.values()] == ["READY", "UNAVAILABLE", "UNAVAILABLE"]
    assert answers(caller, 1)


def test_each_version_has_a_reason_of_its_own(explicit, folder, eventually):
    for version in (1, 2, 3, 4):
        add(folder, version=version)
    configure(folder, "version_policy { specific { versions: [1, 2, 3, 6] } }")
    caller = explicit()
    (folder / "linear" / "2" / "model.onnx").write_bytes(b"no graph")
    (folder / "linear" / "3" / "model.onnx").write_bytes(b"")
    (folder / "linear" / "6").mkdir()
    code, text = refused(load, caller)
    assert code is Code.INVALID_ARGUMENT
    assert "linear/2/model.onnx" in text
    assert "linear/3/model.onnx" in text
    # Those that could be loaded are unloaded again.
    gone = {"UNAVAILABLE"}
    eventually(lambda: {state for state, _ in index(caller).values()} == gone, "all are gone")
    found = index(caller)
    reasons = {version: reason for (_, version), (_, reason) in found.items()}
    assert re.fullmatch("linear/2/model.onnx: ONNX Runtime cannot load it: .*", reasons["2"])
    assert re.fullmatch("linear/3/model.onnx: ONNX Runtime cannot load it: .*", reasons["3"])
    all_or_none = "version 2, 3 cannot be loaded, and versions are loaded all or none"
    assert reasons["1"] == all_or_none
    assert reasons["4"] == "not of the version policy"
    assert reasons["6"] == "linear/6: got no model.onnx in it"
    for version in (2, 3):
        add(folder, version=version)
    load(caller)
    (folder / "linear" / "2" / "model.onnx").write_bytes(b"no graph")
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    after = index(caller)
    assert [state for state, _ in after.values()] == [*["READY"] * 3, *["UNAVAILABLE"] * 2]
    assert after["linear", "2"][1] == reasons["2"]
    for version in ("1", "3"):
        assert after["linear", version][1] == all_or_none.replace("2, 3", "2")


def test_a_failure_of_the_configuration_is_that_of_every_version(explicit, folder):
    for version in (1, 2):
        add(folder, version=version)
    configure(folder, "max_batch_size: x")
    caller = explicit()
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    reasons = [reason for _, reason in index(caller).values()]
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("linear/config.pbtxt: line 1: ")


def test_a_first_load_that_fails_is_unavailable_and_says_why(explicit, folder):
    add(folder).write_bytes(b"no graph")
    caller = explicit()
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    ((state, reason),) = index(caller).values()
    assert state == "UNAVAILABLE"
    assert "linear/1/model.onnx" in reason
    assert refused(answers, caller, 1)[0] is Code.UNAVAILABLE


def test_a_model_without_a_version_is_listed_with_the_reason(explicit, folder):
    configure(folder, "max_batch_size: 3")
    caller = explicit()
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    (((name, version), (state, reason)),) = index(caller).items()
    assert (name, version, state) == ("linear", "", "UNAVAILABLE")
    assert "no version" in reason


def test_a_configuration_may_come_with_the_request(explicit, folder):
    add(folder)
    configure(folder, "max_batch_size: 3")
    caller = explicit(load_model=("linear",))
    load(caller, config={"string_param": '{"max_batch_size": 5}'})
    assert caller.control("ModelConfig", name="linear").config.max_batch_size == 5
    load(caller)
    assert caller.control("ModelConfig", name="linear").config.max_batch_size == 3


@pytest.mark.parametrize(
    ("change", "name", "value", "code"),
    [
        (load, "config", {"string_param": "{"}, Code.INVALID_ARGUMENT),
        (load, "config", {"string_param": '{"name": "other"}'}, Code.INVALID_ARGUMENT),
        (load, "config", {"bytes_param": b"{}"}, Code.INVALID_ARGUMENT),
        (load, "colour", {"string_param": "red"}, Code.INVALID_ARGUMENT),
        (load, "file:1/model.onnx", {"bytes_param": b"x"}, Code.UNIMPLEMENTED),
        (unload, "unload_dependents", {"string_param": "yes"}, Code.INVALID_ARGUMENT),
        (unload, "colour", {"bool_param": True}, Code.INVALID_ARGUMENT),
    ],
)
def test_a_parameter_that_is_not_served_is_refused_by_name(
    explicit, folder, change, name, value, code
):
    add(folder)
    caller = explicit(load_model=("linear",))
    got, text = refused(change, caller, **{name: value})
    assert got is code
    assert (name in text) or "'other'" in text
    assert answers(caller, 1)


@pytest.mark.parametrize(
    "method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"]
)
def test_another_repository_is_unimplemented(explicit, folder, method):
    add(folder)
    code, text = refused(explicit().control, method, repository_name="other")
    assert code is Code.UNIMPLEMENTED
    assert "'other'" in text


@pytest.mark.parametrize("change", [load, unload])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody", Code.NOT_FOUND),
        ("", Code.INVALID_ARGUMENT),
        (".", Code.INVALID_ARGUMENT),
        ("..", Code.INVALID_ARGUMENT),
        ("../models/linear", Code.INVALID_ARGUMENT),
        ("linear/1", Code.INVALID_ARGUMENT),
        ("/etc", Code.INVALID_ARGUMENT),
        ("linear\0", Code.INVALID_ARGUMENT),
        (".hidden", Code.INVALID_ARGUMENT),
    ],
)
def test_a_name_that_is_no_model_is_refused(explicit, folder, change, name, code):
    add(folder)
    add(folder, ".hidden")
    got, text = refused(change, explicit(), name)
    assert got is code
    assert repr(name) in text


# Nothing outside of the folder is read.


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


# Requests under way.


class Background:
    """Run a change beside the test; `join` raises what it raised."""

    def __init__(self, change, *arguments):
        self._run = ThreadPoolExecutor(1)
        self._future = self._run.submit(change, *arguments)
        self._run.shutdown(wait=False)
        self.done = self._future.done

    def join(self):
        self._future.result(30)


@pytest.fixture
def steps(graphs, folder, explicit):
    """A server whose model `steps` can be kept busy, and lets three requests wait meanwhile."""
    graphs.folder = folder
    graphs.add_steps()
    policy = STEPS_CONFIG + "dynamic_batching { default_queue_policy { max_queue_size: 4 } }"
    configure(folder, policy, "steps")
    return explicit(load_model=("steps",), group_rows=2)


def three_that_wait(caller, eventually):
    """Three requests of which it is known that they are in the queue of a busy worker."""
    message = caller.message("steps", steps=np.array([[3]]))
    calls = [caller.infer_later(message) for _ in range(6)]
    eventually(lambda: sum(call.done() for call in calls) == 3, "there is room for three")
    return [call for call in calls if not call.done()]


def test_unloading_waits_for_what_was_accepted(steps, call, eventually):
    other = call(steps.address)
    with steps.busy_worker():
        waiting = three_that_wait(steps, eventually)
        unloading = Background(unload, other, "steps")
        eventually(lambda: index(other) == {("steps", "1"): ("UNLOADING", "")}, "it is unloading")
        message = other.message("steps", steps=np.array([[3]]))
        assert refused(other.infer, message)[0] is Code.UNAVAILABLE
        assert not unloading.done()
        assert not any(call.done() for call in waiting)
    unloading.join()
    for call_under_way in waiting:
        assert decode_response(call_under_way.result()).outputs[0].data == 3
    assert index(other) == {("steps", "1"): ("UNAVAILABLE", "unloaded")}


def test_what_waits_is_answered_by_the_version_that_took_it(
    steps, call, graphs, folder, eventually
):
    other = call(steps.address)
    message = other.message("steps", steps=np.array([[3]]))
    with steps.busy_worker():
        waiting = three_that_wait(steps, eventually)
        shutil.rmtree(folder / "steps" / "1")
        value = ("int64", ["batch", 1])
        nodes = [helper.make_node("Neg", ["steps"], ["done"])]
        graphs.add("steps", nodes, {"steps": value}, {"done": value})
        load(other, "steps")
        # The new one serves beside the old, which is busy still.
        assert other.infer(message).outputs[0].data == -3
        assert index(other) == {("steps", "1"): ("READY", "")}
        # A third would be one too many in memory.
        third = Background(load, other, "steps")
        assert {other.infer(message).outputs[0].data.item() for _ in range(100)} == {-3}
        assert not third.done()
        assert not any(call.done() for call in waiting)
    third.join()
    for call_under_way in waiting:
        assert decode_response(call_under_way.result()).outputs[0].data == 3


def test_what_was_on_its_way_to_the_old_version_goes_to_the_new(
    graphs, folder, explicit, eventually
):
    graphs.folder = folder
    graphs.add_steps()
    add(folder)
    caller = explicit(load_model=("*",), group_rows=2, max_inflight_bytes=26_000)
    large = caller.message("linear", outputs=["scores"], parameters={"note": "n" * 6000}, x=X)
    small = caller.message("linear", x=X)
    with caller.busy_worker():
        # There is no room beside the request that keeps the worker busy, nor a way past this one.
        on_its_way = caller.infer_later(large)
        eventually(lambda: times_out(caller, small), "it waits for room")
        add(folder, seed=7)
        load(caller)
        # Which waits until the first is closed.
        load(caller)
        assert not on_its_way.done()
    response = decode_response(on_its_way.result())
    np.testing.assert_allclose(response.outputs[0].data, scores(7), rtol=1e-5)
    assert caller.statistics("linear").inference_stats.fail.count == 0


def times_out(caller, message):
    try:
        caller.infer(message, timeout=0.1)
    except grpc.RpcError as error:
        if error.code() not in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
            raise
        return True
    return False


def test_a_version_is_loading_until_it_is_warmed_up(explicit, call, folder, eventually):
    add(folder)
    caller = explicit()
    warmup = {"name": "w", "count": 100_000, "inputs": {"x": {"dims": [8], "zero_data": True}}}
    config = {"string_param": json.dumps({"model_warmup": [warmup]})}
    loading = Background(partial(load, call(caller.address), config=config))
    eventually(lambda: index(caller) == {("linear", "1"): ("LOADING", "")}, "it is loading")
    code, text = refused(answers, caller, 1)
    assert code is Code.UNAVAILABLE
    assert "being loaded" in text
    loading.join()
    assert answers(caller, 1)


def resident_bytes(process):
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def test_memory_of_replaced_versions_is_given_back(launch, call, folder, eventually):
    features, classes = 65_536, 128
    size = features * classes * 4
    export(folder, "wide", from_seed(classes, features, 0), "float32")
    process = launch(folder, "--model-control", "explicit", "--load-model", "wide")
    caller = call(process.address)
    silence = threading.Event()

    def messages():
        yield caller.message("wide", x=np.ones((1, features), np.float32))
        silence.wait(60)

    stream = caller.open_stream(messages(), timeout=100)
    try:
        assert decode_stream_response(next(stream))[0] == ""
        before = resident_bytes(process)
        # A stream that was answered by the first holds on to none of them.
        for _ in range(4):
            load(caller, "wide")
        eventually(lambda: resident_bytes(process) - before < size, "the memory is given back")
        unload(caller, "wide")
        eventually(lambda: before - resident_bytes(process) > size / 2, "nothing is left of it")
    finally:
        silence.set()


# Polling.


@pytest.fixture
def polled(serve, call, folder):
    """Start a server that looks at the folder all the time; a caller of it."""
    return lambda: call(serve(folder, model_control="poll", poll_s=0.03).address)


def test_polling_finds_what_is_new_changed_and_gone(polled, folder, eventually):
    folder.mkdir()
    caller = polled()
    add(folder, "first")
    eventually(lambda: ("first", "1") in index(caller, ready=True), "the first is there")
    add(folder, "second")
    eventually(lambda: ("second", "1") in index(caller, ready=True), "the second is there")
    add(folder, "first", seed=5)
    eventually(lambda: answers(caller, 5, name="first"), "the first has changed")
    configure(folder, "max_batch_size: 5", "first")
    eventually(
        lambda: caller.control("ModelConfig", name="first").config.max_batch_size == 5,
        "the first is configured",
    )
    shutil.rmtree(folder / "second")
    eventually(lambda: ("second", "1") not in index(caller), "the second is gone")
    assert refused(answers, caller, 1, name="second")[0] is Code.NOT_FOUND
    assert "second:1" not in [thread.name for thread in threading.enumerate()]
    assert answers(caller, 5, name="first")


def test_polling_loads_a_new_version_and_leaves_the_others_alone(polled, folder, eventually):
    add(folder, version=1)
    configure(folder, "version_policy { all {} }")
    caller = polled()
    assert answers(caller, 1)
    add(folder, version=2)
    eventually(lambda: ("linear", "2") in index(caller, ready=True), "the new one is there")
    assert answers(caller, 2)
    assert answers(caller, 1, "1")
    (one,) = caller.control("ModelStatistics", name="linear", version="1").model_stats
    assert one.execution_count == 2
    shutil.rmtree(folder / "linear" / "2")
    eventually(lambda: ("linear", "2") not in index(caller), "the new one is gone")
    assert answers(caller, 1)


def test_polling_goes_on_after_what_cannot_be_loaded(polled, folder, eventually, caplog):
    add(folder)
    add(folder, "broken").write_bytes(b"no graph")
    caller = polled()
    states = index(caller)
    assert states["broken", "1"][0] == "UNAVAILABLE"
    assert "broken/1/model.onnx" in states["broken", "1"][1]
    assert answers(caller, 1)
    configure(folder, "max_batch_size: x")
    eventually(lambda: "line 1" in index(caller)["linear", "1"][1], "it says what is wrong")
    # It was tried once: polls since then found the files to be what they were.
    assert [one.model for one in caplog.records if one.levelname == "ERROR"] == ["broken", "linear"]
    assert index(caller)["linear", "1"][0] == "READY"
    assert answers(caller, 1)
    configure(folder, "max_batch_size: 6")
    add(folder, "broken", seed=9)
    eventually(lambda: answers_if_ready(caller, 9, "broken"), "it is mended")
    eventually(lambda: index(caller)["linear", "1"] == ("READY", ""), "so is the other")


def answers_if_ready(caller, seed, name):
    try:
        return answers(caller, seed, name=name)
    except grpc.RpcError as error:
        if error.code() is not Code.UNAVAILABLE:
            raise
        return False


def test_a_folder_that_vanishes_unloads_nothing_by_request(explicit, folder):
    add(folder)
    caller = explicit(load_model=("linear",))
    shutil.rmtree(folder)
    assert index(caller) == {("linear", "1"): ("READY", "")}
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    assert answers(caller, 1)


def test_a_server_that_loads_by_request_drains_as_any_other(launch, call, folder):
    add(folder)
    for options in (["explicit", "--load-model", "linear"], ["poll", "--poll-s", "0.01"]):
        process = launch(folder, "--model-control", *options)
        assert answers(call(process.address), 1)
        assert process.stop() == 0
        assert [line for line in process.said() if '"error"' in line] == []
