"""Walk a graph from its inputs to its outputs, and track the axis of the rows."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import onnx
from onnx.inliner import inline_local_functions

from rowwise import (
    along_axes,
    constants,
    contents,
    contraction,
    elementwise,
    examples_first,
    layout,
    selection,
    subgraphs,
)
from rowwise.inference import Inference
from rowwise.sizes import ROWS, Size, unknown
from rowwise.values import Doubt, Node, Place, Value

_RULES: dict[str, Callable[[Node], Any]] = {
    **along_axes.RULES,
    **contraction.RULES,
    **elementwise.RULES,
    **examples_first.RULES,
    **layout.RULES,
    **selection.RULES,
}
# They may take the number of rows as a size.
_SHAPED = {"AffineGrid", "ConstantOfShape", "Expand", "Reshape", "Resize", "Slice", "Tile"}
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def doubt(model: onnx.ModelProto) -> str | None:
    """Why it is not proved that rows are independent; None if it is.

    Proved means: for every number of rows on the first axis of every input, each output has one
    row for each on its first axis, which depends only on that row of the inputs. Weights may be
    absent, as rowwise.structure leaves them.
    """
    try:
        if model.functions:
            model = inline_local_functions(model)
        _Walk(model).check()
    except Doubt as reason:
        return str(reason)
    except Exception as error:  # a graph on which a rule fails is not proved either
        return f"it cannot be followed through the graph ({type(error).__name__})"
    return None


class _Walk:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opsets = {each.domain or "ai.onnx": each.version for each in model.opset_import}
        self._inference = Inference(model.opset_import, model.ir_version)

    def check(self) -> None:
        """Doubt unless the outputs have one row for each of the inputs'."""
        held = {tensor.name for tensor in self._graph.initializer}
        inputs = {
            value.name: _with_rows(value) for value in self._graph.input if value.name not in held
        }
        for output, value in zip(self._graph.output, self._run(self._graph, inputs), strict=True):
            if value.shape is None or value.shape[:1] != (ROWS,):
                raise Doubt(f"output {output.name!r} does not have one row for each of the inputs'")

    def _run(self, graph: onnx.GraphProto, values: dict[str, Value]) -> list[Value]:
        """The outputs of a graph, from values that may belong to graphs around it."""
        values = dict(values)
        for tensor in graph.initializer:
            values[tensor.name] = constants.of_tensor(tensor)
        for sparse in graph.sparse_initializer:
            shape = tuple(map(Size, sparse.dims))
            values[sparse.values.name] = Value(sparse.values.data_type, shape)
        for proto in _needed(graph):
            try:
                values.update(zip(proto.output, self._node(proto, values), strict=False))
            except Doubt as reason:
                raise Doubt(f"operator {_label(proto)} {reason}") from None
        return [values[output.name] for output in graph.output]

    def _node(self, proto: onnx.NodeProto, values: dict[str, Value]) -> Sequence[Value]:
        domain = proto.domain or "ai.onnx"
        inputs = [values[name] if name else None for name in proto.input]
        node = Node(proto, self._opsets.get(domain, 0), inputs)
        if proto.op_type == "Constant" and domain == "ai.onnx":
            return [constants.of_node(node)]
        if proto.domain not in _KNOWN_DOMAINS:
            raise Doubt("is not of ONNX itself, so what it does is not known")
        if proto.op_type in _RANDOM:
            raise Doubt("draws random numbers")
        if proto.op_type in subgraphs.RULES:
            if _counting(node):
                raise Doubt("computes with the number of rows")

            def run(graph: onnx.GraphProto, given: Sequence[Value]) -> list[Value]:
                names = [value.name for value in graph.input]
                return self._run(graph, {**values, **dict(zip(names, given, strict=True))})

            return subgraphs.RULES[proto.op_type](node, run)
        return self._outputs(node, self._inference.outputs(node))

    def _outputs(self, node: Node, inferred: Sequence[Value]) -> Sequence[Value]:
        operator = node.proto.op_type
        if operator in ("Shape", "Size"):
            numbers = contents.follow(node)
            if numbers is None:
                raise Doubt("counts the rows of a tensor of unknown rank")
            shape = (Size(len(numbers)),) if operator == "Shape" else ()
            return [Value(onnx.TensorProto.INT64, shape, numbers)]
        counts = _counting(node)
        if not node.with_rows:
            numbers = contents.follow(node) if inferred else None
            if numbers is not None:
                return [_with_contents(inferred[0], numbers)]
            if not counts:
                return inferred
        if counts and operator not in _SHAPED:
            raise Doubt("computes with the number of rows")
        rule = _RULES.get(operator)
        if rule is None:
            raise Doubt("is not known to keep rows apart")
        places = rule(node)
        if not isinstance(places, list):
            places = [places] * len(inferred)
        named = zip(node.proto.output, places, inferred, strict=False)
        return [_placed(place, value) if name else value for name, place, value in named]


def _needed(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """Nodes that outputs depend on, in their order."""
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(_taken(node))
    return reversed(nodes)


def _taken(node: onnx.NodeProto) -> Iterable[str]:
    """Names of values that a node takes, also in its own graphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _taken(inner)


def _counting(node: Node) -> bool:
    return any(value is not None and value.counts_rows for value in node.inputs)


def _with_rows(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    sizes = [
        Size(dim.dim_value) if dim.HasField("dim_value") else unknown() for dim in tensor.shape.dim
    ]
    if not sizes:
        raise Doubt(f"input {value.name!r} has no axes")
    return Value(tensor.elem_type, (ROWS, *sizes[1:]))


def _placed(place: Place | Value, value: Value) -> Value:
    """An output with rows: their place from a rule, the rest from inference."""
    if isinstance(place, Value):
        return place
    shape = value.shape
    if shape is None:
        if place.rank is None:
            raise Doubt("gives a tensor of unknown rank")
        shape = tuple(unknown() for _ in range(place.rank))
    if place.rank not in (None, len(shape)):
        raise Doubt("gives a tensor of another rank than expected")
    sizes = list(shape)
    sizes[place.axis] = place.outer * place.times * ROWS
    if sum(size.of_rows for size in sizes) != 1:
        raise Doubt("has rows on two axes")
    return Value(value.element, tuple(sizes), None, place.outer)


def _label(node: onnx.NodeProto) -> str:
    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    return f"{name} {node.name or next(filter(None, node.output), '')!r}"


def _with_contents(value: Value, numbers: contents.Contents) -> Value:
    counting = Value(value.element, value.shape, numbers)
    if value.shape == ():
        return counting
    if value.shape is not None and len(value.shape) == 1:
        return Value(value.element, (Size(len(numbers)),), numbers)
    if counting.counts_rows:
        raise Doubt("computes with the number of rows")
    return value
