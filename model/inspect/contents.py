"""Read the content of an ONNX file, without its weights."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from model import lfs_pointer, stored
from model.errors import ModelError
from model.layout import find
from rowwise import axis_names, proof, structure


@dataclass(frozen=True, slots=True)
class TensorValue:
    """An input, output or initializer; a dim of None is an axis without a name or size."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]
    size_bytes: int | None = None
    file: str | None = None

    @property
    def shape(self) -> str:
        """The dims as text, `?` for one without name and size."""
        return f"[{', '.join('?' if dim is None else str(dim) for dim in self.dims)}]"

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of its axes, "" for one without."""
        return tuple(dim if isinstance(dim, str) else "" for dim in self.dims)


@dataclass(frozen=True, slots=True)
class Inspection:
    """The content of an ONNX file.

    Attributes:
        path: the file.
        size_bytes: its size, without external data.
        external_bytes: the size of the tensors beside it.
        ir_version: the version of the file's format.
        opsets: version by domain, `ai.onnx` for the default one.
        producer: the program that wrote it, with its version.
        inputs, outputs, initializers: its tensors.
        operators: how often each occurs, also in subgraphs, the most frequent first; those of
            another domain than ai.onnx carry it before their name.
        metadata: its properties.
        unbatched: why a server runs each request alone by default; "" if requests may share an
            execution.
        graph: the graph itself.
    """

    path: Path
    size_bytes: int
    external_bytes: int
    ir_version: int
    opsets: dict[str, int]
    producer: str
    inputs: list[TensorValue]
    outputs: list[TensorValue]
    initializers: list[TensorValue]
    operators: dict[str, int]
    metadata: dict[str, str]
    unbatched: str
    graph: onnx.GraphProto


def inspect(path: Path) -> Inspection:
    """Inspect any ONNX file, or the one in a folder (see model.layout.find).

    Raises:
        ModelError: path names no single file, or not an ONNX graph.
        OSError: it cannot be read.
    """
    file = find(path)
    lfs_pointer.refuse(file)
    try:
        model = onnx.load(file, load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"{file} cannot be read ({error}), expected an ONNX graph") from error
    if not model.ir_version or not model.HasField("graph"):
        raise ModelError(f"{file} holds no graph, expected an ONNX graph")
    graph = model.graph
    initializers = [_initializer(tensor) for tensor in graph.initializer]
    constant = {tensor.name for tensor in initializers}
    # Until IR 4 initializers had to be inputs as well.
    inputs = [_value(value) for value in graph.input if value.name not in constant]
    outputs = [_value(value) for value in graph.output]
    return Inspection(
        path=file,
        size_bytes=file.stat().st_size,
        external_bytes=sum(tensor.size_bytes or 0 for tensor in initializers if tensor.file),
        ir_version=model.ir_version,
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=inputs,
        outputs=outputs,
        initializers=initializers,
        operators=dict(Counter(_operators(graph)).most_common()),
        metadata=stored.metadata(model),
        unbatched=_unbatched(file, inputs, outputs),
        graph=graph,
    )


def operator_name(node: onnx.NodeProto) -> str:
    """Return an operator's name, its domain first where that is not ai.onnx."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _unbatched(file: Path, inputs: list[TensorValue], outputs: list[TensorValue]) -> str:
    if not all(value.dims and not isinstance(value.dims[0], int) for value in (*inputs, *outputs)):
        return "an input or output has no first axis of any size"
    names = axis_names.doubt(
        {value.name: value.axes for value in inputs}, {value.name: value.axes for value in outputs}
    )
    return names or proof.doubt(structure.read(file)) or ""


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield operator_name(node)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _operators(inner)


def _value(value: onnx.ValueInfoProto) -> TensorValue:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorValue(value.name, str(kind).removesuffix("_type"), ())
    tensor = value.type.tensor_type
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    )
    return TensorValue(value.name, _dtype(tensor.elem_type), dims)


def _initializer(tensor: onnx.TensorProto) -> TensorValue:
    external = {entry.key: entry.value for entry in tensor.external_data}
    bits = 0
    if tensor.data_type != onnx.TensorProto.STRING:
        bits = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    size = prod(tensor.dims) * bits // 8 if bits else sum(map(len, tensor.string_data))
    return TensorValue(
        tensor.name, _dtype(tensor.data_type), tuple(tensor.dims), size, external.get("location")
    )


def _dtype(element: int) -> str:
    if element == onnx.TensorProto.STRING:
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(element))
