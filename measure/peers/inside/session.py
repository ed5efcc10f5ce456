"""The ONNX Runtime session that every server runs, with the options of server/onnx/engine.py."""

import os
from typing import Any

# As in command_line/onnx_runtime.py: before the import, or ONNX Runtime records its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from numpy.typing import NDArray


def open_session(graph: str, threads: int) -> ort.InferenceSession:
    """Load `graph` for executions on `threads` threads that do not spin while they wait."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, outputs: list[str], x: NDArray[Any]) -> list[NDArray[Any]]:
    """The named outputs of x [n, features], all rows in one execution."""
    results: list[NDArray[Any]] = session.run(outputs, {"x": x})
    return results
