import contextlib
import functools
import os
import shutil
import signal

import grpc
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
Code = grpc.StatusCode
X = np.array([[1, 2]], np.float32)
CHAIN = 100_000
MIB = 2**20
IMPORTS_S = 4


def save(path, node, constants=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model_of(node, constants))


def model_of(node, constants=()):
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    return model.SerializeToString()


def save_crashing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(crashing())


@functools.cache
def crashing():
    """A tree that is one long branch: ONNX Runtime goes down it until its stack is full."""
    branches, leaves = CHAIN, CHAIN + 1
    count = branches + leaves
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0] * count,
        nodes_modes=["BRANCH_LEQ"] * branches + ["LEAF"] * leaves,
        nodes_values=[1.0] * count,
        nodes_truenodeids=[*range(1, branches + 1), *([0] * leaves)],
        nodes_falsenodeids=[*range(branches + 1, count), *([0] * leaves)],
        target_treeids=[0] * leaves,
        target_nodeids=list(range(branches, count)),
        target_ids=[0] * leaves,
        target_weights=[1.0] * leaves,
    )
    return model_of(node)


def save_large(path):
    """A graph with 64 MiB of weights."""
    weights = numpy_helper.from_array(np.zeros(16 * MIB, np.float32), "weights")
    save(path, helper.make_node("Identity", ["weights"], ["y"]), [weights])


@pytest.fixture
def models(graphs, tmp_path):
    graphs.folder = tmp_path / "models"
    graphs.add(
        "good",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["batch", 2])},
    )
    return graphs.folder


def answers(caller):
    (output,) = caller.infer(caller.message("good", x=X)).outputs
    return output.data.tolist() == (-X).tolist()


def refusal(caller, name):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("RepositoryModelLoad", model_name=name)
    assert caught.value.code() == Code.INVALID_ARGUMENT
    return caught.value.details()


def explicit(launch, models, *options):
    control = ("--model-control", "explicit", "--load-model", "good")
    return launch(models, *control, *options, validation=True)


def test_a_graph_that_crashes_onnx_runtime_is_an_error(launch, models, call):
    process = explicit(launch, models)
    caller = call(process.address)
    path = models / "bad" / "1" / "model.onnx"
    save_crashing(path)
    text = refusal(caller, "bad")
    assert text.startswith(
        "model 'bad' is not loaded: bad/1/model.onnx: the separate process that loads it"
    )
    assert "ended with SIGSEGV" in text
    assert answers(caller)
    # It serves once it is mended.
    path.write_bytes((models / "good" / "1" / "model.onnx").read_bytes())
    caller.control("RepositoryModelLoad", model_name="bad")
    assert len(caller.infer(caller.message("bad", x=X)).outputs) == 1
    assert process.popen.poll() is None


def test_without_validation_such_a_graph_takes_the_server_along(launch, models, call):
    process = explicit(launch, models, "--validation", "off")
    save_crashing(models / "bad" / "1" / "model.onnx")
    with pytest.raises(grpc.RpcError) as caught:
        call(process.address).control("RepositoryModelLoad", model_name="bad")
    assert caught.value.code() == Code.UNAVAILABLE
    assert process.wait() < 0


def test_what_a_poll_finds_is_tried_too(launch, models, call, eventually):
    process = launch(models, "--model-control", "poll", "--poll-s", "0.05", validation=True)
    caller = call(process.address)
    assert answers(caller)
    save_crashing(models / "bad" / ".1" / "model.onnx")
    os.rename(models / "bad" / ".1", models / "bad" / "1")

    def reasons():
        index = caller.control("RepositoryIndex").models
        return [each.reason for each in index if each.name == "bad" and "SIGSEGV" in each.reason]

    eventually(reasons, "the model was tried")
    assert answers(caller)


def test_a_server_starts_without_a_model_that_crashes(launch, models, call):
    save_crashing(models / "bad" / "1" / "model.onnx")
    assert answers(call(launch(models, "--model-control", "poll", validation=True).address))


@pytest.fixture
def endless(models):
    """A model whose warm-up does not end."""
    shutil.copytree(models / "good", models / "endless")
    sample = 'name: "s" count: 2000000000 inputs { key: "x" value { dims: 2 zero_data: true } }'
    (models / "endless" / "config.pbtxt").write_text(f"model_warmup {{ {sample} }}")
    return "endless"


def start_loading(process, caller, eventually, name):
    """A call that loads a model, and the process that tries it."""
    load = caller.channel.unary_unary(f"{SERVICE}RepositoryModelLoad").future(
        pb.RepositoryModelLoadRequest(model_name=name).SerializeToString(), timeout=60
    )
    (trial,) = eventually(psutil.Process(process.popen.pid).children, "the model is tried")
    return load, trial


def gone(trial):
    """Whether the process has ended, be it that nobody has asked for its exit code yet."""
    return not trial.is_running() or trial.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_stops_does_not_wait_for_a_trial(launch, models, call, eventually, endless):
    process = explicit(launch, models)
    caller = call(process.address)
    load, trial = start_loading(process, caller, eventually, endless)
    assert answers(caller)
    assert process.stop() == 0
    assert load.code() == Code.UNAVAILABLE
    assert gone(trial)


