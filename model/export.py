"""Write the linear model into a repository as an ONNX file."""

import hashlib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper

from model import files
from model.graph import SCALE, WEIGHTS, Wire, build, checked_wire, scale_text
from model.layout import graph_path
from model.weights import exported, sha256

DISTRIBUTION = "argmax-serving"
# protobuf rejects messages of 2 GiB; the graph around W is far below the slack.
INLINE_LIMIT_BYTES = 2**31 - 1
SLACK_BYTES = 1 << 20


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
    it is given.

    A float32 model may take `x` as float16 or int8, its wire, and widen it itself. int8 values
    stand for multiples of scale (default: protos.quantize.DEFAULT_SCALE). The metadata say `wire`
    and `wire_scale`. How it is stored: see `write`.

    Returns:
        The path of the graph.

    Raises:
        ModelError: the name, version, dtype, wire, scale or W is not of this kind.
        OSError: the folder or file cannot be written; a graph that was there is intact.
    """
    path = graph_path(repository, name, version)
    w = exported(weights, dtype)
    narrow = checked_wire(wire, scale, w.dtype.name)
    classes, features = w.shape
    model = build(classes, features, w.dtype.name, narrow)
    properties = {} if seed is None else {"seed": str(seed)}
    return write(path, model, w, narrow, properties, inline_limit_bytes=inline_limit_bytes)


def write(
    path: Path,
    model: onnx.ModelProto,
    w: NDArray[np.floating],
    wire: Wire | None,
    properties: Mapping[str, str],
    *,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
    accept: Callable[[Path], None] | None = None,
) -> Path:
    """Put W [classes, features] into a graph that lacks only its data, and store it.

    The bytes written depend only on the arguments and the version of this software; a file that
    has them already is left untouched, any other is replaced atomically. `accept` gets the path
    of the new graph before the replacement; if it raises, the old graph stays.

    W beyond inline_limit_bytes goes to a file beside the graph (ONNX external data), named after
    its content, so that the graph it replaces keeps its own until the moment of replacement.

    Raises:
        OSError: the folder or file cannot be written; a graph that was there is intact.
    """
    # Stored in the layout of MatMul's second argument: ORT packs it once instead of transposing.
    stored = np.ascontiguousarray(w.T)
    external = stored.nbytes + SLACK_BYTES > inline_limit_bytes
    data = stored.data.cast("B")
    location = f"{path.name}.{hashlib.sha256(data).hexdigest()[:16]}.data" if external else None
    model.producer_name, model.producer_version = DISTRIBUTION, _own_version()
    _check(model)
    _place(model, stored, location)
    helper.set_model_props(model, {**_properties(w, wire), **properties})
    path.parent.mkdir(parents=True, exist_ok=True)
    new = location is not None and files.replace(path.with_name(location), data)
    try:
        files.replace(path, model.SerializeToString(deterministic=True), accept)
    except BaseException:
        if new and location:
            path.with_name(location).unlink()
        raise
    for old in path.parent.glob(f"{path.name}.*.data"):
        if old.name != location:
            old.unlink()
    return path


def _properties(w: NDArray[np.floating], wire: Wire | None) -> dict[str, str]:
    """Describe the graph in its metadata."""
    classes, features = w.shape
    properties = {
        "classes": str(classes),
        "features": str(features),
        "dtype": w.dtype.name,
        "weights_sha256": sha256(w),
        "exporter": f"{DISTRIBUTION} {_own_version()}",
    }
    if wire:
        properties["wire"] = wire.dtype
    if wire and wire.scale is not None:
        properties[SCALE] = scale_text(wire.scale)
    return properties


def _check(model: onnx.ModelProto) -> None:
    """Check types, shapes and operators with W as an input: its data is not stored yet."""
    checked = onnx.ModelProto()
    checked.CopyFrom(model)
    w = _weights_tensor(checked)
    checked.graph.input.append(helper.make_tensor_value_info(w.name, w.data_type, w.dims))
    checked.graph.initializer.remove(w)
    onnx.checker.check_model(checked, full_check=True)


def _place(model: onnx.ModelProto, stored: NDArray[np.floating], location: str | None) -> None:
    """Give W its data, or the location of the data."""
    tensor = _weights_tensor(model)
    if location is None:
        tensor.raw_data = stored.tobytes()
        return
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", 0), ("length", stored.nbytes)):
        tensor.external_data.add(key=key, value=str(value))


def _weights_tensor(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == WEIGHTS)


def _own_version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "of a source tree that is not installed"
