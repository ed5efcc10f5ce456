"""Operators that work along given axes, such as sums, softmax, sorting and transforms."""

from collections.abc import Callable, Collection

from rowwise.elementwise import broadcast
from rowwise.sizes import ONE
from rowwise.values import Doubt, Node, Place, along_rows, counted, keep

_SOFTMAX_OF_ONE_AXIS = 13


def _along(axes: Callable[[Node, int], Collection[int]]) -> Callable[[Node], Place]:
    """A rule for operators that mix along the axes that `axes_of` returns for a rank."""

    def rule(node: Node) -> Place:
        value, axis = node.only_rows(0)
        if axis in axes(node, value.rank):
            raise along_rows()
        return keep(value, axis, value.rank)

    return rule


def _attribute(default: int) -> Callable[[Node, int], Collection[int]]:
    return lambda node, rank: [node.axis(default, rank)]


def _from_axis(default: int) -> Callable[[Node, int], Collection[int]]:
    return lambda node, rank: range(node.axis(default, rank), rank)


def _softmax(node: Node, rank: int) -> Collection[int]:
    if node.opset >= _SOFTMAX_OF_ONE_AXIS:
        return [node.axis(-1, rank)]
    return _from_axis(1)(node, rank)


def _input(index: int, default: int | None = None) -> Callable[[Node, int], Collection[int]]:
    def axes(node: Node, rank: int) -> Collection[int]:
        numbers = node.integers(index)
        if numbers is None and default is None:
            return range(rank)
        return [counted(number, rank) for number in numbers or [default or 0]]

    return axes


def _dft(node: Node, rank: int) -> Collection[int]:
    axes = _input(2, -2)(node, rank) if node.opset >= 20 else [node.axis(1, rank)]
    # The last one has real and imaginary parts.
    return [*axes, rank - 1]


def _last_two(_: Node, rank: int) -> Collection[int]:
    return (rank - 2, rank - 1)


def _all_but_first(_: Node, rank: int) -> Collection[int]:
    return range(1, rank)


def _mean_variance(node: Node, rank: int) -> Collection[int]:
    return [counted(axis, rank) for axis in node.attribute("axes", [0, 2, 3])]


def _batch_norm(node: Node, rank: int) -> Collection[int]:
    if node.attribute("training_mode", 0) or len(node.proto.output) > 1 or node.opset < 9:
        raise Doubt("may normalize by the mean of the batch")
    return range(1, rank)


def _layer_norm(node: Node) -> Place:
    place = _along(_from_axis(-1))(node)
    broadcast([value for value in node.inputs if value is not None])
    return place


def _reduce(node: Node) -> Place:
    value, axis = node.only_rows(0)
    axes = node.axes(1)
    if not axes:
        if node.attribute("noop_with_empty_axes", 0):
            return keep(value, axis, value.rank)
        raise along_rows()
    return _removed(node, [counted(each, value.rank) for each in axes])


def _arg(node: Node) -> Place:
    value, _ = node.only_rows(0)
    return _removed(node, [node.axis(0, value.rank)])


def _removed(node: Node, axes: list[int]) -> Place:
    value, axis = node.only_rows(0)
    if axis in axes:
        raise along_rows()
    if node.attribute("keepdims", 1):
        return keep(value, axis, value.rank)
    before = sum(each < axis for each in axes)
    return keep(value, axis - before, value.rank - len(axes))


def _det(node: Node) -> Place:
    place = _along(_last_two)(node)
    return keep(node.needed(0), place.axis, node.needed(0).rank - 2)


def _reverse_sequence(node: Node) -> Place:
    value, lengths = node.needed(0), node.needed(1)
    if value.axis is None or lengths.axis != 0 or (value.outer, value.times) != (ONE, ONE):
        raise Doubt("takes one length for each row")
    if node.attribute("batch_axis", 1) != value.axis or lengths.times != ONE:
        raise along_rows()
    return keep(value, value.axis, value.rank)


RULES = {
    **dict.fromkeys(
        [
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ],
        _reduce,
    ),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _along(_softmax)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _layer_norm),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "LRN"), _along(_all_but_first)),
    "BatchNormalization": _along(_batch_norm),
    "CumSum": _along(_input(1)),
    "CumProd": _along(_input(1)),
    "DFT": _along(_dft),
    "Det": _det,
    "LpNormalization": _along(_attribute(-1)),
    "MeanVarianceNormalization": _along(_mean_variance),
    "ReverseSequence": _reverse_sequence,
    "TopK": _along(_attribute(-1)),
    "Trilu": _along(_last_two),
}
