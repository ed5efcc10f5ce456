"""Operators that take parts of a tensor, by position or by value."""

from rowwise.sizes import ONE, Size, product
from rowwise.values import Content, Doubt, Node, Place, Value, along_rows, counted, keep

# An end of a slice from here on means: to the last element.
_ALL = 2**31 - 1


def _slice(node: Node) -> Place:
    value, axis = node.needed(0), node.needed(0).axis
    if axis is None:
        raise Doubt("computes with the number of rows")
    node.shared_from(1)
    starts = _contents(node, 1, "starts")
    ends = _contents(node, 2, "ends")
    axes = node.attribute("axes") or node.integers(3) or range(len(starts))
    steps = node.integers(4) or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Doubt("has starts, ends and axes that do not fit each other")
    for at, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if counted(at, value.rank) != axis:
            if any(isinstance(each, Size) and each.of_rows for each in (start, end)):
                raise Doubt("computes with the number of rows")
        elif not (start == Size(0) and step == 1 and _reaches(end, value.sizes[axis])):
            raise along_rows()
    return keep(value, axis, value.rank)


def _contents(node: Node, index: int, name: str) -> tuple[Content, ...]:
    numbers = node.attribute(name)
    if numbers is not None:
        return tuple(map(Size, numbers))
    value = node.needed(index)
    if value.contents is None:
        # Only the axes show how many there are.
        count = len(node.integers(3) or [])
        if not count:
            raise Doubt("takes sizes or axes that are known only when it is run")
        return (None,) * count
    return value.contents


def _reaches(end: Content, size: Size) -> bool:
    return end == size or (isinstance(end, Size) and not end.symbols and end.number >= _ALL)


def _gather(node: Node) -> Place:
    data, indices = node.needed(0), node.needed(1)
    at = node.axis(0, data.rank)
    if data.axis is not None and indices.axis is not None:
        raise Doubt("picks rows by rows")
    if indices.axis is not None:
        return keep(indices, at + indices.axis, data.rank + indices.rank - 1)
    if data.axis is None or data.axis == at:
        raise Doubt("picks rows by their number")
    axis = data.axis if data.axis < at else data.axis + indices.rank - 1
    return keep(data, axis, data.rank + indices.rank - 1)


def _elements(node: Node) -> Place:
    """GatherElements and ScatterElements: all tensors are of one rank, and not broadcast."""
    _, first, axis = node.with_rows[0]
    place = keep(first, axis, first.rank)
    for value in node.inputs:
        if value is None or value.axis is None or keep(value, value.axis, value.rank) != place:
            raise Doubt("picks elements of rows by a tensor that has no rows, or the other way")
    if node.axis(0, first.rank) == axis:
        raise Doubt("picks rows by their number")
    return place


def _gather_nd(node: Node) -> Place:
    data, indices = node.needed(0), node.needed(1)
    together = node.attribute("batch_dims", 0)
    if indices.axis is None or indices.axis == indices.rank - 1:
        raise Doubt("picks rows by their number")
    place = keep(indices, indices.axis)
    if data.axis is not None and (indices.axis >= together or keep(data, data.axis) != place):
        raise Doubt("picks rows by their number")
    if data.axis is None and indices.axis < together:
        raise Doubt("combines rows with a tensor that changes along the axis of the rows")
    return place


def _compress(node: Node) -> Place:
    value, axis = node.only_rows(0)
    if node.attribute("axis") is None or node.axis(0, value.rank) == axis:
        raise along_rows()
    return keep(value, axis, value.rank)


def _array_feature_extractor(node: Node) -> Value | Place:
    """Indices, whatever their shape, pick elements of the last axis."""
    value, indices = node.needed(0), node.needed(1)
    if value.axis is None and indices.axis is not None:
        outer = product(indices.sizes[: indices.axis]) * indices.outer
        sizes = (*(value.sizes[:-1] or (ONE,)), product(indices.sizes))
        return Value(value.element, sizes, None, outer)
    value, axis = node.only_rows(0)
    if axis == value.rank - 1:
        raise along_rows()
    return keep(value, axis, value.rank)


def _own_axis(_: Node) -> Place:
    raise Doubt("gives as many parts as it finds in all rows together")


RULES = {
    **dict.fromkeys(
        ("NonZero", "NonMaxSuppression", "Unique", "StringSplit", "StringNormalizer"), _own_axis
    ),
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _elements,
    "GatherND": _gather_nd,
    "ScatterElements": _elements,
    "Slice": _slice,
}
