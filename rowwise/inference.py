"""Infer the types and shapes of an operator's outputs with ONNX."""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import shape_inference

from rowwise.sizes import Size, unknown
from rowwise.values import Doubt, Node, Value

_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


class Inference:
    """The shape inference of one model, in which symbols stand for sizes."""

    def __init__(self, opsets: Sequence[onnx.OperatorSetIdProto], ir_version: int) -> None:
        self._imports = list(opsets)
        self._ir_version = ir_version
        self._symbols: dict[str, Size] = {}

    def outputs(self, node: Node) -> list[Value]:
        """The outputs of a node, as far as known; Doubt if its inputs do not fit."""
        proto = node.proto
        try:
            schema = onnx.defs.get_schema(
                proto.op_type, node.opset, "" if proto.domain == "ai.onnx" else proto.domain
            )
        except onnx.defs.SchemaError:
            raise Doubt("is not known to keep rows apart") from None
        types, data = {}, {}
        for name, value in zip(proto.input, node.inputs, strict=True):
            if value is not None:
                types[name] = self._type(value)
                if (tensor := _known(value)) is not None:
                    data[name] = tensor
        try:
            types = shape_inference.infer_node_outputs(
                schema,
                proto,
                types,
                data,
                opset_imports=self._imports,
                ir_version=self._ir_version,
            )
        except Exception as error:  # its errors have no common base class
            raise Doubt("has shapes that do not fit each other") from error
        # Unused outputs have no name.
        return [self._value(types.get(name)) for name in proto.output]

    def _type(self, value: Value) -> onnx.TypeProto:
        if value.shape is None:
            return onnx.helper.make_tensor_type_proto(value.element, None)
        for size in value.shape:
            self._symbols[str(size)] = size
        sizes = [str(size) if size.symbols else size.number for size in value.shape]
        return onnx.helper.make_tensor_type_proto(value.element, sizes)

    def _value(self, proto: onnx.TypeProto | None) -> Value:
        if proto is None or not proto.HasField("tensor_type"):
            return Value(onnx.TensorProto.UNDEFINED, None)
        tensor = proto.tensor_type
        if not tensor.HasField("shape"):
            return Value(tensor.elem_type, None)
        return Value(tensor.elem_type, tuple(map(self._size, tensor.shape.dim)))

    def _size(self, dim: Any) -> Size:
        # For some operators inference returns 0 for an unknown size.
        if dim.HasField("dim_value") and dim.dim_value:
            return Size(dim.dim_value)
        known = self._symbols.get(dim.dim_param)
        return unknown() if known is None else known


def _known(value: Value) -> onnx.TensorProto | None:
    """The numbers in a value as inference takes them, if all are known."""
    if value.contents is None or value.shape is None or value.element not in _INTEGERS:
        return None
    numbers = [
        each.number for each in value.contents if isinstance(each, Size) and not each.symbols
    ]
    if len(numbers) < len(value.contents):
        return None
    dims = [size.number for size in value.shape]
    return onnx.helper.make_tensor("", value.element, dims, numbers)
