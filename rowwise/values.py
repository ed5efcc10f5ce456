"""Facts about a value in a graph: the place of its rows, its sizes, the numbers in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from rowwise.sizes import ONE, ROWS, Size

# None: a number that is not known, but does not depend on the number of rows.
Content = Size | float | None


class Doubt(Exception):
    """It cannot be proved that rows are independent; the text says why."""


@dataclass(frozen=True, slots=True)
class Value:
    """The facts about a value that hold in every execution.

    Attributes:
        element: its element type, of onnx.TensorProto.
        shape: None if not even the rank is known. At most one size changes with the number of
            rows. On that axis each row has `times` entries in succession, `outer` times over.
        contents: the numbers in it, flat, if it is a small tensor of them.
        outer: see shape.
    """

    element: int
    shape: tuple[Size, ...] | None
    contents: tuple[Content, ...] | None = None
    outer: Size = ONE

    @property
    def axis(self) -> int | None:
        """The axis of the rows; None: the value does not depend on the rows."""
        axes = (i for i, size in enumerate(self.shape or ()) if size.of_rows)
        return next(axes, None)

    @property
    def times(self) -> Size:
        """How many entries in succession belong to one row."""
        assert self.shape is not None
        assert self.axis is not None
        times = self.shape[self.axis].over(self.outer * ROWS)
        assert times is not None
        return times

    @property
    def rank(self) -> int:
        """Number of axes; Doubt if it is not known."""
        return len(self.sizes)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The shape; Doubt if it is not known."""
        if self.shape is None:
            raise Doubt("combines rows with a tensor of unknown rank")
        return self.shape

    @property
    def counts_rows(self) -> bool:
        """Whether the number of rows is in it, as data."""
        return any(isinstance(each, Size) and each.of_rows for each in self.contents or ())


@dataclass(frozen=True, slots=True)
class Place:
    """The place of the rows of an output, as in Value; `rank` is for an unknown shape."""

    axis: int
    times: Size = ONE
    outer: Size = ONE
    rank: int | None = None


class Node:
    """An operator with the known facts about its inputs."""

    def __init__(self, proto: onnx.NodeProto, opset: int, inputs: Sequence[Value | None]) -> None:
        self.proto = proto
        self.opset = opset
        self.inputs = inputs
        self._attributes = {each.name: each for each in proto.attribute}

    @property
    def with_rows(self) -> list[tuple[int, Value, int]]:
        """Inputs with rows: number, value, axis of the rows."""
        return [
            (index, value, value.axis)
            for index, value in enumerate(self.inputs)
            if value is not None and value.axis is not None
        ]

    def given(self, index: int) -> Value | None:
        """An input, None if it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def needed(self, index: int) -> Value:
        """An input; Doubt if it is absent."""
        value = self.given(index)
        if value is None:
            raise Doubt(f"lacks input {index}")
        return value

    def only_rows(self, index: int) -> tuple[Value, int]:
        """An input with rows and their axis; Doubt if another one has rows too."""
        for at, value, axis in self.with_rows:
            if at == index:
                self.shared_from(at + 1)
                return value, axis
            raise Doubt("takes rows as a parameter")
        raise Doubt("takes rows as a parameter")

    def shared_from(self, start: int) -> None:
        """Doubt unless the inputs from this one on are the same for all rows."""
        if any(index >= start for index, _, _ in self.with_rows):
            raise Doubt("takes rows as a parameter")

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, text as str."""
        if name not in self._attributes:
            return default
        value = helper.get_attribute_value(self._attributes[name])
        return value.decode() if isinstance(value, bytes) else value

    def integers(self, index: int) -> list[int] | None:
        """The numbers in an input, None if it is absent; Doubt if they are not known."""
        value = self.given(index)
        if value is None:
            return None
        contents = value.contents
        if contents is None:
            raise Doubt("takes sizes or axes that are known only when it is run")
        numbers = []
        for each in contents:
            if not isinstance(each, Size) or each.symbols:
                raise Doubt("takes sizes or axes that are known only when it is run")
            numbers.append(each.number)
        return numbers

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, counted from the first."""
        return counted(self.attribute("axis", default), rank)

    def axes(self, index: int) -> list[int] | None:
        """The attribute `axes`, or the input that newer versions have it in; None: not given."""
        axes: list[int] | None = self.attribute("axes")
        return self.integers(index) if axes is None else list(axes)


def counted(axis: int, rank: int) -> int:
    """An axis counted from the first; Doubt if there is no such axis."""
    if not -rank <= axis < rank:
        raise Doubt(f"has axis {axis} of {rank}")
    return axis % rank


def keep(value: Value, axis: int, rank: int | None = None) -> Place:
    """The rows of a value on another axis, or the same."""
    return Place(axis, value.times, value.outer, rank)


def along_rows() -> Doubt:
    """The doubt about an operator that works along the axis of the rows."""
    return Doubt("works along the axis that the rows are on")
