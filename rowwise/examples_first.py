"""Operators that are defined for a batch: images, sequences, tables of examples."""

from collections.abc import Callable

from rowwise.sizes import ONE, ROWS, Size
from rowwise.values import Doubt, Node, Place, Value, along_rows, keep


def _batch(first: int = 0, *also: int) -> Callable[[Node], Place]:
    """A rule for operators that take one example per row of input `first` and of inputs `also`."""

    def rule(node: Node) -> Place:
        value = node.needed(first)
        _leads(value)
        for index, other in enumerate(node.inputs):
            if other is None or index == first:
                continue
            if index not in also and other.axis is not None:
                raise Doubt("takes rows as a parameter")
            if index in also:
                _leads(other)
                if keep(other, 0) != keep(value, 0):
                    raise along_rows()
        return keep(value, 0)

    return rule


def _leads(value: Value) -> None:
    if value.axis is None:
        raise Doubt("combines rows with a tensor that changes along the axis of the rows")
    if value.axis:
        raise along_rows()
    # Otherwise one example would become several.
    if value.rank < 2:
        raise along_rows()


def _max_pool(node: Node) -> Place:
    if len(node.proto.output) > 1 and node.proto.output[1]:
        raise Doubt("gives positions that count all rows")
    return _batch()(node)


def _resize(node: Node) -> Value | Place:
    value = node.needed(0)
    axis = value.axis
    if axis is None:
        raise Doubt("computes with the number of rows")
    node.shared_from(1)
    axes = node.attribute("axes")
    if axes is not None and axis in [each % value.rank for each in axes]:
        raise along_rows()
    if axes is not None:
        if any(each is not None and each.counts_rows for each in node.inputs):
            raise Doubt("computes with the number of rows")
        return keep(value, axis, value.rank)
    scales = _list(node, "scales", 1 if node.opset < 11 else 2)
    sizes = _list(node, "", 3)
    if scales and scales[axis] not in (1.0, ONE):
        raise along_rows()
    if sizes and sizes[axis] != value.sizes[axis]:
        raise along_rows()
    if sum(isinstance(each, Size) and each.of_rows for each in sizes) > 1:
        raise Doubt("computes with the number of rows")
    if not scales and not sizes:
        raise Doubt("takes sizes or axes that are known only when it is run")
    return keep(value, axis, value.rank)


def _list(node: Node, attribute: str, index: int) -> tuple[Size | float | None, ...]:
    numbers = node.attribute(attribute) if attribute else None
    if numbers is not None:
        return tuple(numbers)
    value = node.given(index)
    if value is None or value.shape == (Size(0),):
        return ()
    return value.contents or ()


def _recurrent(node: Node) -> list[Place]:
    """RNN, GRU and LSTM, whose states lead with the directions except in one layout."""
    first = bool(node.attribute("layout", 0))
    value = node.needed(0)
    axes = {0: 0 if first else 1, 4: 0, 5: 0 if first else 1, 6: 0 if first else 1}
    for index, tensor in enumerate(node.inputs):
        if tensor is None:
            continue
        if index in axes:
            if tensor.axis != axes[index] or keep(tensor, 0) != keep(value, 0):
                raise along_rows()
        elif tensor.axis is not None:
            raise Doubt("takes rows as a parameter")
    states = keep(value, 0 if first else 1, 3)
    return [keep(value, 0 if first else 2, 4), states, states]


def _affine_grid(node: Node) -> Place:
    theta, size = node.needed(0), node.needed(1).contents
    if theta.axis != 0 or not size or size[0] != ROWS or theta.sizes[0] != ROWS:
        raise Doubt("combines rows with a tensor that changes along the axis of the rows")
    return Place(0)


def _table(*ranks: int) -> Callable[[Node], list[Place]]:
    """A rule for operators that take a table [rows, features], with outputs of these ranks."""

    def rule(node: Node) -> list[Place]:
        values = [value for value in node.inputs if value is not None]
        if any(value.axis != 0 or value.rank != 2 for value in values):
            raise along_rows()
        if any(keep(value, 0) != keep(values[0], 0) for value in values):
            raise along_rows()
        return [keep(values[0], 0, rank) for rank in ranks]

    return rule


def _attention(node: Node) -> Place:
    query, mask = node.needed(0), node.given(3)
    for index in (0, 1, 2, 4, 5, 6):
        value = node.given(index)
        if value is not None:
            _leads(value)
            if keep(value, 0) != keep(query, 0):
                raise along_rows()
    if mask is None:
        return keep(query, 0)
    if mask.axis is None and mask.rank == 4 and mask.sizes[0] != ONE:
        raise Doubt("combines rows with a tensor that changes along the axis of the rows")
    if mask.axis is not None and (mask.rank != 4 or keep(mask, mask.axis) != keep(query, 0)):
        raise along_rows()
    return keep(query, 0)


RULES = {
    **dict.fromkeys(
        [
            "AveragePool",
            "Conv",
            "ConvInteger",
            "ConvTranspose",
            "GlobalAveragePool",
            "GlobalLpPool",
            "GlobalMaxPool",
            "LpPool",
            "QLinearConv",
            "STFT",
            "Col2Im",
        ],
        _batch(),
    ),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"), _table(1, 2)),
    **dict.fromkeys(
        [
            "FeatureVectorizer",
            "LinearRegressor",
            "Normalizer",
            "SVMRegressor",
            "TfIdfVectorizer",
            "TreeEnsemble",
            "TreeEnsembleRegressor",
        ],
        _table(2),
    ),
    "AffineGrid": _affine_grid,
    "Attention": _attention,
    "DeformConv": _batch(0, 2, 4),
    "GridSample": _batch(0, 1),
    "MaxPool": _max_pool,
}