def test_a_server_that_polls_does_not_wait_for_a_trial_either(
    launch, models, call, eventually, endless, tmp_path
):
    os.rename(models / endless, tmp_path / endless)
    process = launch(models, "--model-control", "poll", "--poll-s", "0.05", validation=True)
    os.rename(tmp_path / endless, models / endless)
    (trial,) = eventually(psutil.Process(process.popen.pid).children, "the model is tried")
    assert process.stop() == 0
    assert gone(trial)
    assert not [line for line in process.said() if "could not be polled" in line]


@pytest.mark.parametrize("begun", [False, True], ids=["imports", "runs"])
def test_a_trial_does_not_outlive_a_server_that_was_killed(
    launch, models, call, eventually, endless, begun
):
    process = explicit(launch, models)
    _, trial = start_loading(process, call(process.address), eventually, endless)
    if begun:
        # More than all imports take: it is in the warm-up.
        eventually(lambda: sum(trial.cpu_times()[:2]) > IMPORTS_S, "the trial runs the model")
    process.stop(signal.SIGKILL)
    try:
        eventually(lambda: gone(trial), "the trial has ended")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            trial.kill()


def truncated(path):
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])


def huge(path):
    """Dimensions that no memory holds, of a tensor without its values."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 2**20], raw_data=b"")
    save(path, helper.make_node("Add", ["x", "w"], ["y"]), [tensor])


def of_a_later_opset(path):
    model = onnx.load(path)
    model.opset_import[0].version = 9999
    onnx.save(model, path)


def of_noise(path):
    path.write_bytes(np.random.default_rng(1).bytes(4096))


# One that ONNX Runtime rejects, and one that crashes it; then the other ways to be rejected.
DAMAGES = [
    *(truncated, save_crashing),
    *(
        pytest.param(damage, marks=pytest.mark.slow)
        for damage in (huge, of_a_later_opset, of_noise)
    ),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_graph_ends_the_start_with_its_name(refusal, models, damage):
    path = models / "good" / "1" / "model.onnx"
    damage(path)
    assert refusal("--models", models).startswith(f"{path}: ")


@pytest.fixture(scope="module")
def trying(launch_for_module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trying")
    save(folder / "good" / "1" / "model.onnx", helper.make_node("Neg", ["x"], ["y"]))
    return folder, explicit(launch_for_module, folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_graph_is_not_loaded_and_the_old_one_serves_on(trying, call, damage):
    folder, process = trying
    caller = call(process.address)
    path = folder / "good" / "1" / "model.onnx"
    whole = path.read_bytes()
    damage(path)
    assert "good/1/model.onnx: " in refusal(caller, "good")
    assert answers(caller)
    path.write_bytes(whole)
    caller.control("RepositoryModelLoad", model_name="good")
    assert answers(caller)


def test_memory_over_the_bound_is_an_error(launch, models, call):
    process = explicit(launch, models, "--validation-bytes", str(160 * MIB))
    caller = call(process.address)
    save_large(models / "large" / "1" / "model.onnx")
    assert refusal(caller, "large").endswith("failed:std::bad_alloc")
    assert answers(caller)


def test_a_model_is_tried_with_the_settings_and_the_instances_it_will_have(launch, models, call):
    process = explicit(
        launch,
        models,
        *("--instances", "3", "--graph-optimization", "basic", "--mem-pattern", "off"),
        *("--session-config", "session.set_denormal_as_zero=1", "--validation-bytes"),
        str(500 * MIB),
    )
    caller = call(process.address)
    assert answers(caller)
    # Weights of 40 MiB, which ONNX Runtime copies once.
    export(models, "weighty", from_seed(64, 160_000, 1), "float32", 1)
    path = models / "weighty" / "config.pbtxt"
    own = 'parameters { key: "share_session_between_instances" value { string_value: "false" } }'
    path.write_text(f"instance_group {{ count: 16 }} {own}")
    # Sixteen times the weights are more than the process may have, which would be loaded here.
    assert "weighty/1/model.onnx: " in refusal(caller, "weighty")
    path.write_text("instance_group { count: 8 }")
    caller.control("RepositoryModelLoad", model_name="weighty")


def test_time_over_the_bound_is_an_error(launch, models, call):
    options = ("--model-control", "explicit", "--validation-s", "0.01")
    process = launch(models, *options, validation=True)
    text = refusal(call(process.address), "good")
    assert "good/1/model.onnx: loading it in a separate process took over 0.01 s" in text


def test_errors_are_those_of_loading(serve, models, call):
    """Tried first or not, the text is the same."""
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "model.onnx").write_bytes(b"no graph")
    (models / "wrong" / "1").mkdir(parents=True)
    (models / "wrong" / "config.pbtxt").write_text('input { name: "other" }')
    graph = (models / "good" / "1" / "model.onnx").read_bytes()
    (models / "wrong" / "1" / "model.onnx").write_bytes(graph)
    for name in ("broken", "wrong"):
        texts = {
            refusal(call(serve(models, model_control="explicit", validation=on).address), name)
            for on in (False, True)
        }
        assert len(texts) == 1, texts
