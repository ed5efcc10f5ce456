"""Follow numbers that graphs compute from shapes: sizes, axes, indices."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from rowwise.sizes import Size, product
from rowwise.values import Content, Doubt, Node

# Longer tensors are data, not shapes.
MOST = 64

Contents = tuple[Content, ...]


def of_tensor(tensor: onnx.TensorProto) -> Contents | None:
    """The numbers in a constant; None if they are too many, not numbers, or stored elsewhere."""
    rank = len(tensor.dims)
    if rank > 1 or tensor.external_data or (rank and tensor.dims[0] > MOST):
        return None
    try:
        array = numpy_helper.to_array(tensor).reshape(-1)
    except Exception:  # a malformed tensor; ONNX Runtime reports it
        return None
    if array.dtype.kind in "iub":
        return tuple(Size(int(each)) for each in array)
    if array.dtype.kind == "f":
        return tuple(float(each) for each in array)
    return None


def follow(node: Node) -> Contents | None:
    """The numbers in the first output; None if they are not known.

    Doubt if they depend on the number of rows other than as a factor.
    """
    rule = _RULES.get(node.proto.op_type)
    flat = node.proto.op_type in ("Shape", "Size") or all(
        value is None or (value.shape is not None and len(value.shape) <= 1)
        for value in node.inputs
    )
    return rule(node) if rule and flat else None


def shape_of(node: Node) -> Contents | None:
    """The sizes of a tensor, also of one with rows."""
    shape = node.needed(0).shape
    if shape is None:
        return None
    return shape[slice(node.attribute("start", 0), node.attribute("end"))]


def size_of(node: Node) -> Contents | None:
    """The number of elements of a tensor, also of one with rows."""
    shape = node.needed(0).shape
    return None if shape is None else (product(shape),)


def _inputs(node: Node) -> list[Contents] | None:
    contents = [value.contents for value in node.inputs if value is not None]
    known = [each for each in contents if each is not None]
    return known if len(known) == len(contents) else None


def _same(node: Node) -> Contents | None:
    return node.needed(0).contents


def _cast(node: Node) -> Contents | None:
    contents = node.needed(0).contents
    to = node.attribute("to")
    if contents is None or to == onnx.TensorProto.BOOL:
        return None
    floats = to in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    return tuple(each if floats or isinstance(each, Size) else None for each in contents)


def _gather(node: Node) -> Contents | None:
    data = node.needed(0)
    if data.contents is None or len(data.sizes) != 1:
        return None
    if data.counts_rows:
        return _picked(data.contents, node.integers(1) or [])
    try:
        return _picked(data.contents, node.integers(1) or [])
    except Doubt:
        return None


def _picked(contents: Contents, indices: Sequence[int]) -> Contents:
    if not all(-len(contents) <= index < len(contents) for index in indices):
        raise Doubt("has an index out of range")
    return tuple(contents[index] for index in indices)


def _slice(node: Node) -> Contents | None:
    data = node.needed(0)
    if data.contents is None or len(data.sizes) != 1:
        return None
    try:
        starts = node.integers(1) or node.attribute("starts")
        ends = node.integers(2) or node.attribute("ends")
        steps = node.integers(4) or [1]
    except Doubt:
        if data.counts_rows:
            raise
        return None
    return data.contents[starts[0] : ends[0] : steps[0]]


def _concat(node: Node) -> Contents | None:
    parts: list[Content] = []
    for value in node.inputs:
        if value is None or value.shape is None or len(value.shape) != 1:
            return None
        if value.contents is not None:
            parts += value.contents
        elif not value.shape[0].symbols and value.shape[0].number <= MOST:
            parts += [None] * value.shape[0].number
        else:
            return None
    return tuple(parts)


def _where(node: Node) -> Contents | None:
    contents = _inputs(node)
    if contents is None:
        return None
    length = max(map(len, contents))
    return tuple(
        _either(*(each[i if len(each) > 1 else 0] for each in contents)) for i in range(length)
    )


def _either(condition: Content, one: Content, other: Content) -> Content:
    if isinstance(condition, Size) and not condition.symbols:
        return one if condition.number else other
    if _of_rows(condition) or _of_rows(one) or _of_rows(other):
        raise _unclear()
    return one if one == other else None


def _reduce_prod(node: Node) -> Contents | None:
    contents = node.needed(0).contents
    if contents is None or not all(isinstance(each, Size) for each in contents):
        return None
    return (product(each for each in contents if isinstance(each, Size)),)


def _constant_of_shape(node: Node) -> Contents | None:
    length = node.needed(0).contents
    if length is None or len(length) > 1:
        return None
    count = product(each for each in length if isinstance(each, Size))
    if count.symbols or count.number > MOST:
        return None
    tensor = node.attribute("value")
    filler = Size(0) if tensor is None else (of_tensor(tensor) or (None,))[0]
    return (filler,) * count.number


def _neg(node: Node) -> Contents | None:
    contents = node.needed(0).contents
    if contents is None or not all(isinstance(each, Size) for each in contents):
        return None
    return tuple(each * Size(-1) for each in contents if isinstance(each, Size))


def _range(node: Node) -> Contents | None:
    if any(value is None or value.contents is None for value in node.inputs):
        return None
    if any(value.counts_rows for value in node.inputs if value is not None):
        raise _unclear()
    try:
        start, stop, step = ((node.integers(index) or [0])[0] for index in range(3))
    except Doubt:
        return None
    numbers = range(start, stop, step or 1)
    return tuple(map(Size, numbers)) if len(numbers) <= MOST else None


def _binary(
    compute: Callable[[Node, Content, Content], Content],
) -> Callable[[Node], Contents | None]:
    def rule(node: Node) -> Contents | None:
        contents = _inputs(node)
        if contents is None:
            return None
        length = max(map(len, contents))
        if any(len(each) not in (1, length) for each in contents):
            return None
        one, other = (each * length if len(each) == 1 else each for each in contents)
        return tuple(_clear(compute, node, a, b) for a, b in zip(one, other, strict=True))

    return rule


def _clear(
    compute: Callable[[Node, Content, Content], Content], node: Node, one: Content, other: Content
) -> Content:
    result = compute(node, one, other)
    if result is None and (_of_rows(one) or _of_rows(other)):
        raise _unclear()
    return result


def _add(_: Node, one: Content, other: Content) -> Content:
    return _numbers(one, other, lambda a, b: a + b) or _neutral(one, other)


def _sub(_: Node, one: Content, other: Content) -> Content:
    return _numbers(one, other, lambda a, b: a - b)


def _mul(_: Node, one: Content, other: Content) -> Content:
    return one * other if isinstance(one, Size) and isinstance(other, Size) else None


def _div(node: Node, one: Content, other: Content) -> Content:
    if not (isinstance(one, Size) and isinstance(other, Size)):
        return None
    exact = one.over(other)
    integers = node.needed(0).element in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    if exact is not None or not integers or not other.number:
        return exact
    # Integers are divided towards zero.
    return _numbers(one, other, lambda a, b: int(np.trunc(a / b)))


def _equal(_: Node, one: Content, other: Content) -> Content:
    if not (isinstance(one, Size) and isinstance(other, Size)):
        return None
    if one == other:
        return Size(1)
    if one.symbols and other.symbols:
        return None
    # No axis is of negative size.
    decided = not (one.symbols or other.symbols) or one.number * other.number < 0
    return Size(0) if decided else None


def _numbers(one: Content, other: Content, compute: Callable[[int, int], int]) -> Size | None:
    if not (isinstance(one, Size) and isinstance(other, Size)) or one.symbols or other.symbols:
        return None
    return Size(compute(one.number, other.number))


def _neutral(one: Content, other: Content) -> Content:
    nothing = Size(0)
    if one == nothing:
        return other
    return one if other == nothing else None


def _of_rows(content: Content) -> bool:
    return isinstance(content, Size) and content.of_rows


def _unclear() -> Doubt:
    return Doubt("computes with the number of rows")


_RULES: dict[str, Callable[[Node], Contents | None]] = {
    **dict.fromkeys(("Identity", "Reshape", "Squeeze", "Unsqueeze"), _same),
    "Add": _binary(_add),
    "Sub": _binary(_sub),
    "Mul": _binary(_mul),
    "Div": _binary(_div),
    "Equal": _binary(_equal),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Neg": _neg,
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "Shape": shape_of,
    "Size": size_of,
    "Slice": _slice,
    "Where": _where,
}
