"""Operators that compute each element of a tensor by itself, shapes broadcast."""

from collections.abc import Sequence

from rowwise.sizes import ONE
from rowwise.values import Doubt, Node, Place, Value, along_rows, counted, keep

# Older opsets broadcast shapes by other rules.
_BROADCASTING = 7


def broadcast(values: Sequence[Value]) -> Place:
    """Place of the rows after broadcasting values, of which at least one has rows."""
    rank = max(value.rank for value in values)
    places = {keep(value, value.axis - value.rank) for value in values if value.axis is not None}
    if len(places) > 1:
        raise Doubt("combines tensors that have their rows on different axes")
    (place,) = places
    for value in values:
        at = place.axis + value.rank
        if value.axis is None and at >= 0 and value.sizes[at] != ONE:
            raise Doubt("combines rows with a tensor that changes along the axis of the rows")
    return Place(rank + place.axis, place.times, place.outer, rank)


def _elementwise(node: Node) -> Place:
    if len(node.inputs) > 1 and not node.proto.domain and node.opset < _BROADCASTING:
        raise Doubt(f"is of opset {node.opset}")
    return broadcast([value for value in node.inputs if value is not None])


def _of_first(node: Node) -> Place:
    """Other inputs are parameters without a shape of their own."""
    value, axis = node.only_rows(0)
    return keep(value, axis, value.rank)


def _like(node: Node) -> Value | Place:
    """The second input gives only the type of the output."""
    value = node.needed(0)
    if value.axis is None:
        return Value(node.needed(1).element, value.shape)
    return keep(value, value.axis, value.rank)


def _dropout(node: Node) -> Place:
    training = node.given(2)
    if training is not None and node.integers(2) != [0]:
        raise Doubt("may drop elements at random")
    return _of_first(node)


def _quantize(node: Node) -> Place:
    value, axis = node.only_rows(0)
    scale = node.needed(1)
    if scale.rank > 1 or node.attribute("block_size", 0):
        raise Doubt("scales blocks of elements")
    if scale.rank == 1 and scale.sizes != (ONE,) and node.axis(1, value.rank) == axis:
        raise along_rows()
    return keep(value, axis, value.rank)


def _last_axis_apart(node: Node) -> Place:
    """Parameters are of the last axis."""
    value, axis = node.only_rows(0)
    if axis == value.rank - 1:
        raise along_rows()
    return keep(value, axis, value.rank)


def _one_hot_encoder(node: Node) -> Place:
    value, axis = node.only_rows(0)
    return keep(value, axis, value.rank + 1)


def _one_hot(node: Node) -> Place:
    value, axis = node.only_rows(0)
    rank = value.rank + 1
    new = counted(node.attribute("axis", -1), rank)
    return keep(value, axis if axis < new else axis + 1, rank)


RULES = {
    **dict.fromkeys(
        [
            "Abs",
            "Acos",
            "Acosh",
            "Add",
            "And",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "BitCast",
            "BitShift",
            "BitwiseAnd",
            "BitwiseNot",
            "BitwiseOr",
            "BitwiseXor",
            "Cast",
            "Ceil",
            "Celu",
            "Clip",
            "Cos",
            "Cosh",
            "Div",
            "Elu",
            "Equal",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "Greater",
            "GreaterOrEqual",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "IsInf",
            "IsNaN",
            "LeakyRelu",
            "Less",
            "LessOrEqual",
            "Log",
            "Max",
            "Mean",
            "Min",
            "Mish",
            "Mod",
            "Mul",
            "Neg",
            "Not",
            "Or",
            "Pow",
            "PRelu",
            "Reciprocal",
            "RegexFullMatch",
            "Relu",
            "Round",
            "Selu",
            "Shrink",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Softplus",
            "Softsign",
            "Sqrt",
            "StringConcat",
            "Sub",
            "Sum",
            "Swish",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
            "Where",
            "Xor",
        ],
        _elementwise,
    ),
    **dict.fromkeys(("Binarizer", "LabelEncoder", "CategoryMapper"), _of_first),
    **dict.fromkeys(("Scaler", "Imputer"), _last_axis_apart),
    "CastLike": _like,
    "DequantizeLinear": _quantize,
    "Dropout": _dropout,
    "OneHot": _one_hot,
    "OneHotEncoder": _one_hot_encoder,
    "QuantizeLinear": _quantize,
}
