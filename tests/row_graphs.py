"""Small graphs that are known to compute each row by itself or not, with inputs for them."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import helper

node = helper.make_node
ROW_OF_3 = ["n", 3]


@dataclass(frozen=True)
class Case:
    """A graph, its tensors as `name=(dtype, shape)`; `integers` are drawn below that number."""

    nodes: list
    inputs: dict
    outputs: dict
    constants: dict
    integers: int = 3

    def draw(self, rng, **sizes):
        """Inputs by name; axes of one name have one size, which may be given."""

        def size(dim):
            return dim if isinstance(dim, int) else sizes.setdefault(dim, int(rng.integers(2, 6)))

        return {
            name: self._values(rng, dtype, [size(dim) for dim in dims])
            for name, (dtype, dims) in self.inputs.items()
        }

    def _values(self, rng, dtype, shape):
        if dtype == "string":
            return rng.choice(["ash", "birch", "elm"], shape).astype(object)
        if np.dtype(dtype).kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        most = 2 if dtype == "bool" else self.integers
        return rng.integers(0, most, shape).astype(dtype)


def _case(nodes, inputs, outputs, *, integers=3, **constants):
    nodes = [nodes] if not isinstance(nodes, list) else nodes
    return Case(nodes, inputs, outputs, constants, integers)


def _of_rows(nodes, **constants):
    """From x [n, 3] to y [n, 3]."""
    return _case(nodes, {"x": ("float32", ROW_OF_3)}, {"y": ("float32", ROW_OF_3)}, **constants)


_whole = partial(np.array, dtype=np.int64)
_random = np.random.default_rng(7).standard_normal


def _weights(*shape):
    return _random(shape).astype(np.float32)


def _running_sum():
    body = helper.make_graph(
        [node("Add", ["so_far", "row"], ["sum"]), node("Identity", ["sum"], ["out"])],
        "body",
        [
            helper.make_tensor_value_info(name, 1, shape)
            for name, shape in (("so_far", [3]), ("row", [3]))
        ],
        [helper.make_tensor_value_info(name, 1, [3]) for name in ("sum", "out")],
    )
    return node("Scan", ["zero", "x"], ["last", "y"], body=body, num_scan_inputs=1)


MIXING = {
    "cumulative sum": _case(
        node("CumSum", ["x", "axis"], ["y"]),
        {"x": ("float32", ["n"])},
        {"y": ("float32", ["n"])},
        axis=_whole(0),
    ),
    "running sum by a Scan": _of_rows(_running_sum(), zero=np.zeros(3, np.float32)),
    "sort": _of_rows(
        [
            node("Shape", ["x"], ["shape"]),
            node("Slice", ["shape", "zero", "one"], ["rows"]),
            node("TopK", ["x", "rows"], ["y", "order"], axis=0),
        ],
        zero=_whole([0]),
        one=_whole([1]),
    ),
    "norm": _of_rows(node("LpNormalization", ["x"], ["y"], axis=0)),
    "centred": _of_rows(
        [
            node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            node("Sub", ["x", "mean"], ["y"]),
        ]
    ),
    "softmax": _of_rows(node("Softmax", ["x"], ["y"], axis=0)),
    "gather": _case(
        node("Gather", ["x", "at"], ["y"]),
        {"x": ("float32", ROW_OF_3), "at": ("int64", ["n"])},
        {"y": ("float32", ROW_OF_3)},
        integers=2,
    ),
    "reversed": _of_rows(
        node("Slice", ["x", "start", "end", "axis", "step"], ["y"]),
        start=_whole([-1]),
        end=_whole([-(2**62)]),
        axis=_whole([0]),
        step=_whole([-1]),
    ),
    "divided by the number of rows": _of_rows(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "first"], ["rows"]),
            node("Cast", ["rows"], ["number"], to=1),
            node("Div", ["x", "number"], ["y"]),
        ],
        first=_whole(0),
    ),
    "numbered": _case(
        [
            node("Size", ["x"], ["rows"]),
            node("Range", ["zero", "rows", "one"], ["numbers"]),
            node("Add", ["x", "numbers"], ["y"]),
        ],
        {"x": ("int64", ["n"])},
        {"y": ("int64", ["n"])},
        zero=_whole(0),
        one=_whole(1),
    ),
    "recurrent": _case(
        [
            node("GRU", ["x", "w", "r"], ["all"], hidden_size=2),
            node("Squeeze", ["all", "one"], ["y"]),
        ],
        {"x": ("float32", ["n", 1, 3])},
        {"y": ("float32", ["n", 1, 2])},
        w=_weights(1, 6, 3),
        r=_weights(1, 6, 2),
        one=_whole([1]),
    ),
    "covariance": _of_rows(
        [
            node("Gemm", ["x", "x"], ["products"], transA=1),
            node("MatMul", ["x", "products"], ["y"]),
        ]
    ),
    "quantized by the range of all": _case(
        node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"]),
        {"x": ("float32", ROW_OF_3)},
        {"y": ("uint8", ROW_OF_3)},
    ),
}

OWN_AXES_IN = {
    "product": _case(
        node("MatMul", ["x", "b"], ["y"]),
        {"x": ("float32", ["n", "k"]), "b": ("float32", ["k", "m"])},
        {"y": ("float32", ["n", "m"])},
    ),
    "joined": _case(
        node("Concat", ["a", "b"], ["y"], axis=0),
        {"a": ("float32", ["n", 2]), "b": ("float32", ["m", 2])},
        {"y": ("float32", ["total", 2])},
    ),
    "outer product": _case(
        [node("Unsqueeze", ["a", "one"], ["column"]), node("Mul", ["column", "b"], ["y"])],
        {"a": ("float32", ["n"]), "b": ("float32", ["m"])},
        {"y": ("float32", ["n", "m"])},
        one=_whole([1]),
    ),
    "table": _case(
        node("Gather", ["table", "at"], ["y"]),
        {"table": ("float32", ["entries", 3]), "at": ("int64", ["n"])},
        {"y": ("float32", ["n", 3])},
        integers=2,
    ),
    "attention": _case(
        [
            node("Gemm", ["q", "k"], ["fit"], transB=1),
            node("Softmax", ["fit"], ["share"], axis=1),
            node("MatMul", ["share", "v"], ["y"]),
        ],
        {"q": ("float32", ["n", 4]), "k": ("float32", ["m", 4]), "v": ("float32", ["m", 2])},
        {"y": ("float32", ["n", 2])},
    ),
    "filtered": _case(
        node("Conv", ["x", "w"], ["y"]),
        {"x": ("float32", ["n", 1, 8]), "w": ("float32", ["filters", 1, 3])},
        {"y": ("float32", ["n", "filters", 6])},
    ),
    "summed products": _case(
        node("Einsum", ["a", "b"], ["y"], equation="ij,kj->ik"),
        {"a": ("float32", ["n", 3]), "b": ("float32", ["m", 3])},
        {"y": ("float32", ["n", "m"])},
    ),
    "picked": _case(
        node("Compress", ["x", "keep"], ["y"], axis=1),
        {"x": ("float32", ["n", 4]), "keep": ("bool", ["k"])},
        {"y": ("float32", ["n", "kept"])},
    ),
}

OWN_AXES_OUT = {
    "found": _case(
        [node("NonZero", ["x"], ["at"]), node("Transpose", ["at"], ["boxes"])],
        {"x": ("int64", ["height", "width"])},
        {"boxes": ("int64", ["found", 2])},
    ),
    "two rows an example": _case(
        node("Reshape", ["x", "shape"], ["y"]),
        {"x": ("float32", ["n", 4])},
        {"y": ("float32", ["m", 2])},
        shape=_whole([-1, 2]),
    ),
    "distinct": _case(
        node("Unique", ["x"], ["y"]), {"x": ("int64", ["n"])}, {"y": ("int64", ["different"])}
    ),
    "flat": _case(
        node("Reshape", ["x", "shape"], ["y"]),
        {"x": ("float32", ["n", 4])},
        {"y": ("float32", ["all"])},
        shape=_whole([-1]),
    ),
    "twice": _case(
        node("Tile", ["x", "twice"], ["y"]),
        {"x": ("float32", ["n", 2])},
        {"y": ("float32", ["m", 2])},
        twice=_whole([2, 1]),
    ),
    "total": _case(
        node("ReduceSum", ["x", "first"], ["y"], keepdims=1),
        {"x": ("float32", ["n", 2])},
        {"y": ("float32", ["one", 2])},
        first=_whole([0]),
    ),
    "turned": _case(
        node("Transpose", ["x"], ["y"]),
        {"x": ("float32", ["n", "m"])},
        {"y": ("float32", ["m", "n"])},
    ),
    "the best two": _case(
        node("TopK", ["x", "two"], ["y", "at"], axis=0),
        {"x": ("float32", ["n", 2])},
        {"y": ("float32", ["k", 2])},
        two=_whole([2]),
    ),
    "without the first": _case(
        node("Slice", ["x", "one", "end", "first"], ["y"]),
        {"x": ("float32", ["n", 2])},
        {"y": ("float32", ["rest", 2])},
        one=_whole([1]),
        end=_whole([2**62]),
        first=_whole([0]),
    ),
}


def _attention():
    return _case(
        [
            node("Shape", ["x"], ["shape"]),
            node("Slice", ["shape", "zero", "two"], ["rows_and_tokens"]),
            node("Concat", ["rows_and_tokens", "heads", "width"], ["split_shape"], axis=0),
            node("Concat", ["rows_and_tokens", "both"], ["joined_shape"], axis=0),
            node("Reshape", ["x", "split_shape"], ["split"]),
            node("Transpose", ["split"], ["q"], perm=[0, 2, 1, 3]),
            node("Transpose", ["split"], ["k"], perm=[0, 2, 3, 1]),
            node("MatMul", ["q", "k"], ["fit"]),
            node("Softmax", ["fit"], ["share"], axis=-1),
            node("MatMul", ["share", "q"], ["mixed"]),
            node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
            node("Reshape", ["back", "joined_shape"], ["y"]),
        ],
        {"x": ("float32", ["n", "tokens", 8])},
        {"y": ("float32", ["n", "tokens", 8])},
        zero=_whole([0]),
        two=_whole([2]),
        heads=_whole([2]),
        width=_whole([4]),
        both=_whole([8]),
    )


INDEPENDENT = {
    "linear argmax": _case(
        [
            node("MatMul", ["x", "w"], ["scores"]),
            node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        {"x": ("float32", ["n", 5])},
        {"label": ("int64", ["n"]), "scores": ("float32", ["n", 4])},
        w=_weights(5, 4),
    ),
    "two layers": _of_rows(
        [
            node("Gemm", ["x", "w", "b"], ["first"]),
            node("Relu", ["first"], ["positive"]),
            node("Gemm", ["positive", "v"], ["second"], transB=1),
            node("Softmax", ["second"], ["y"], axis=1),
        ],
        w=_weights(3, 6),
        b=_weights(6),
        v=_weights(3, 6),
    ),
    "convolution": _case(
        [
            node("Conv", ["x", "w"], ["filtered"]),
            node("Relu", ["filtered"], ["positive"]),
            node("MaxPool", ["positive"], ["pooled"], kernel_shape=[2, 2]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "v"], ["y"]),
        ],
        {"x": ("float32", ["n", 1, 6, 6])},
        {"y": ("float32", ["n", 2])},
        w=_weights(2, 1, 3, 3),
        v=_weights(18, 2),
    ),
    "normalized": _of_rows(
        [
            node("ReduceMean", ["x"], ["mean"], axes=[-1], keepdims=1),
            node("Sub", ["x", "mean"], ["centred"]),
            node("ReduceL2", ["centred"], ["length"], axes=[-1], keepdims=1),
            node("Div", ["centred", "length"], ["y"]),
        ]
    ),
    "attention": _attention(),
    "mean of embeddings": _case(
        [
            node("Gather", ["table", "tokens"], ["found"]),
            node("ReduceMean", ["found"], ["y"], axes=[1], keepdims=0),
        ],
        {"tokens": ("int64", ["n", "length"])},
        {"y": ("float32", ["n", 3])},
        integers=8,
        table=_weights(8, 3),
    ),
    "recurrent": _case(
        [
            node("Transpose", ["x"], ["by_time"], perm=[1, 0, 2]),
            node("LSTM", ["by_time", "w", "r"], ["", "last"], hidden_size=2),
            node("Squeeze", ["last", "zero"], ["y"]),
        ],
        {"x": ("float32", ["n", 4, 3])},
        {"y": ("float32", ["n", 2])},
        w=_weights(1, 8, 3),
        r=_weights(1, 8, 2),
        zero=_whole([0]),
    ),
    "sorted": _case(
        node("TopK", ["x", "three"], ["y", "order"], axis=1),
        {"x": ("float32", ROW_OF_3)},
        {"y": ("float32", ROW_OF_3), "order": ("int64", ROW_OF_3)},
        three=_whole([3]),
    ),
    "cumulative sum": _of_rows(node("CumSum", ["x", "one"], ["y"]), one=_whole(1)),
    "summed products": _case(
        node("Einsum", ["a", "b"], ["y"], equation="nij,njk->nik"),
        {"a": ("float32", ["n", 2, 3]), "b": ("float32", ["n", 3, 2])},
        {"y": ("float32", ["n", 2, 2])},
    ),
    "texts": _case(
        node("Identity", ["x"], ["y"]),
        {"x": ("string", ["n", 2])},
        {"y": ("string", ["n", 2])},
    ),
    "int8": _case(
        [
            node("Cast", ["x"], ["wide"], to=1),
            node("MatMul", ["wide", "w"], ["y"]),
        ],
        {"x": ("int8", ["n", 4])},
        {"y": ("float32", ["n", 2])},
        w=_weights(4, 2),
    ),
    "nearest": _case(
        [
            node("Unsqueeze", ["x", "one"], ["x1"]),
            node("Sub", ["x1", "known"], ["apart"]),
            node("ReduceL2", ["apart"], ["distance"], axes=[2], keepdims=0),
            node("ArgMin", ["distance"], ["y"], axis=1, keepdims=0),
        ],
        {"x": ("float32", ROW_OF_3)},
        {"y": ("int64", ["n"])},
        one=_whole([1]),
        known=_weights(5, 3),
    ),
}
