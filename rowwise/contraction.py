"""Products of matrices and tensors."""

from collections.abc import Sequence

from rowwise.elementwise import broadcast
from rowwise.sizes import ONE, ROWS
from rowwise.values import Doubt, Node, Place, Value, keep


def _contracts() -> Doubt:
    return Doubt("sums over the axis that the rows are on")


def _product(one: Value, other: Value) -> Place:
    """Rows of a matrix product of stacks of matrices."""
    rank = max(one.rank, other.rank) - (one.rank == 1) - (other.rank == 1)
    rows = [value for value in (one, other) if value.axis is not None]
    if all(map(_stacked, rows)):
        place = broadcast([_leading(one), _leading(other)])
        return Place(place.axis, place.times, place.outer, rank)
    if len(rows) > 1:
        raise Doubt("multiplies rows with each other")
    if one.axis is not None and one.axis == one.rank - 2:
        return keep(one, rank - (2 if other.rank > 1 else 1), rank)
    if other.axis is not None and other.rank > 1 and other.axis == other.rank - 1:
        return keep(other, rank - 1, rank)
    raise _contracts()


def _stacked(value: Value) -> bool:
    return value.axis is not None and value.axis < value.rank - 2


def _leading(value: Value) -> Value:
    """The value with the axes of each matrix shrunk to 1, as they do not broadcast."""
    return Value(value.element, (*value.sizes[:-2], ONE, ONE), None, value.outer)


def _matmul(node: Node) -> Place:
    node.shared_from(2)
    return _product(node.needed(0), node.needed(1))


def _matmul_integer(node: Node) -> Place:
    _scalars(node, (2,))
    return _matmul(node)


def _qlinear_matmul(node: Node) -> Place:
    _scalars(node, (1, 2, 6, 7))
    for index in (4, 5):
        if node.needed(index).axis is not None:
            raise Doubt("takes rows as a parameter")
    return _product(node.needed(0), node.needed(3))


def _scalars(node: Node, indices: Sequence[int]) -> None:
    for index in indices:
        value = node.given(index)
        if value is not None and value.sizes not in ((), (ONE,)):
            raise Doubt("scales each of its rows otherwise")


def _gemm(node: Node) -> Place:
    one, other = (
        _transposed(node.needed(i)) if node.attribute(name, 0) else node.needed(i)
        for i, name in enumerate(("transA", "transB"))
    )
    bias = node.given(2)
    if one.axis is None and other.axis is None:
        raise Doubt("adds rows to a product that has none")
    place = _product(one, other)
    if bias is None:
        return place
    sizes = [ONE, ONE]
    sizes[place.axis] = place.outer * place.times * ROWS
    return broadcast([Value(one.element, tuple(sizes), None, place.outer), bias])


def _transposed(value: Value) -> Value:
    return Value(value.element, value.sizes[::-1], None, value.outer)


def _einsum(node: Node) -> Place:
    left, arrow, result = node.attribute("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or len(terms) != len(node.inputs):
        raise Doubt(f"has equation {node.attribute('equation')!r}")
    letters = set()
    places = set()
    for index, value, axis in node.with_rows:
        if len(terms[index]) != value.rank:
            raise Doubt(f"has equation {node.attribute('equation')!r}")
        letters.add(terms[index][axis])
        places.add((value.times, value.outer))
    if len(letters) > 1 or len(places) > 1:
        raise Doubt("multiplies rows with each other")
    (letter,) = letters
    with_rows = {index for index, _, _ in node.with_rows}
    for index, term in enumerate(terms):
        if term.count(letter) != (index in with_rows):
            raise Doubt("combines rows with a tensor that changes along the axis of the rows")
    if result.count(letter) != 1:
        raise _contracts()
    _, value, _ = node.with_rows[0]
    return keep(value, result.index(letter), len(result))


RULES = {
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
}
