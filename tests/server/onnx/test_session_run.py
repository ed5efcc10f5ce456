import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line.onnx_runtime import ort
from server.onnx.engine import run_bound, way_to_run

KINDS = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT8: np.int8,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
}


@pytest.fixture
def session(tmp_path):
    def load(kind):
        graph = helper.make_graph(
            [
                helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0]),
                helper.make_node("Identity", ["x"], ["same"]),
            ],
            "graph",
            [helper.make_tensor_value_info("x", kind, ["n", 3])],
            [
                helper.make_tensor_value_info("turned", kind, [3, "n"]),
                helper.make_tensor_value_info("same", kind, ["n", 3]),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / "model.onnx")
        return ort.InferenceSession(tmp_path / "model.onnx")

    return load


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: KINDS[kind].__name__)
def test_bound_and_unbound_runs_give_the_same(session, kind):
    session = session(kind)
    memory = np.arange(12).reshape(4, 3).astype(KINDS[kind])
    for rows in (4, 2, 3):
        x = memory[:rows]
        turned, same = run_bound(session, ["turned", "same"], {"x": x})
        np.testing.assert_array_equal(turned, x.T)
        np.testing.assert_array_equal(same, x)
        assert turned.dtype == same.dtype == KINDS[kind]


def test_a_bound_run_reads_memory_as_it_is_now(session):
    session = session(TensorProto.FLOAT)
    memory = np.zeros((1, 3), np.float32)
    before = run_bound(session, ["same"], {"x": memory})
    memory[:] = 7
    (after,) = run_bound(session, ["same"], {"x": memory})
    assert after.tolist() == [[7, 7, 7]]
    assert before[0].tolist() == [[0, 0, 0]]


def test_a_bound_run_refuses_what_the_graph_refuses(session):
    session = session(TensorProto.FLOAT)
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(Exception, match="x") as refused:
        run_bound(session, ["same"], {"x": x})
    assert type(refused.value).__name__ == "InvalidArgument"


def test_inputs_are_bound_on_a_gpu_only_and_strings_never(session):
    session = session(TensorProto.FLOAT)
    numbers, strings = {np.dtype("f4")}, {np.dtype("f4"), np.dtype("O")}
    assert way_to_run(session, numbers, on_gpu=True).func is run_bound
    assert way_to_run(session, numbers, on_gpu=False) == session.run
    assert way_to_run(session, strings, on_gpu=True) == session.run
