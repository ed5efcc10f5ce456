"""What is in the files of a model is read by a process with limits, not by the server."""

import os
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

MIB = 2**20
X = np.array([[1, 2]], np.float32)
LABELLED = 'output { name: "y" label_filename: "labels" }'
# What protobuf's text format takes 150 times as much memory for.
BLANKS = " " * (MIB - 1) + "\n"
MOST_RISE = 24 * MIB


@pytest.fixture
def models(graphs, tmp_path):
    graphs.folder = tmp_path / "models"
    add(graphs, "good")
    add(graphs, "m")
    return graphs.folder


def add(graphs, name):
    value = ("float32", ["batch", 2])
    graphs.add(name, [helper.make_node("Neg", ["x"], ["y"])], {"x": value}, {"y": value})


@pytest.fixture
def explicit(launch, models):
    """Start a server of the model `good` that loads others by request."""
    control = ("--model-control", "explicit", "--load-model", "good")
    return lambda *options: launch(models, *control, *options, validation=True)


def load(caller, name="m", **parameters):
    caller.control("RepositoryModelLoad", model_name=name, parameters=parameters)


def refusal(caller, **parameters):
    with pytest.raises(grpc.RpcError) as caught:
        load(caller, **parameters)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details().removeprefix("model 'm' is not loaded: ")


def answers(caller, name="good"):
    (output,) = caller.infer(caller.message(name, x=X)).outputs
    return output.data.tolist() == (-X).tolist()


def peak(process):
    """The most memory that the server has had, in bytes."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def json_of(text):
    return {"config": {"string_param": text}}


def test_a_configuration_over_its_limit_is_refused_by_its_size(explicit, models, call):
    process = explicit()
    caller = call(process.address)
    (models / "m" / "config.pbtxt").write_text(8 * BLANKS)
    text = f"has {8 * MIB} bytes, expected at most {MIB}"
    before = peak(process)
    assert refusal(caller) == f"m/config.pbtxt {text}"
    assert peak(process) - before < MOST_RISE
    assert refusal(caller, **json_of(8 * BLANKS)) == f"parameter 'config' {text}"
    assert answers(caller)


def test_a_configuration_takes_no_memory_of_the_server_to_read(explicit, models, call):
    process = explicit()
    caller = call(process.address)
    load(caller)
    before = peak(process)
    (models / "m" / "config.pbtxt").write_text(BLANKS)
    load(caller)
    assert peak(process) - before < MOST_RISE
    assert answers(caller, "m")


def test_a_configuration_that_takes_too_much_memory_is_an_error_of_its_model(
    explicit, models, call
):
    process = explicit("--validation-bytes", str(160 * MIB))
    caller = call(process.address)
    (models / "m" / "config.pbtxt").write_text(BLANKS)
    text = refusal(caller)
    assert text.startswith("m/config.pbtxt: the separate process that reads it first ended with ")
    assert text.endswith(f"its limit is {160 * MIB} bytes of memory (--validation-bytes)")
    assert answers(caller)
    (models / "m" / "config.pbtxt").write_text("max_batch_size: 2")
    load(caller)


@pytest.mark.parametrize("made", ["file", "parameter"])
def test_a_configuration_that_takes_too_long_is_an_error_of_its_model(launch, models, call, made):
    options = ("--model-control", "explicit", "--validation-s", "0.01")
    process = launch(models, *options, validation=True)
    (models / "m" / "config.pbtxt").write_text("max_batch_size: 2")
    caller = call(process.address)
    text = refusal(caller) if made == "file" else refusal(caller, **json_of("{}"))
    source = "m/config.pbtxt" if made == "file" else "parameter 'config'"
    assert text.startswith(f"{source}: reading it in a separate process took over 0.01 s")


def test_labels_take_little_more_memory_of_the_server_than_their_file(explicit, models, call):
    process = explicit()
    caller = call(process.address)
    (models / "m" / "config.pbtxt").write_text(LABELLED)
    (models / "m" / "labels").write_text("a\n")
    load(caller)
    before = peak(process)
    # As strings these would take more than 300 MiB.
    lines = 16 * MIB // 3
    (models / "m" / "labels").write_text("ab\n" * lines)
    load(caller)
    assert peak(process) - before < 128 * MIB
    assert answers(caller, "m")


def test_label_files_over_their_limit_are_refused_by_their_size(explicit, models, call):
    caller = call(explicit().address)
    (models / "m" / "config.pbtxt").write_text(LABELLED)
    with (models / "m" / "labels").open("wb") as file:
        file.truncate(2**40)
    assert refusal(caller) == f"m/labels has more than {16 * MIB} bytes of labels"
    assert answers(caller)


def multiply_by(models, location):
    """Let the model m multiply by -1, a weight in another file; -1 is in .blobs/w too."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    (models / "m" / "1" / "model.onnx").write_bytes(model.SerializeToString())
    (models / ".blobs").mkdir()
    (models / ".blobs" / "w").write_bytes(np.array([-1, -1], np.float32).tobytes())


def test_the_server_parses_no_graph_in_python_not_even_for_the_names_of_other_files(
    explicit, models, call
):
    process = explicit()
    caller = call(process.address)
    multiply_by(models, "weights")
    (models / "m" / "1" / "weights").symlink_to("../../.blobs/w")
    load(caller)
    assert answers(caller, "m")
    # The library for that, which the process that tries models loads.
    mapped = {Path(each.path).name for each in psutil.Process(process.popen.pid).memory_maps()}
    assert not [name for name in mapped if name.startswith("onnx_cpp2py_export")]


def test_weights_reached_through_a_folder_above_must_have_one_name_too(
    explicit, models, call, tmp_path
):
    caller = call(explicit().address)
    multiply_by(models, "all/.blobs/w")
    (models / "m" / "1" / "all").symlink_to("../..")
    load(caller)
    assert answers(caller, "m")
    os.link(models / ".blobs" / "w", tmp_path / "w")
    text = "has weights in 'all/.blobs/w', which has 2 names (hard links), expected a copy"
    assert refusal(caller) == f"m/1/model.onnx {text}"
