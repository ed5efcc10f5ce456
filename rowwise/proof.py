"""Walk a graph from its inputs to its outputs, and keep hold of where the rows are."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import onnx
from onnx import shape_inference
from onnx.inliner import inline_local_functions

from rowwise import (
    along_axes,
    contents,
    contraction,
    elementwise,
    examples_first,
    layout,
    selection,
)
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
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def doubt(model: onnx.ModelProto) -> str | None:
    """Why it is not proved that rows stay apart; None where it is.

    Proved means: whatever the number of rows on the first axis of every input, each output has one
    row for each on its first axis, which depends on that row of the inputs alone. Weights may be
    absent, as rowwise.graph_file leaves them.
    """
    try:
        if model.functions:
            model = inline_local_functions(model)
        _Walk(model).check()
    except Doubt as reason:
        return str(reason)
    except Exception as error:  # a graph that rules stumble over is not proved either
        return f"it cannot be followed through the graph ({type(error).__name__})"
    return None


class _Walk:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opsets = {each.domain or "ai.onnx": each.version for each in model.opset_import}
        self._imports = list(model.opset_import)
        self._ir_version = model.ir_version
        self._values: dict[str, Value] = {}
        self._symbols: dict[str, Size] = {}

    def check(self) -> None:
        """Doubt where the outputs need not be a row for each."""
        graph = self._graph
        for tensor in graph.initializer:
            self._values[tensor.name] = _constant(tensor)
        for sparse in graph.sparse_initializer:
            shape = tuple(map(Size, sparse.dims))
            self._values[sparse.values.name] = Value(sparse.values.data_type, shape)
        for value in graph.input:
            if value.name not in self._values:
                self._values[value.name] = self._input(value)
        for node in _needed(graph):
            try:
                self._take(node)
            except Doubt as reason:
                raise Doubt(f"operator {_label(node)} {reason}") from None
        for output in graph.output:
            if self._first_size(output.name) != ROWS:
                raise Doubt(f"output {output.name!r} does not have one row for each of the inputs'")

    def _first_size(self, name: str) -> Size | None:
        shape = self._values[name].shape if name in self._values else None
        return shape[0] if shape else None

    def _input(self, value: onnx.ValueInfoProto) -> Value:
        tensor = value.type.tensor_type
        sizes = [
            Size(dim.dim_value) if dim.HasField("dim_value") else unknown()
            for dim in tensor.shape.dim
        ]
        if not sizes:
            raise Doubt(f"input {value.name!r} has no axes")
        return Value(tensor.elem_type, (ROWS, *sizes[1:]))

    def _take(self, proto: onnx.NodeProto) -> None:
        domain = proto.domain or "ai.onnx"
        inputs = [self._values[name] if name else None for name in proto.input]
        node = Node(proto, self._opsets.get(domain, 0), inputs)
        if proto.op_type == "Constant" and domain == "ai.onnx":
            self._values[proto.output[0]] = _constant_node(node)
            return
        if proto.domain not in _KNOWN_DOMAINS:
            raise Doubt("is not of ONNX itself, so what it does is not known")
        if proto.op_type in _RANDOM:
            raise Doubt("draws random numbers")
        inferred = self._inferred(node)
        self._values.update(zip(proto.output, self._outputs(node, inferred), strict=False))

    def _outputs(self, node: Node, inferred: Sequence[Value]) -> Sequence[Value]:
        operator = node.proto.op_type
        if operator in ("Shape", "Size"):
            found = contents.follow(node)
            if found is None:
                raise Doubt("counts the rows of a tensor of unknown rank")
            shape = (Size(len(found)),) if operator == "Shape" else ()
            return [Value(onnx.TensorProto.INT64, shape, found)]
        counts = any(value is not None and value.counts_rows for value in node.inputs)
        if not node.with_rows:
            found = contents.follow(node) if inferred else None
            if found is not None:
                return [_with_contents(inferred[0], found)]
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

    def _inferred(self, node: Node) -> list[Value]:
        """What ONNX's own inference says of the outputs, rows left aside."""
        proto = node.proto
        try:
            schema = onnx.defs.get_schema(
                proto.op_type, node.opset, "" if proto.domain == "ai.onnx" else proto.domain
            )
        except onnx.defs.SchemaError:
            raise Doubt("is not known to keep rows apart") from None
        types, data = {}, {}
        for name, value in zip(proto.input, node.inputs, strict=True):
            if value is not None:
                types[name] = self._type(value)
                if (tensor := _known(value)) is not None:
                    data[name] = tensor
        try:
            found = shape_inference.infer_node_outputs(
                schema,
                proto,
                types,
                data,
                opset_imports=self._imports,
                ir_version=self._ir_version,
            )
        except Exception as error:  # its errors have no base class of their own
            raise Doubt("has shapes that do not fit each other") from error
        # Outputs that nobody takes have no name.
        return [self._value(found.get(name)) for name in proto.output]

    def _type(self, value: Value) -> onnx.TypeProto:
        if value.shape is None:
            return onnx.helper.make_tensor_type_proto(value.element, None)
        for size in value.shape:
            self._symbols[str(size)] = size
        sizes = [str(size) if size.symbols else size.number for size in value.shape]
        return onnx.helper.make_tensor_type_proto(value.element, sizes)

    def _value(self, found: onnx.TypeProto | None) -> Value:
        if found is None or not found.HasField("tensor_type"):
            return Value(onnx.TensorProto.UNDEFINED, None)
        tensor = found.tensor_type
        if not tensor.HasField("shape"):
            return Value(tensor.elem_type, None)
        return Value(tensor.elem_type, tuple(map(self._size, tensor.shape.dim)))

    def _size(self, dim: Any) -> Size:
        # Some inference gives 0 for what it does not know.
        if dim.HasField("dim_value") and dim.dim_value:
            return Size(dim.dim_value)
        known = self._symbols.get(dim.dim_param)
        return unknown() if known is None else known


