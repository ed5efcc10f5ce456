"""Write the linear model as an ONNX graph."""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from model import files
from model.errors import ModelError
from model.layout import graph_path
from model.weights import exported, sha256
from protos.quantize import DEFAULT_SCALE, wire_scale

# The oldest pair in which ArgMax takes doubles and says which of equals wins: ORT 1.7 reads it.
OPSET = 13
IR_VERSION = 7

DISTRIBUTION = "argmax-serving"
# protobuf refuses messages of 2 GiB; the graph around W is far below the slack.
INLINE_LIMIT_BYTES = 2**31 - 1
SLACK_BYTES = 1 << 20
ELEMENT_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
SCALE = "wire_scale"
WIRE_TYPES = {"float16": TensorProto.FLOAT16, "int8": TensorProto.INT8}


@dataclass(frozen=True, slots=True)
class Wire:
    """What the graph takes where that is narrower than what it computes in; int8 has a scale."""

    dtype: str
    scale: float | None = None


def export(
    repository: Path,
    name: str,
    weights: NDArray[np.generic],
    dtype: DTypeLike,
    seed: int | None = None,
    *,
    version: int = 1,
    wire: str | None = None,
    scale: float | None = None,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> Path:
    """Write W [classes, features] in dtype to NAME/VERSION/model.onnx of a repository.

    The graph takes `x`, dtype [batch, features], which MatMul turns into `scores`, dtype
    [batch, classes], from which ArgMax takes `label`, int64 [batch], the first index winning a
    tie. Its metadata hold classes, features, dtype, weights_sha256, exporter, and the seed when
    it is given. The bytes written depend on nothing but the arguments and the version of this
    software; a file that has them already is left untouched, any other is replaced at once.

    W beyond inline_limit_bytes goes to a file beside the graph (ONNX external data), named after
    its content, so that the graph it replaces keeps its own until the moment of replacement.

    A float32 model may take `x` as float16 or int8, its wire, and widen it itself. int8 values
    stand for multiples of scale (default: protos.quantize.DEFAULT_SCALE). The metadata say `wire`
    and `wire_scale`.

    Returns:
        The path of the graph.

    Raises:
        ModelError: the name, version, dtype, wire, scale or W is not of this kind.
        OSError: the folder or file cannot be written; a graph that was there is intact.
    """
    path = graph_path(repository, name, version)
    w = exported(weights, dtype)
    narrow = _wire(wire, scale, w.dtype.name)
    # Stored as MatMul wants its second argument: ORT packs it once instead of transposing.
    stored = np.ascontiguousarray(w.T)
    external = stored.nbytes + SLACK_BYTES > inline_limit_bytes
    data = stored.data.cast("B")
    location = f"{path.name}.{hashlib.sha256(data).hexdigest()[:16]}.data" if external else None
    model = _model(w, stored, seed, location, narrow)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = location is not None and files.replace(path.with_name(location), data)
    try:
        files.replace(path, model.SerializeToString(deterministic=True))
    except BaseException:
        if new and location:
            path.with_name(location).unlink()
        raise
    for old in path.parent.glob(f"{path.name}.*.data"):
        if old.name != location:
            old.unlink()
    return path


def _wire(dtype: str | None, scale: float | None, computed: str) -> Wire | None:
    """Check what the graph should take; None where that is what it computes in."""
    if scale is not None and dtype != "int8":
        raise ModelError(f"a scale of {scale} came with wire {dtype or computed}; wanted int8")
    if dtype is None:
        return None
    if computed != "float32" or dtype not in ("float32", *WIRE_TYPES):
        raise ModelError(
            f"wire is {dtype} of a {computed} model; "
            f"wanted float32, {' or '.join(WIRE_TYPES)} of a float32 model"
        )
    if dtype == "int8":
        try:
            return Wire(dtype, wire_scale(DEFAULT_SCALE if scale is None else scale))
        except ValueError as error:
            raise ModelError(str(error)) from None
    return None if dtype == computed else Wire(dtype)


def _model(
    w: NDArray[np.floating],
    stored: NDArray[np.floating],
    seed: int | None,
    location: str | None,
    wire: Wire | None,
) -> onnx.ModelProto:
    """Build the graph: W [classes, features], stored [features, classes], or its location."""
    classes, features = w.shape
    element = ELEMENT_TYPES[w.dtype.name]
    tensor = TensorProto(name="W", dims=stored.shape, data_type=element)
    taken, widening = (WIRE_TYPES[wire.dtype], [_widening(wire)]) if wire else (element, [])
    nodes = [
        *widening,
        helper.make_node("MatMul", ["wide" if wire else "x", "W"], ["scores"], name="scores"),
        helper.make_node(
            "ArgMax", ["scores"], ["label"], name="label", axis=1, keepdims=0, select_last_index=0
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "linear_argmax",
        inputs=[helper.make_tensor_value_info("x", taken, ["batch", features])],
        outputs=[
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("scores", element, ["batch", classes]),
        ],
        initializer=_scale_tensors(wire),
    )
    model = helper.make_model(
        graph,
        producer_name=DISTRIBUTION,
        producer_version=_own_version(),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    _check(model, helper.make_tensor_value_info("W", element, stored.shape))
    if location is None:
        tensor.raw_data = stored.tobytes()
    else:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", 0), ("length", stored.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(tensor)
    properties = {
        "classes": str(classes),
        "features": str(features),
        "dtype": w.dtype.name,
        "weights_sha256": sha256(w),
        "exporter": f"{DISTRIBUTION} {_own_version()}",
    }
    if seed is not None:
        properties["seed"] = str(seed)
    if wire:
        properties["wire"] = wire.dtype
    if wire and wire.scale is not None:
        properties["wire_scale"] = scale_text(wire.scale)
    helper.set_model_props(model, properties)
    return model


def _widening(wire: Wire) -> onnx.NodeProto:
    """Build the node that makes float32 `wide` of `x`, before a MatMul whose W stays constant.

    Processor time of one execution by its ratio to float32 (medians of two runs; 32 rows,
    64 x 262,144, ONNX Runtime 1.32, 2 threads that do not spin): Cast from float16 1.10 and 1.19,
    DequantizeLinear 1.10 and 1.09, with a zero point 1.15 and 1.12, Cast from int8 with the scale
    in a Mul behind MatMul 1.19 and 1.11, with the scale in W 1.09 and 1.17. The int8 forms do not
    differ beyond the noise; DequantizeLinear is never behind, and what it makes of int8 is, bit
    by bit, what protos.quantize.from_wire makes of it.
    """
    if wire.dtype == "int8":
        return helper.make_node("DequantizeLinear", ["x", SCALE], ["wide"], name="wide")
    return helper.make_node("Cast", ["x"], ["wide"], name="wide", to=TensorProto.FLOAT)


def _scale_tensors(wire: Wire | None) -> list[onnx.TensorProto]:
    if wire is None or wire.scale is None:
        return []
    return [numpy_helper.from_array(np.array(wire.scale, "<f4"), SCALE)]


def scale_text(scale: float) -> str:
    """Write a scale so that it reads back as the same float32."""
    return str(np.float32(scale))


def _check(model: onnx.ModelProto, weights: onnx.ValueInfoProto) -> None:
    """Check types, shapes and operators with W as an input: external data lies nowhere yet."""
    checked = onnx.ModelProto()
    checked.CopyFrom(model)
    checked.graph.input.append(weights)
    onnx.checker.check_model(checked, full_check=True)


def _own_version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "of a source tree that is not installed"
