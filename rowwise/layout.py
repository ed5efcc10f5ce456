"""Operators that only reshape, move or repeat the elements of a tensor."""

from rowwise.sizes import ONE, ROWS, Size, product, unknown
from rowwise.values import Content, Doubt, Node, Place, Value, along_rows, counted, keep


def _unclear() -> Doubt:
    return Doubt("gives a shape from which it is not clear where the rows are")


def _reshape(node: Node) -> Value:
    value, numbers = node.needed(0), node.needed(1).contents
    if value.axis is None or numbers is None:
        raise _unclear()
    return _in_shape(
        value, _resolved(value, numbers, zero_copies=not node.attribute("allowzero", 0))
    )


def _resolved(
    value: Value, numbers: tuple[Content, ...], *, zero_copies: bool
) -> list[Size | None]:
    """Sizes in a Reshape's target; None: any, but the same for every number of rows."""
    sizes: list[Size | None] = []
    open_axis = None
    for axis, size in enumerate(numbers):
        if size == Size(-1):
            open_axis = axis
            sizes.append(None)
        elif size == Size(0) and zero_copies:
            if axis >= value.rank:
                raise _unclear()
            sizes.append(value.sizes[axis])
        else:
            sizes.append(size if isinstance(size, Size) else None)
    if open_axis is not None:
        others = [size for axis, size in enumerate(sizes) if axis != open_axis]
        known = [size for size in others if size is not None]
        if len(known) == len(others):
            sizes[open_axis] = product(value.sizes).over(product(known))
    return sizes


def _in_shape(value: Value, sizes: list[Size | None]) -> Value:
    """The same elements in other sizes, in the same order."""
    axes = [axis for axis, size in enumerate(sizes) if size is not None and size.of_rows]
    assert value.axis is not None
    if len(axes) != 1:
        raise _unclear()
    (axis,) = axes
    before = sizes[:axis]
    known = [size for size in before if size is not None]
    with_rows = sizes[axis]
    if len(known) != len(before) or with_rows is None:
        raise _unclear()
    # Some of the entries before the rows may now be on the axis of the rows.
    outer = (product(value.sizes[: value.axis]) * value.outer).over(product(known))
    if outer is None or with_rows.over(outer * ROWS) is None:
        raise _unclear()
    return Value(value.element, _named(sizes), None, outer)


def _named(sizes: list[Size | None]) -> tuple[Size, ...]:
    return tuple(unknown() if size is None else size for size in sizes)


def _flatten(node: Node) -> Value:
    value, _ = node.only_rows(0)
    axis = node.attribute("axis", 1)
    axis = value.rank if axis == value.rank else counted(axis, value.rank)
    return _in_shape(value, [product(value.sizes[:axis]), product(value.sizes[axis:])])


def _transpose(node: Node) -> Place:
    value, axis = node.only_rows(0)
    order = node.attribute("perm") or range(value.rank)[::-1]
    return keep(value, list(order).index(axis), value.rank)


def _squeeze(node: Node) -> Place:
    value, axis = node.only_rows(0)
    axes = node.axes(1)
    if axes is None:
        raise Doubt("removes every axis of size 1, also that of a single row")
    axes = [counted(each, value.rank) for each in axes]
    if axis in axes:
        raise along_rows()
    return keep(value, axis - sum(each < axis for each in axes), value.rank - len(axes))


def _unsqueeze(node: Node) -> Place:
    value, axis = node.only_rows(0)
    axes = node.axes(1) or []
    rank = value.rank + len(axes)
    new = {counted(each, rank) for each in axes}
    old = [each for each in range(rank) if each not in new]
    return keep(value, old[axis], rank)


def _expand(node: Node) -> Value:
    value, numbers = node.needed(0), node.needed(1).contents
    if numbers is None:
        raise _unclear()
    rank = max(value.rank, len(numbers))
    own = (ONE,) * (rank - value.rank) + value.sizes
    target = (ONE,) * (rank - len(numbers)) + numbers
    sizes: list[Size | None] = []
    for has, size in zip(own, target, strict=True):
        if size in (ONE, has):
            sizes.append(has)
        elif has == ONE and isinstance(size, Size):
            sizes.append(size)
        elif has.of_rows or (isinstance(size, Size) and size.of_rows):
            raise _unclear()
        else:
            sizes.append(None)
    if sum(size is not None and size.of_rows for size in sizes) != 1:
        raise _unclear()
    return Value(value.element, _named(sizes), None, value.outer)


def _tile(node: Node) -> Value:
    value, repeats = node.needed(0), node.needed(1).contents
    if repeats is None or len(repeats) != value.rank:
        raise _unclear()
    sizes: list[Size | None] = []
    for has, times in zip(value.sizes, repeats, strict=True):
        known = isinstance(times, Size)
        if has.of_rows and times != ONE:
            raise along_rows()
        sizes.append(has * times if known and isinstance(times, Size) else None)
    if sum(size is not None and size.of_rows for size in sizes) != 1:
        raise _unclear()
    return Value(value.element, _named(sizes), None, value.outer)


def _constant_of_shape(node: Node) -> Value:
    numbers = node.needed(0).contents or ()
    sizes = [size if isinstance(size, Size) else None for size in numbers]
    if sum(size is not None and size.of_rows for size in sizes) != 1:
        raise _unclear()
    tensor = node.attribute("value")
    element = 1 if tensor is None else tensor.data_type
    return Value(element, _named(sizes))


def _concat(node: Node) -> Place:
    values = [value for value in node.inputs if value is not None]
    _, first, axis = node.with_rows[0]
    place = keep(first, axis, first.rank)
    if counted(node.attribute("axis", 1), first.rank) == axis:
        raise along_rows()
    if any(value.axis is None or keep(value, value.axis, value.rank) != place for value in values):
        raise Doubt("joins rows with a tensor that has none")
    return place


def _split(node: Node) -> Place:
    value, axis = node.only_rows(0)
    if node.axis(0, value.rank) == axis:
        raise along_rows()
    return keep(value, axis, value.rank)


def _pad(node: Node) -> Place:
    value, axis = node.only_rows(0)
    pads = node.attribute("pads") or node.attribute("paddings") or node.integers(1) or []
    axes = node.integers(3)
    over = list(range(value.rank)) if axes is None else [counted(each, value.rank) for each in axes]
    if len(pads) != 2 * len(over):
        raise _unclear()
    if axis in over:
        at = over.index(axis)
        if pads[at] or pads[at + len(over)]:
            raise along_rows()
    return keep(value, axis, value.rank)


def _depth_to_space(node: Node) -> Place:
    value, axis = node.only_rows(0)
    if axis:
        raise along_rows()
    return keep(value, axis, value.rank)


RULES = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "SpaceToDepth": _depth_to_space,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
