from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line.onnx_runtime import ort
from server.errors import InvalidInput, StartError
from server.onnx import beside
from server.onnx.engine import Engine, TensorSpec
from server.onnx.execution_provider import ExecutionProvider
from server.onnx.session_settings import SessionSettings


def save(path, nodes, inputs, outputs, constants=(), opset=17):
    """Write a graph; inputs and outputs are (name, type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, {"author": "somebody"})
    onnx.save(model, path)
    return path


def save_identity(path, kind=TensorProto.FLOAT, shape=("n", 4)):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(path, nodes, [("x", kind, shape)], [("y", kind, shape)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def test_a_graph_runs(path):
    engine = Engine(save_identity(path), 1)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (y,) = engine.run(["y"], {"x": x})
    np.testing.assert_array_equal(y, x)
    assert engine.provider == "CPUExecutionProvider"
    assert dict(engine.metadata) == {"author": "somebody"}


def test_only_the_named_outputs_are_computed_in_the_order_asked_for(path):
    nodes = [
        helper.make_node("Neg", ["x"], ["negative"]),
        helper.make_node("Abs", ["x"], ["absolute"]),
    ]
    shape = (TensorProto.FLOAT, ["n"])
    save(path, nodes, [("x", *shape)], [("negative", *shape), ("absolute", *shape)])
    engine = Engine(path, 1)
    x = np.array([-1, 2], np.float32)
    assert [y.tolist() for y in engine.run(["absolute", "negative"], {"x": x})] == [[1, 2], [1, -2]]
    assert [y.tolist() for y in engine.run(["negative"], {"x": x})] == [[1, -2]]


# What a graph takes and gives.


def test_specs_tell_names_dtypes_and_shapes(path):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [
        ("label", TensorProto.INT64, ["n"]),
        ("scores", TensorProto.DOUBLE, ["n", 3]),
    ]
    weights = [("W", np.ones((5, 3)))]
    engine = Engine(save(path, nodes, [("x", TensorProto.DOUBLE, ["n", 5])], outputs, weights), 1)
    assert engine.inputs == (TensorSpec("x", np.dtype(np.float64), (None, 5)),)
    assert engine.outputs == (
        TensorSpec("label", np.dtype(np.int64), (None,)),
        TensorSpec("scores", np.dtype(np.float64), (None, 3)),
    )
    assert [spec.row_bytes for spec in (*engine.inputs, *engine.outputs)] == [40, 8, 24]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.BOOL, np.bool_),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.UINT16, np.uint16),
        (TensorProto.UINT32, np.uint32),
        (TensorProto.UINT64, np.uint64),
        (TensorProto.INT8, np.int8),
        (TensorProto.INT16, np.int16),
        (TensorProto.INT32, np.int32),
        (TensorProto.INT64, np.int64),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.FLOAT, np.float32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    ],
)
def test_each_datatype_passes_unchanged(path, kind, dtype):
    engine = Engine(save_identity(path, kind), 1)
    assert engine.inputs[0].dtype == engine.outputs[0].dtype == dtype
    x = np.array([[0, 1, 1, 0]], dtype)
    (y,) = engine.run(["y"], {"x": x})
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_bfloat16_is_widened_and_passed_on_in_one_run(path, shape):
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Neg", ["f"], ["g"]),
    ]
    inputs = [("x", TensorProto.BFLOAT16, shape), ("f", TensorProto.DOUBLE, [2])]
    outputs = [
        ("wide", TensorProto.FLOAT, shape),
        ("y", TensorProto.BFLOAT16, shape),
        ("g", TensorProto.DOUBLE, [2]),
    ]
    engine = Engine(save(path, nodes, inputs, outputs), 1)
    bits = np.random.default_rng(1).integers(0, 0x7F80, shape, np.uint16)
    x = np.asarray(bits).view(ml_dtypes.bfloat16)
    y, g, wide = engine.run(["y", "g", "wide"], {"x": x, "f": np.array([1.0, -2.0])})
    assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, shape, x.tobytes())
    # A float32 whose lower half is zero has the value of its upper half as a bfloat16.
    np.testing.assert_array_equal(wide.view(np.uint32), bits.astype(np.uint32) << 16)
    assert g.tolist() == [-1.0, 2.0]


def test_constants_that_may_be_replaced_are_optional_inputs(path):
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    inputs = [("x", TensorProto.DOUBLE, ["n", 2]), ("factor", TensorProto.DOUBLE, [2])]
    outputs = [("y", TensorProto.DOUBLE, ["n", 2])]
    engine = Engine(save(path, nodes, inputs, outputs, [("factor", [1.0, 10.0])]), 1)
    assert engine.inputs == (TensorSpec("x", np.dtype(np.float64), (None, 2)),)
    assert engine.optional_inputs == (TensorSpec("factor", np.dtype(np.float64), (2,)),)
    x = np.ones((1, 2))
    assert engine.run(["y"], {"x": x})[0].tolist() == [[1.0, 10.0]]
    assert engine.run(["y"], {"x": x, "factor": np.array([3.0, 4.0])})[0].tolist() == [[3.0, 4.0]]


def test_float64_keeps_its_precision(path):
    engine = Engine(save_identity(path, TensorProto.DOUBLE), 1)
    x = np.array([[1 + 2**-52, np.nextafter(0, 1), np.pi, -0.0]])
    (y,) = engine.run(["y"], {"x": x})
    assert y.tobytes() == x.tobytes()


def test_strings_pass_unchanged(path):
    engine = Engine(save_identity(path, TensorProto.STRING), 1)
    assert engine.inputs[0].dtype == np.object_
    x = np.array([["", "é", "a b", "😀" * 100]], np.object_)
    (y,) = engine.run(["y"], {"x": x})
    assert y.tolist() == x.tolist()


@pytest.mark.parametrize("shape", [["n"], ["n", 4], [None, "d"]])
def test_a_graph_whose_first_axis_is_free_batches(path, shape):
    assert Engine(save_identity(path, shape=shape), 1).batches


@pytest.mark.parametrize("shape", [[], [1], [1, "n"], [4, 4]])
def test_a_graph_whose_first_axis_is_fixed_does_not_batch(path, shape):
    assert not Engine(save_identity(path, shape=shape), 1).batches


def test_one_output_without_a_batch_axis_is_enough_not_to_batch(path):
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
    ]
    outputs = [("y", TensorProto.FLOAT, ["n", 4]), ("total", TensorProto.FLOAT, [])]
    save(path, nodes, [("x", TensorProto.FLOAT, ["n", 4])], outputs)
    assert not Engine(path, 1).batches


def test_one_input_without_a_batch_axis_is_enough_not_to_batch(path):
    nodes = [helper.make_node("Mul", ["x", "scale"], ["y"])]
    inputs = [("x", TensorProto.FLOAT, ["n", 4]), ("scale", TensorProto.FLOAT, [])]
    save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["n", 4])])
    assert not Engine(path, 1).batches


# What cannot be loaded.


def start_error(path, *arguments):
    """The one line with which a start is refused; it names the file."""
    with pytest.raises(StartError) as caught:
        Engine(path, 1, *arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_provider_that_is_not_here_is_named(path):
    save_identity(path)
    text = start_error(path, ExecutionProvider("NoSuchExecutionProvider"))
    assert text.startswith(f"{path}: execution provider NoSuchExecutionProvider is not available: ")
    assert "available are " in text
    assert "CPUExecutionProvider" in text


def test_a_missing_file_is_named(path):
    assert start_error(path).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"\0", b"not a graph", bytes(range(256)) * 40])
def test_a_corrupt_file_is_named(path, content):
    path.write_bytes(content)
    assert start_error(path).startswith(f"{path}: ")


def test_a_truncated_file_is_named_wherever_it_ends(path):
    whole = save_identity(path).read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert start_error(path).startswith(f"{path}: ")


def test_a_folder_in_place_of_the_file_is_named(path):
    path.mkdir()
    assert start_error(path).startswith(f"{path}: ")


def test_missing_external_weights_are_named(path):
    nodes = [helper.make_node("Add", ["x", "b"], ["y"])]
    shape = (TensorProto.FLOAT, ["n", 1000])
    save(path, nodes, [("x", *shape)], [("y", *shape)], [("b", np.ones(1000, np.float32))])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights")
    Engine(path, 1)
    (path.parent / "weights").unlink()
    text = start_error(path)
    assert text.startswith(f"{path}: ")
    assert "weights" in text


def test_an_operator_that_does_not_exist_is_named(path):
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"])]
    save(path, nodes, [("x", TensorProto.FLOAT, ["n"])], [("y", TensorProto.FLOAT, ["n"])])
    text = start_error(path)
    assert text.startswith(f"{path}: ")
    assert "Frobnicate" in text


def test_a_type_that_is_not_served_is_named(path):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    inputs, outputs = [("x", TensorProto.FLOAT8E4M3FN, [4])], [("y", TensorProto.FLOAT, [4])]
    save(path, nodes, inputs, outputs, opset=19)
    assert start_error(path) == f"{path}: 'x' has type tensor(float8e4m3fn), which is not supported"


@pytest.mark.parametrize(
    ("make", "type_name"),
    [
        (helper.make_sequence_type_proto, "seq(tensor(float))"),
        (helper.make_optional_type_proto, "optional(tensor(float))"),
    ],
)
def test_what_is_no_tensor_is_named(path, make, type_name):
    kind = make(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_value_info("x", kind)],
        [helper.make_value_info("y", kind)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9), path
    )
    assert start_error(path) == f"{path}: 'x' has type {type_name}, which is not supported"


def test_strings_beside_bfloat16_are_refused(path):
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in ("xy", "st")]
    ends = [("xy"[i], TensorProto.BFLOAT16, [2]) for i in (0, 1)]
    texts = [("st"[i], TensorProto.STRING, [2]) for i in (0, 1)]
    save(path, nodes, [ends[0], texts[0]], [ends[1], texts[1]])
    assert "string inputs together with bfloat16" in start_error(path)


# What cannot be run.


def test_shapes_that_do_not_fit_each_other_are_invalid(path):
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    shape = (TensorProto.FLOAT, ["n", "d"])
    save(path, nodes, [("a", *shape), ("b", *shape)], [("y", *shape)])
    engine = Engine(path, 1)
    inputs = {"a": np.zeros((1, 2), np.float32), "b": np.zeros((1, 3), np.float32)}
    with pytest.raises(InvalidInput, match="the model cannot be run on these inputs"):
        engine.run(["y"], inputs)
    inputs["b"] = inputs["a"]
    assert engine.run(["y"], inputs)[0].tolist() == [[0, 0]]


def test_an_index_out_of_range_is_invalid(path):
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    shape = (TensorProto.INT64, ["n"])
    save(path, nodes, [("x", *shape)], [("y", *shape)], [("table", np.arange(10))])
    engine = Engine(path, 1)
    with pytest.raises(InvalidInput):
        engine.run(["y"], {"x": np.array([10])})
    assert engine.run(["y"], {"x": np.array([9])})[0].tolist() == [9]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_graph_runs_alike_while_more_is_received(path, threads):
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    shapes = [("x", TensorProto.FLOAT, ("n", 4))], [("y", TensorProto.FLOAT, ("n", 3))]
    engine = Engine(save(path, nodes, *shapes, [("w", weights)]), threads)
    x = (np.arange(beside.LEAST_BYTES // 4, dtype=np.float32) % 100).reshape(-1, 4)
    (y,) = engine.run(["y"], {"x": x}, receiving=True)
    np.testing.assert_array_equal(y, x @ weights)
    wide = np.zeros((beside.LEAST_BYTES // 20 + 1, 5), np.float32)
    with pytest.raises(InvalidInput, match=r"'x' \[52429, 5\]"):
        engine.run(["y"], {"x": wide}, receiving=True)
    (y,) = engine.run(["y"], {"x": x[:1]}, receiving=True)
    np.testing.assert_array_equal(y, x[:1] @ weights)


def test_one_of_two_threads_runs_what_is_large_while_more_is_received(path, monkeypatch):
    engine = Engine(save_identity(path), 2)
    ran = []
    run = engine._run_beside
    monkeypatch.setattr(engine, "_run_beside", lambda *args: ran.append(1) or run(*args))
    large = np.ones((beside.LEAST_BYTES // 16, 4), np.float32)
    for x, receiving in ((large, False), (large[:-1], True), (large, True)):
        (y,) = engine.run(["y"], {"x": x}, receiving=receiving)
        np.testing.assert_array_equal(y, x)
        assert ran == [1] * (receiving and len(x) == len(large))
    assert run.func is beside.run


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL])
def test_both_threads_run_rows_of_single_bytes(path, kind):
    engine = Engine(save_identity(path, kind), 2)
    assert engine._run_beside == engine._run


def test_texts_are_taken_in_the_thread_that_calls(path):
    engine = Engine(save_identity(path, TensorProto.STRING), 2)
    text = np.full((beside.LEAST_BYTES // 32, 4), "a", np.object_)
    (y,) = engine.run(["y"], {"x": text}, receiving=True)
    assert y.tolist() == text.tolist()
    assert engine._run_beside == engine._run


# Settings of the session.


@pytest.mark.parametrize(
    ("settings", "option", "wanted"),
    [
        ({}, "intra_op_num_threads", 3),
        ({"inter_op_threads": 5}, "inter_op_num_threads", 5),
        ({"execution_mode": "parallel"}, "execution_mode", ort.ExecutionMode.ORT_PARALLEL),
        ({"execution_mode": "sequential"}, "execution_mode", ort.ExecutionMode.ORT_SEQUENTIAL),
        *(
            (
                {"graph_optimization": name},
                "graph_optimization_level",
                getattr(ort.GraphOptimizationLevel, f"ORT_{level}"),
            )
            for name, level in (
                ("all", "ENABLE_ALL"),
                ("extended", "ENABLE_EXTENDED"),
                ("basic", "ENABLE_BASIC"),
                ("off", "DISABLE_ALL"),
            )
        ),
        ({"mem_arena": False}, "enable_cpu_mem_arena", False),
        ({}, "enable_cpu_mem_arena", True),
        ({"mem_pattern": False}, "enable_mem_pattern", False),
        ({}, "enable_mem_pattern", True),
    ],
)
def test_a_setting_is_the_sessions(path, settings, option, wanted):
    engine = Engine(save_identity(path), 3, settings=SessionSettings(**settings))
    assert getattr(engine.session_options, option) == wanted
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(engine.run(["y"], {"x": x})[0], x)


def test_an_entry_counts_over_the_usual_one(path):
    spinning = "session.intra_op.allow_spinning"
    for entries, wanted in (({}, "0"), ({spinning: "1"}, "1")):
        engine = Engine(save_identity(path), 2, settings=SessionSettings(entries=entries))
        assert engine.session_options.get_session_config_entry(spinning) == wanted


@pytest.mark.parametrize("receiving", [False, True])
def test_memory_is_returned_after_each_run_where_told(path, receiving):
    """The arena of a session holds what its largest run took, unless it is shrunk."""
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["y"], keepdims=0),
    ]
    ends = [("x", TensorProto.FLOAT, ["n"])], [("y", TensorProto.FLOAT, [])]
    save(path, nodes, *ends, [("times", np.array([200], np.int64))])

    def grown_mib(shrinkage):
        engine = Engine(path, 2, settings=SessionSettings(arena_shrinkage=shrinkage))
        x = np.ones(beside.LEAST_BYTES // 4, np.float32)
        # The memory of the first run is kept in any case.
        engine.run(["y"], {"x": x[:1]})
        before = resident_mib()
        engine.run(["y"], {"x": x}, receiving=receiving)
        return resident_mib() - before

    assert grown_mib("cpu:0") < 100
    assert grown_mib("") > 100


def test_several_at_a_time_do_not_share_the_one_thread_that_is_beside(path):
    engine = Engine(save_identity(path), 2, alone=False)
    assert engine._run_beside == engine._run


def resident_mib():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("/proc/self/status has no VmRSS")
