"""Constants of a graph, as initializers and as operators."""

import onnx

from rowwise import contents
from rowwise.sizes import Size
from rowwise.values import Node, Value


def of_tensor(tensor: onnx.TensorProto) -> Value:
    """A tensor that is stored in the graph, its data or only its shape."""
    return Value(tensor.data_type, tuple(map(Size, tensor.dims)), contents.of_tensor(tensor))


def of_node(node: Node) -> Value:
    """The output of the operator Constant."""
    attribute = node.proto.attribute[0]
    value = node.attribute(attribute.name)
    if attribute.name == "value":
        return of_tensor(value)
    if attribute.name == "sparse_value":
        return Value(value.values.data_type, tuple(map(Size, value.dims)))
    kind = attribute.name.removeprefix("value_").removesuffix("s")
    element = {
        "int": onnx.TensorProto.INT64,
        "float": onnx.TensorProto.FLOAT,
    }.get(kind, onnx.TensorProto.STRING)
    flat = list(value) if attribute.name.endswith("s") else [value]
    shape = (Size(len(flat)),) if attribute.name.endswith("s") else ()
    if element == onnx.TensorProto.STRING or len(flat) > contents.MOST:
        return Value(element, shape)
    return Value(element, shape, tuple(Size(each) if kind == "int" else each for each in flat))
