import threading
import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line.onnx_runtime import ort
from server.onnx import beside


@pytest.fixture
def session(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = beside.THREADS
    return ort.InferenceSession(tmp_path / "model.onnx", options)


class LateToDrop:
    """A session whose thread is interrupted between handing over outputs and dropping inputs."""

    def __init__(self, session):
        self._session = session

    def run_async(self, outputs, inputs, take, token, how):
        def interrupted(*results):
            take(*results)
            threading.Event().wait(0.05)

        self._session.run_async(outputs, inputs, interrupted, token, how)


def test_inputs_are_free_as_soon_as_they_were_run(session):
    x = np.full(1000, 7, np.float32)
    held = weakref.ref(x)
    (total,) = beside.run(LateToDrop(session), ["sum"], {"x": x})
    del x
    assert held() is None
    assert total == 7000


def test_a_failed_run_raises_what_a_run_with_all_threads_raises(session):
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as failed:
        beside.run(session, ["sum"], {"x": np.zeros((2, 2), np.float32)})
    assert type(failed.value).__name__ == "InvalidArgument"
