"""Operators that run subgraphs: branches, loops, scans.

A loop keeps rows apart if its body does, in every iteration: a value that it carries from one
iteration to the next must keep its rows in the same place.
"""

from collections.abc import Callable, Sequence

import onnx

from rowwise.sizes import Size, unknown
from rowwise.values import Doubt, Node, Value, along_rows, counted

# Runs a graph on inputs, and returns its outputs.
Run = Callable[[onnx.GraphProto, Sequence[Value]], list[Value]]

_SCAN_WITHOUT_BATCHES = 9


def _if(node: Node, run: Run) -> list[Value]:
    if node.with_rows:
        raise Doubt("chooses for all rows together")
    branches = (run(node.attribute(name), []) for name in ("then_branch", "else_branch"))
    return [_either(*pair) for pair in zip(*branches, strict=True)]


def _loop(node: Node, run: Run) -> list[Value]:
    turns, go_on, *states = node.inputs
    for value in (turns, go_on):
        if value is not None and value.axis is not None:
            raise Doubt("runs as often as the rows together ask for")
    before = [_any_like(_given(state)) for state in states]
    number = Value(onnx.TensorProto.INT64, ())
    decided = Value(onnx.TensorProto.BOOL, ())
    still, *after = run(node.attribute("body"), [number, decided, *before])
    if still.axis is not None or still.counts_rows:
        raise Doubt("runs as often as the rows together ask for")
    _check_kept(before, after)
    return [
        *map(_any_like, before),
        *(_stacked(each, 0, unknown()) for each in after[len(before) :]),
    ]


def _scan(node: Node, run: Run) -> list[Value]:
    if node.opset < _SCAN_WITHOUT_BATCHES:
        raise Doubt(f"is of opset {node.opset}")
    values = [_given(value) for value in node.inputs]
    parts = node.attribute("num_scan_inputs")
    before, scanned = values[:-parts], values[-parts:]
    axes = node.attribute("scan_input_axes") or [0] * parts
    length = scanned[0].sizes[counted(axes[0], scanned[0].rank)]
    slices = [_slice(value, axis) for value, axis in zip(scanned, axes, strict=True)]
    states = [Value(value.element, value.sizes, None, value.outer) for value in before]
    after = run(node.attribute("body"), [*states, *slices])
    _check_kept(states, after)
    outputs = after[len(before) :]
    places = node.attribute("scan_output_axes") or [0] * len(outputs)
    stacked = zip(outputs, places, strict=True)
    return [*states, *(_stacked(value, axis, length) for value, axis in stacked)]


def _given(value: Value | None) -> Value:
    if value is None:
        raise Doubt("lacks a value to begin with")
    return value


def _any_like(value: Value) -> Value:
    """A value with rows at the same place; other sizes may change between iterations."""
    sizes = tuple(size if size.of_rows else unknown() for size in value.sizes)
    return Value(value.element, sizes, None, value.outer)


def _check_kept(before: Sequence[Value], after: Sequence[Value]) -> None:
    for old, new in zip(before, after, strict=False):
        if new.counts_rows or _place(old) != _place(new):
            raise Doubt("moves rows between iterations")


def _place(value: Value) -> tuple[object, ...]:
    axis = value.axis
    return value.rank, axis, value.outer, None if axis is None else value.sizes[axis]


def _either(one: Value, other: Value) -> Value:
    if one.counts_rows or other.counts_rows or _place(one) != _place(other):
        raise Doubt("has branches that give rows at different places")
    sizes = (a if a == b else unknown() for a, b in zip(one.sizes, other.sizes, strict=True))
    return Value(one.element, tuple(sizes), None, one.outer)


def _slice(value: Value, axis: int) -> Value:
    at = counted(axis, value.rank)
    if value.axis == at:
        raise along_rows()
    return Value(value.element, value.sizes[:at] + value.sizes[at + 1 :], None, value.outer)


def _stacked(value: Value, axis: int, length: Size) -> Value:
    if value.counts_rows:
        raise Doubt("computes with the number of rows")
    at = counted(axis, value.rank + 1)
    return Value(value.element, (*value.sizes[:at], length, *value.sizes[at:]), None, value.outer)


RULES = {"If": _if, "Loop": _loop, "Scan": _scan}
