"""Read a linear model back from its graph, and run the graph as a server does."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from command_line.onnx_runtime import ort
from model import lfs_pointer
from model.errors import ModelError
from model.graph import BIAS, ELEMENT_TYPES, SCALE, WEIGHTS, WIRE_TYPES, Wire
from model.reference import Expected, expect
from model.weights import exported
from protos.quantize import WIRE_DTYPES, from_wire, to_wire, wire_scale

# As few examples as a service sends at a time.
RUN_ROWS = 64


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Metadata of a graph; bytes that are not UTF-8 are written as \\xNN."""
    return {_text(item.key): _text(item.value) for item in model.metadata_props}


def _text(value: str | bytes) -> str:
    # Protobuf gives such fields as bytes.
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The content of a graph.

    Attributes:
        w: W [classes, features] in the dtype of the computation.
        bias: bias of the scores, in that dtype [classes]; None without one.
        wire: its input dtype.
        properties: its metadata.
    """

    w: NDArray[np.floating]
    bias: NDArray[np.floating] | None
    wire: Wire
    properties: dict[str, str]

    def sent(self, x: NDArray[np.floating]) -> NDArray[np.number]:
        """Return examples [n, features] in the input dtype of the graph.

        Raises:
            ModelError: they cannot be rounded to that dtype.
        """
        if self.wire.dtype not in WIRE_DTYPES:
            return x.astype(self.w.dtype, copy=False)
        try:
            return to_wire(x, self.wire.dtype, self.wire.scale)
        except ValueError as error:
            raise ModelError(str(error)) from None

    def expected(self, x: NDArray[np.floating]) -> Expected:
        """Return the expected results for examples [n, features] that the graph gets exactly."""
        return expect(self.w, x, self.w.dtype, self.bias)

    def expected_of_sent(self, sent: NDArray[np.number]) -> Expected:
        """Return the expected results for examples that `sent` has rounded."""
        if self.wire.dtype in WIRE_DTYPES:
            return self.expected(from_wire(sent, self.wire.scale))
        return self.expected(sent.astype(self.w.dtype, copy=False))


def read(graph: Path) -> Stored:
    """Read a graph and the data beside it.

    Raises:
        ModelError: it is no linear argmax model.
    """
    lfs_pointer.refuse(graph)
    try:
        model = onnx.load(graph, load_external_data=False)
        _load_data_beside(graph, model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{graph} cannot be read ({error}), expected an ONNX graph") from error
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if (
        inputs != ["x"]
        or outputs != ["label", "scores"]
        or set(stored) - {SCALE, BIAS} != {WEIGHTS}
    ):
        raise ModelError(
            f"{graph} has inputs {inputs}, outputs {outputs}, initializers {list(stored)}, "
            "expected a linear argmax model with ['x'], ['label', 'scores'], ['W']"
        )
    try:
        w = numpy_helper.to_array(stored[WEIGHTS]).T
        w = exported(w, w.dtype)
        bias = _bias(stored.get(BIAS), len(w))
        wire = _taken(model.graph.input[0], stored.get(SCALE))
    except (ModelError, ValueError) as error:
        raise ModelError(f"{graph}: {error}") from error
    return Stored(w, bias, wire, metadata(model))


def _load_data_beside(graph: Path, model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            beside = graph.parent / entry.value
            if entry.key == "location" and beside.is_file():
                lfs_pointer.refuse(beside)
    onnx.load_external_data_for_model(model, str(graph.parent))


def session(graph: Path) -> ort.InferenceSession:
    """Load a graph into ONNX Runtime, on the CPU.

    Raises:
        ModelError: ONNX Runtime rejects it.
    """
    options = ort.SessionOptions()
    # Threads that spin between runs would take cores from the reference.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT's errors have no base class of their own
        raise ModelError(f"{graph} cannot be run: {error}") from error


def run(session: ort.InferenceSession, sent: NDArray[np.number]) -> NDArray[np.int64]:
    """Return the labels that a graph gives, int64 [n].

    Raises:
        ModelError: it fails.
    """
    groups = (sent[start : start + RUN_ROWS] for start in range(0, len(sent), RUN_ROWS))
    try:
        return np.concatenate([session.run(["label"], {"x": group})[0] for group in groups])
    except Exception as error:  # ORT's errors have no base class of their own
        raise ModelError(f"the graph fails on {len(sent)} examples: {error}") from error


def _bias(stored: onnx.TensorProto | None, classes: int) -> NDArray[np.floating] | None:
    if stored is None:
        return None
    bias = numpy_helper.to_array(stored)
    if bias.shape != (classes,) or not np.isfinite(bias).all():
        raise ModelError(f"b is {list(bias.shape)}, expected {classes} finite numbers")
    return bias


def _taken(value: onnx.ValueInfoProto, stored: onnx.TensorProto | None) -> Wire:
    """Return the dtype of the graph's input, with the scale that it holds for int8."""
    element = value.type.tensor_type.elem_type
    names = {int(number): name for name, number in (ELEMENT_TYPES | WIRE_TYPES).items()}
    dtype = names.get(element)
    if dtype is None or (dtype == "int8") != (stored is not None):
        raise ModelError(
            f"x is of type {element}, with {'no' if stored is None else 'a'} scale, "
            f"expected {', '.join(names.values())}, with a scale for int8"
        )
    if stored is None:
        return Wire(dtype)
    scale = numpy_helper.to_array(stored)
    if scale.size != 1:
        raise ModelError(f"got {scale.size} scales, expected one")
    return Wire(dtype, wire_scale(float(scale.item())))
