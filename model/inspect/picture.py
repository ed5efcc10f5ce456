"""Lay out the graph of an ONNX model in layers, from its inputs down to its outputs."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from model.errors import ModelError
from model.inspect.contents import Inspection, TensorValue, operator_name

# A picture of more operators is less readable than the table of operators.
MOST_OPERATORS = 400

# Pixels.
LETTER, LINE, PADDING = 7.5, 18.0, 10.0
GAP, LAYER_GAP, MARGIN = 24.0, 44.0, 12.0

# Kind and name of a box, or of a slot.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with lines of text; kind is input, operator or output. Sizes in pixels."""

    kind: str
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor as a line from the first point to the last, in pixels."""

    tensor: str
    points: tuple[tuple[float, float], ...]

    @property
    def path(self) -> str:
        """The curve as the `d` of an SVG path; it leaves and enters every point vertically."""
        (x, y), *rest = self.points
        drawn = f"M {x:.1f} {y:.1f}"
        for to_x, to_y in rest:
            middle = (y + to_y) / 2
            drawn += f" C {x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
            x, y = to_x, to_y
        return drawn


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes and edges within width by height pixels."""

    boxes: list[Box]
    edges: list[Edge]
    width: float
    height: float


def picture(inspection: Inspection) -> Picture | None:
    """Lay out a graph, constants inside the operators that use them; None if it is too large.

    Bodies of control flow stay closed.

    Raises:
        ModelError: the graph runs in a circle.
    """
    if len(inspection.graph.node) > MOST_OPERATORS:
        return None
    texts, tensors = _read(inspection)
    layers = _layers(texts, tensors)
    return _place(texts, tensors, layers)


def _read(
    inspection: Inspection,
) -> tuple[dict[Key, tuple[str, ...]], dict[tuple[Key, Key], str]]:
    """Return the lines of each box, and the tensors between boxes."""
    constants = {tensor.name: tensor for tensor in inspection.initializers}
    texts: dict[Key, tuple[str, ...]] = {}
    source: dict[str, Key] = {}
    for value in inspection.inputs:
        texts["input", value.name] = _lines(value)
        source[value.name] = "input", value.name
    for number, node in enumerate(inspection.graph.node):
        held = [constants[name] for name in node.input if name in constants]
        texts["operator", str(number)] = (
            operator_name(node),
            *(f"{tensor.name} {tensor.shape}" for tensor in held),
        )
        source |= {name: ("operator", str(number)) for name in node.output if name}
    tensors = {
        (source[name], ("operator", str(number))): name
        for number, node in enumerate(inspection.graph.node)
        for name in node.input
        if name in source
    }
    for value in inspection.outputs:
        texts["output", value.name] = _lines(value)
        if value.name in source:
            tensors[source[value.name], ("output", value.name)] = value.name
    return texts, tensors


def _lines(value: TensorValue) -> tuple[str, ...]:
    return value.name, f"{value.dtype} {value.shape}"


def _layers(keys: Iterable[Key], tensors: Iterable[tuple[Key, Key]]) -> dict[Key, int]:
    """Return the layer of each box: below all boxes that feed it."""
    before: dict[Key, list[Key]] = {key: [] for key in keys}
    for start, end in tensors:
        before[end].append(start)
    layers: dict[Key, int] = {}
    try:
        for key in TopologicalSorter(before).static_order():
            layers[key] = max((layers[start] + 1 for start in before[key]), default=0)
    except CycleError:
        raise ModelError("the graph has a cycle, expected none") from None
    return layers


def _place(
    texts: dict[Key, tuple[str, ...]],
    tensors: dict[tuple[Key, Key], str],
    layers: dict[Key, int],
) -> Picture:
    """Place boxes and edges; an edge past a layer gets a free slot in it, as a box would."""
    at = dict(layers)
    ways: dict[tuple[Key, Key], list[Key]] = {}
    above: dict[Key, list[Key]] = defaultdict(list)
    for number, (start, end) in enumerate(tensors):
        between = range(layers[start] + 1, layers[end])
        slots = {("slot", f"{number} {layer}"): layer for layer in between}
        at |= slots
        way = ways[start, end] = [start, *slots, end]
        for upper, lower in pairwise(way):
            above[lower].append(upper)
    rows: dict[int, list[Key]] = defaultdict(list)
    for key, layer in at.items():
        rows[layer].append(key)
    widths = {
        key: max(map(len, texts[key])) * LETTER + 2 * PADDING if key in texts else 0.0 for key in at
    }
    heights = {key: len(lines) * LINE + PADDING for key, lines in texts.items()}
    center: dict[Key, float] = {}
    band: dict[int, tuple[float, float]] = {}
    bottom = MARGIN
    for number in sorted(rows):
        row = sorted(rows[number], key=lambda key: _mean([center[up] for up in above[key]]))
        x = -(sum(widths[key] for key in row) + GAP * (len(row) - 1)) / 2
        for key in row:
            center[key] = x + widths[key] / 2
            x += widths[key] + GAP
        height = max((heights[key] for key in row if key in texts), default=0.0)
        band[number] = bottom, bottom + height
        bottom += height + LAYER_GAP
    left = min(center[key] - widths[key] / 2 for key in center) - MARGIN
    right = max(center[key] + widths[key] / 2 for key in center) + MARGIN
    boxes = {
        key: Box(
            key[0],
            lines,
            center[key] - widths[key] / 2 - left,
            band[layers[key]][0],
            widths[key],
            heights[key],
        )
        for key, lines in texts.items()
    }
    edges = []
    for (start, end), name in tensors.items():
        x, bottom_y = center[start] - left, boxes[start].y + boxes[start].height
        points = [(x, bottom_y)]
        # Beside a taller box it must not turn yet.
        if bottom_y < band[layers[start]][1]:
            points.append((x, band[layers[start]][1]))
        for slot in ways[start, end][1:-1]:
            points += [(center[slot] - left, y) for y in band[at[slot]]]
        edges.append(Edge(name, (*points, (center[end] - left, boxes[end].y))))
    return Picture(list(boxes.values()), edges, right - left, bottom - LAYER_GAP + MARGIN)


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
