"""Find outputs of a graph that are the index of the largest of its linear scores.

near_ties can say of these labels whether rounding decides them. Other outputs are not judged: no
bound on the rounding of scores behind another layer is known here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 4096
_KEEPS_VALUES = ("Identity", "Cast")


@dataclass(frozen=True, slots=True)
class ArgmaxLabel:
    """An output `label` that is the ArgMax (ArgMin: `smallest`) over the rows of output `scores`.

    Scores [rows, classes] are `features` products of a row of `input`, of which 1 stands for
    `input_scale`, and of weights, with a bias that is at most `bias_most`. `weights_norm` is the
    largest Euclidean norm of the weights of a class, `weights_most` the largest magnitude in them.
    """

    label: str
    scores: str
    smallest: bool
    input: str
    input_scale: float
    features: int
    weights_norm: float
    weights_most: float
    bias_most: float


def find(path: Path) -> tuple[ArgmaxLabel, ...]:
    """Labels of the graph at `path`, which ONNX Runtime has loaded before."""
    # Importing it takes 0.2 s, which models without labels need not spend.
    import onnx  # noqa: PLC0415

    graph = onnx.load(path, load_external_data=False).graph
    return _Finder(graph, lambda tensor: _array(onnx, tensor, path.parent)).labels()


class _NotLinear(Exception):
    """The scores are not linear in a way known here."""


class _Finder:
    def __init__(self, graph: Any, array: Callable[[Any], NDArray[Any]]) -> None:
        self._graph = graph
        self._array = array
        self._makers = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {
            value.name: len(value.type.tensor_type.shape.dim) for value in graph.output
        }
        self._inputs = {value.name for value in graph.input} - self._constants.keys()

    def labels(self) -> tuple[ArgmaxLabel, ...]:
        labels = []
        for name in self._outputs:
            try:
                labels.append(self._label(name))
            except _NotLinear:
                continue
        return tuple(labels)

    def _label(self, name: str) -> ArgmaxLabel:
        node = self._maker(name, *_KEEPS_VALUES, "ArgMax", "ArgMin")
        while node.op_type in _KEEPS_VALUES:
            node = self._maker(node.input[0], *_KEEPS_VALUES, "ArgMax", "ArgMin")
        (scores,) = node.input
        if self._outputs.get(scores) != 2 or _attributes(node).get("axis", 0) not in (1, -1):
            raise _NotLinear
        bias_most, product = 0.0, self._maker(scores, "Identity", "Add", "MatMul", "Gemm")
        while product.op_type in ("Identity", "Add"):
            rest, biases = self._without_constants(product)
            bias_most += sum(_most(bias) for bias in biases)
            product = self._maker(rest, "Identity", "Add", "MatMul", "Gemm")
        settings = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **_attributes(product)}
        if (settings["alpha"], settings["beta"], settings["transA"]) != (1.0, 1.0, 0):
            raise _NotLinear
        rows, weights, *bias = product.input
        bias_most += sum(_most(self._constant(each)) for each in bias if each)
        w = self._constant(weights)
        if w.ndim != 2 or w.dtype not in (np.float32, np.float64):
            raise _NotLinear
        graph_input, scale = self._input(rows)
        return ArgmaxLabel(
            label=name,
            scores=scores,
            smallest=node.op_type == "ArgMin",
            input=graph_input,
            input_scale=scale,
            features=w.shape[1 if settings["transB"] else 0],
            weights_norm=_largest_norm(w.T if settings["transB"] else w),
            weights_most=_most(w),
            bias_most=bias_most,
        )

    def _input(self, name: str) -> tuple[str, float]:
        """The input that the graph widens to `name`, and the value of 1 in it."""
        scale = 1.0
        while name not in self._inputs:
            node = self._maker(name, *_KEEPS_VALUES, "DequantizeLinear")
            name, *settings = node.input
            if node.op_type == "DequantizeLinear":
                scales, *zeros = (self._constant(each) for each in settings)
                if any(zero.any() for zero in zeros):
                    raise _NotLinear
                scale *= _most(scales)
        return name, scale

    def _without_constants(self, node: Any) -> tuple[str, list[NDArray[Any]]]:
        constants = [name for name in node.input if name in self._constants]
        (rest, *others) = [name for name in node.input if name not in constants] or constants
        if others:
            raise _NotLinear
        return rest, [self._constant(name) for name in constants]

    def _maker(self, name: str, *kinds: str) -> Any:
        node = self._makers.get(name)
        if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in kinds:
            raise _NotLinear
        return node

    def _constant(self, name: str) -> NDArray[Any]:
        if name not in self._constants:
            raise _NotLinear
        return self._array(self._constants[name])


def _array(onnx: Any, tensor: Any, folder: Path) -> NDArray[Any]:
    if tensor.data_location == tensor.EXTERNAL:
        # Links out of the repository were rejected before; the library follows no links.
        where = {each.key: each.value for each in tensor.external_data}
        with (folder / where["location"]).open("rb") as file:
            file.seek(int(where.get("offset", 0)))
            length = int(where["length"]) if "length" in where else -1
            tensor.raw_data = file.read(length)
        tensor.data_location = tensor.DEFAULT
    array: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return array


def _attributes(node: Any) -> Mapping[str, Any]:
    return {each.name: each.f if each.type == each.FLOAT else each.i for each in node.attribute}


def _most(values: NDArray[Any]) -> float:
    return float(max(values.max(), -values.min())) if values.size else 0.0


def _largest_norm(weights: NDArray[Any]) -> float:
    """Of the columns of [features, classes], without a copy of all of them."""
    squares = np.zeros(weights.shape[1])
    for start in range(0, len(weights), _BLOCK_ROWS):
        block = weights[start : start + _BLOCK_ROWS].astype(np.float64)
        squares += np.einsum("fc,fc->c", block, block)
    return float(np.sqrt(squares.max(initial=0.0)))
