"""Write the linear model as an ONNX graph."""

import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper

from model import files
from model.layout import graph_path
from model.weights import exported, sha256

# The oldest pair in which ArgMax takes doubles and says which of equals wins: ORT 1.7 reads it.
OPSET = 13
IR_VERSION = 7

DISTRIBUTION = "argmax-serving"
# protobuf refuses messages of 2 GiB; the graph around W is far below the slack.
INLINE_LIMIT_BYTES = 2**31 - 1
SLACK_BYTES = 1 << 20
ELEMENT_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def export(
    repository: Path,
    name: str,
    weights: NDArray[np.generic],
    dtype: DTypeLike,
    seed: int | None = None,
    *,
    version: int = 1,
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

    Returns:
        The path of the graph.

    Raises:
        ModelError: the name, version, dtype or W is not of this kind.
        OSError: the folder or file cannot be written; a graph that was there is intact.
    """
    path = graph_path(repository, name, version)
    w = exported(weights, dtype)
    # Stored as MatMul wants its second argument: ORT packs it once instead of transposing.
    stored = np.ascontiguousarray(w.T)
    external = stored.nbytes + SLACK_BYTES > inline_limit_bytes
    data = stored.data.cast("B")
    location = f"{path.name}.{hashlib.sha256(data).hexdigest()[:16]}.data" if external else None
    model = _model(w, stored, seed, location)
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


def _model(
    w: NDArray[np.floating], stored: NDArray[np.floating], seed: int | None, location: str | None
) -> onnx.ModelProto:
    """Build the graph: W [classes, features], stored [features, classes], or its location."""
    classes, features = w.shape
    element = ELEMENT_TYPES[w.dtype.name]
    tensor = TensorProto(name="W", dims=stored.shape, data_type=element)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["scores"], name="scores"),
        helper.make_node(
            "ArgMax", ["scores"], ["label"], name="label", axis=1, keepdims=0, select_last_index=0
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "linear_argmax",
        inputs=[helper.make_tensor_value_info("x", element, ["batch", features])],
        outputs=[
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("scores", element, ["batch", classes]),
        ],
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
    helper.set_model_props(model, properties)
    return model


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