def _needed(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """Nodes that outputs depend on, in their order."""
    wanted = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            if any(each.type in _GRAPHS for each in node.attribute):
                raise Doubt(f"operator {_label(node)} runs a graph of its own")
            nodes.append(node)
            wanted.update(node.input)
    return reversed(nodes)


def _placed(place: Place | Value, value: Value) -> Value:
    """An output with rows, from where a rule says they are and what inference says besides."""
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


def _constant(tensor: onnx.TensorProto) -> Value:
    return Value(tensor.data_type, tuple(map(Size, tensor.dims)), contents.of_tensor(tensor))


def _constant_node(node: Node) -> Value:
    attribute = node.proto.attribute[0]
    value = node.attribute(attribute.name)
    if attribute.name == "value":
        return _constant(value)
    if attribute.name == "sparse_value":
        return Value(value.values.data_type, tuple(map(Size, value.dims)))
    kind = attribute.name.removeprefix("value_").removesuffix("s")
    element = {
        "int": onnx.TensorProto.INT64,
        "float": onnx.TensorProto.FLOAT,
    }.get(kind, onnx.TensorProto.STRING)
    flat = list(value) if attribute.name.endswith("s") else [value]
    shape = (Size(len(flat)),) if attribute.name.endswith("s") else ()
    if element == onnx.TensorProto.STRING or len(flat) > contents.MOST:
        return Value(element, shape)
    return Value(element, shape, tuple(Size(each) if kind == "int" else each for each in flat))


def _known(value: Value) -> onnx.TensorProto | None:
    """The numbers in a value, where all are known, as inference takes them."""
    if value.contents is None or value.shape is None or value.element not in _INTEGERS:
        return None
    numbers = [
        each.number for each in value.contents if isinstance(each, Size) and not each.symbols
    ]
    if len(numbers) < len(value.contents):
        return None
    dims = [size.number for size in value.shape]
    return onnx.helper.make_tensor("", value.element, dims, numbers)


def _with_contents(value: Value, found: contents.Contents) -> Value:
    counting = Value(value.element, value.shape, found)
    if value.shape == ():
        return counting
    if value.shape is not None and len(value.shape) == 1:
        return Value(value.element, (Size(len(found)),), found)
    if counting.counts_rows:
        raise Doubt("computes with the number of rows")
    return value
