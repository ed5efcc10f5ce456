"""What can be proved of single operators, and of how they hang together."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from row_graphs import INDEPENDENT, MIXING, OWN_AXES_IN, OWN_AXES_OUT

from rowwise import axis_names, proof, structure

FLOAT, INT64, BOOL, STRING = "float32", "int64", "bool", "string"
ONES = {
    n: np.ones([int(c) for c in n[1:]], np.float32) for n in ("w3", "w33", "w43", "w133", "w333")
}


def model(nodes, inputs, outputs, constants, opset=17):
    def value(name, what):
        dtype, shape = what
        element = (
            TensorProto.STRING
            if dtype == STRING
            else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        )
        return helper.make_tensor_value_info(name, element, shape)

    graph = helper.make_graph(
        nodes,
        "graph",
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, ir_version=9, opset_imports=opsets)


def doubt_about(*nodes, x=(FLOAT, ("n", 3)), opset=17, inputs=None, outputs=("y",), **constants):
    """What is in doubt about a graph of one input `x`, or of `inputs`, and outputs of any shape."""
    taken = inputs or {"x": x}
    given = dict.fromkeys(outputs, (FLOAT, None))
    return proof.doubt(model(list(nodes), taken, given, constants, opset))


def node(*arguments, **attributes):
    """An operator; its inputs and outputs as words."""
    operator, inputs, outputs = arguments
    return helper.make_node(operator, inputs.split(","), outputs.split(","), **attributes)


def ml(*arguments, **attributes):
    return node(*arguments, domain="ai.onnx.ml", **attributes)


CUBE, FOUR = (FLOAT, ("n", 3, 3)), (FLOAT, ("n", 3, 8, 8))
i = np.array  # of int64

# Operators that keep rows apart, and the same ones so used that they do not: nodes, then how the
# graph is made.
APART = {
    "a constant of one row": ([node("Add", "x,c", "y")], {"c": np.ones((1, 3), np.float32)}),
    "a constant of the last axis": ([node("Add", "x,c", "y")], {"c": ONES["w3"]}),
    "MatMul of rows": ([node("MatMul", "x,c", "y")], {"c": ONES["w33"]}),
    "MatMul of columns": (
        [node("Transpose", "x", "t"), node("MatMul", "c,t", "p"), node("Transpose", "p", "y")],
        {"c": ONES["w43"]},
    ),
    "MatMul of stacks": ([node("MatMul", "x,x", "y")], {"x": CUBE}),
    "Gemm turned": (
        [node("Transpose", "x", "t"), node("Gemm", "t,c", "y", transA=1)],
        {"c": ONES["w33"]},
    ),
    "softmax of rows": ([node("Softmax", "x", "y", axis=-1)], {}),
    "softmax from an axis on": ([node("Softmax", "x", "y")], {"opset": 11}),
    "sum of rows": ([node("ReduceSum", "x,a", "y", keepdims=0)], {"a": i([1])}),
    "mean of rows": ([node("ReduceMean", "x", "y", axes=[-1])], {}),
    "ArgMax of rows": ([node("ArgMax", "x", "y", axis=1)], {}),
    "TopK of rows": ([node("TopK", "x,k", "y,at")], {"k": i([2])}),
    "LayerNormalization": ([node("LayerNormalization", "x,c", "y")], {"c": ONES["w3"]}),
    "InstanceNormalization": (
        [node("InstanceNormalization", "x,c,c", "y")],
        {"x": FOUR, "c": ONES["w3"]},
    ),
    "BatchNormalization": (
        [node("BatchNormalization", "x,c,c,c,c", "y")],
        {"x": FOUR, "c": ONES["w3"]},
    ),
    "Conv": (
        [node("Conv", "x,c", "y")],
        {"x": FOUR, "c": np.ones((2, 3, 3, 3), np.float32)},
    ),
    "pooling": ([node("GlobalAveragePool", "x", "y")], {"x": FOUR}),
    "Resize": (
        [node("Resize", "x,,s", "y")],
        {"x": FOUR, "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Reshape by 0": ([node("Reshape", "x,s", "y")], {"s": i([0, 3, 1])}),
    "Reshape by -1": ([node("Reshape", "x,s", "y")], {"s": i([-1, 1, 3])}),
    "Flatten": ([node("Flatten", "x", "y")], {"x": CUBE}),
    "Transpose there and back": (
        [node("Transpose", "x", "t"), node("Exp", "t", "e"), node("Transpose", "e", "y")],
        {},
    ),
    "Squeeze": (
        [node("Unsqueeze", "x,a", "u"), node("Squeeze", "u,a", "y")],
        {"a": i([0])},
    ),
    "Concat of columns": ([node("Concat", "x,x", "y", axis=1)], {}),
    "Split of columns": ([node("Split", "x,s", "y,z", axis=1)], {"s": i([1, 2])}),
    "Slice of columns": ([node("Slice", "x,o,t,o", "y")], {"o": i([1]), "t": i([2])}),
    "Slice of all rows": (
        [node("Slice", "x,s,e,s", "y")],
        {"s": i([0]), "e": i([2**63 - 1])},
    ),
    "Gather of columns": ([node("Gather", "x,at", "y", axis=1)], {"at": i([2, 0])}),
    "Gather from a table": (
        [node("Gather", "c,x", "y")],
        {"x": (INT64, ("n", 2)), "c": ONES["w43"]},
    ),
    "Expand to the rows": (
        [
            node("Shape", "x", "s"),
            node("Expand", "c,s", "e"),
            node("Add", "x,e", "y"),
        ],
        {"c": np.ones((1, 3), np.float32)},
    ),
    "zeros for the rows": (
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "zeros"),
            node("Add", "x,zeros", "y"),
        ],
        {},
    ),
    "OneHot": (
        [node("OneHot", "x,d,v", "y")],
        {"x": (INT64, ("n",)), "d": np.int64(4), "v": np.array([0, 1], np.float32)},
    ),
    "Pad of columns": ([node("Pad", "x,p", "y")], {"p": i([0, 1, 0, 1])}),
    "Tile of columns": ([node("Tile", "x,r", "y")], {"r": i([1, 2])}),
    "quantized by one scale": (
        [node("QuantizeLinear", "x,s,z", "q"), node("DequantizeLinear", "q,s,z", "y")],
        {"s": np.float32(0.5), "z": np.uint8(3)},
    ),
    "Dropout": ([node("Dropout", "x", "y")], {}),
    "Scaler": ([ml("Scaler", "x", "y", offset=[1.0] * 3, scale=[2.0] * 3)], {}),
    "Normalizer": ([ml("Normalizer", "x", "y", norm="L2")], {}),
    "Einsum": ([node("Einsum", "x,c", "y", equation="ni,ij->nj")], {"c": ONES["w33"]}),
    "RNN by time": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("RNN", "t,c,c", ",h", hidden_size=3),
            node("Squeeze", "h,a", "y"),
        ],
        {"x": CUBE, "c": ONES["w133"], "a": i([0])},
    ),
    "the number of rows that nothing comes of": (
        [node("Size", "x", "s"), node("Neg", "x", "y")],
        {},
    ),
}
MIXED = {
    "a constant of several rows": ([node("Add", "x,c", "y")], {"c": ONES["w43"]}),
    "rows on two axes": (
        [node("Transpose", "x", "t"), node("MatMul", "x,t", "y")],
        {},
    ),
    "rows against columns": (
        [
            node("ReduceSum", "x,a", "s", keepdims=0),
            node("Unsqueeze", "s,a", "t"),
            node("Add", "s,t", "y"),
        ],
        {"a": i([1])},
    ),
    "MatMul over the rows": ([node("MatMul", "c,x", "y")], {"c": ONES["w43"]}),
    "Gemm over the rows": ([node("Gemm", "x,x", "y", transA=1)], {}),
    "a Gemm that adds a column": (
        [node("Gemm", "x,c,b", "y")],
        {"c": ONES["w33"], "b": np.ones((4, 1), np.float32)},
    ),
    "softmax of columns": ([node("Softmax", "x", "y", axis=0)], {}),
    "softmax from the first axis on": ([node("Softmax", "x", "y", axis=0)], {"opset": 11}),
    "sum of everything": ([node("ReduceSum", "x", "s"), node("Add", "x,s", "y")], {}),
    "sum of columns": ([node("ReduceSum", "x,a", "y")], {"a": i([0])}),
    "ArgMax by default": ([node("ArgMax", "x", "y")], {}),
    "TopK of columns": ([node("TopK", "x,k", "y,at", axis=0)], {"k": i([2])}),
    "LayerNormalization of everything": (
        [node("LayerNormalization", "x,c", "y", axis=0)],
        {"c": ONES["w3"]},
    ),
    "MeanVarianceNormalization": ([node("MeanVarianceNormalization", "x", "y")], {"x": FOUR}),
    "training": (
        [node("BatchNormalization", "x,c,c,c,c", "y,m,v", training_mode=1)],
        {"x": FOUR, "c": ONES["w3"]},
    ),
    "LpNormalization": ([node("LpNormalization", "x", "y", axis=0)], {}),
    "CumSum": ([node("CumSum", "x,a", "y")], {"a": np.int64(0)}),
    "Trilu": ([node("Trilu", "x", "y")], {}),
    "EyeLike": ([node("EyeLike", "x", "y")], {}),
    "positions that count rows": (
        [node("MaxPool", "x", "y,at", kernel_shape=[2, 2])],
        {"x": FOUR, "outputs": ("y", "at")},
    ),
    "Resize of the rows": (
        [node("Resize", "x,,s", "y")],
        {"x": FOUR, "s": np.array([2, 1, 2, 2], np.float32)},
    ),
    "Reshape across rows": (
        [node("Reshape", "x,s", "y")],
        {"s": i([-1, 2]), "x": (FLOAT, ("n", 4))},
    ),
    "Reshape to another order": (
        [node("Transpose", "x", "t"), node("Reshape", "t,s", "y")],
        {"s": i([-1, 3])},
    ),
    "all on one axis": ([node("Reshape", "x,s", "y")], {"s": i([-1])}),
    "Squeeze of whatever is 1": ([node("Squeeze", "x", "y")], {}),
    "Concat of rows": ([node("Concat", "x,x", "y", axis=0)], {}),
    "Split of rows": ([node("Split", "x", "y,z", axis=0)], {"x": FOUR}),
    "Slice of rows": ([node("Slice", "x,o,t,z", "y")], {"o": i([1]), "t": i([9]), "z": i([0])}),
    "rows in reverse": (
        [node("Slice", "x,o,e,z,o", "y")],
        {"o": i([-1]), "e": i([-(2**62)]), "z": i([0])},
    ),
    "Gather of rows": ([node("Gather", "x,at", "y")], {"at": i([0, 0])}),
    "the first row": (
        [node("Gather", "x,at", "first"), node("Sub", "x,first", "y")],
        {"at": np.int64(0)},
    ),
    "the number of rows": (
        [node("Size", "x", "s"), node("Cast", "s", "f", to=1), node("Div", "x,f", "y")],
        {},
    ),
    "numbers of the rows": (
        [
            node("Shape", "x", "s", end=1),
            node("Squeeze", "s", "c"),
            node("Range", "zero,c,one", "r"),
            node("Cast", "r", "f", to=1),
            node("Unsqueeze", "f,a", "u"),
            node("Add", "x,u", "y"),
        ],
        {"zero": np.int64(0), "one": np.int64(1), "a": i([1])},
    ),
    "Pad of rows": ([node("Pad", "x,p", "y")], {"p": i([1, 0, 0, 0])}),
    "Tile of rows": ([node("Tile", "x,r", "y")], {"r": i([2, 1])}),
    "NonZero": ([node("NonZero", "x", "t"), node("Transpose", "t", "y")], {}),
    "Unique": ([node("Unique", "x", "y", axis=0)], {}),
    "scales of rows": (
        [node("DequantizeLinear", "x,s", "y", axis=0)],
        {"x": ("int8", ("n", 3)), "s": ONES["w3"]},
    ),
    "the range of everything": ([node("DynamicQuantizeLinear", "x", "y,s,z")], {}),
    "Dropout in training": (
        [node("Dropout", "x,r,t", "y")],
        {"r": np.float32(0.5), "t": np.bool_(True)},
    ),
    "noise": ([node("RandomNormalLike", "x", "r"), node("Add", "x,r", "y")], {}),
    "one vector scaled": ([ml("Normalizer", "x", "y", norm="L2")], {"x": (FLOAT, ("n",))}),
    "Einsum over the rows": ([node("Einsum", "x", "y", equation="ni->i")], {}),
    "RNN along the rows": (
        [node("RNN", "x,c,c", "y", hidden_size=3)],
        {"x": CUBE, "c": ONES["w133"]},
    ),
    "a constant": ([node("Identity", "c", "y")], {"c": ONES["w33"]}),
    "an operator of others": ([node("Gelu", "x", "y", domain="com.microsoft")], {}),
    "TfIdfVectorizer of one text": (
        [
            node(
                "TfIdfVectorizer",
                "x",
                "y",
                mode="TF",
                min_gram_length=1,
                max_gram_length=1,
                max_skip_count=0,
                ngram_counts=[0],
                ngram_indexes=[0],
                pool_int64s=[1],
            )
        ],
        {"x": (INT64, ("n",))},
    ),
}


@pytest.mark.parametrize("name", APART)
def test_rows_are_proved_apart(name):
    nodes, given = APART[name]
    assert doubt_about(*nodes, **given) is None


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_mix_are_not_proved_apart(name):
    nodes, given = MIXED[name]
    assert doubt_about(*nodes, **given)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_graphs_that_keep_rows_apart_are_proved(name):
    case = INDEPENDENT[name]
    assert proof.doubt(model(case.nodes, case.inputs, case.outputs, case.constants, 13)) is None


@pytest.mark.parametrize("name", MIXING)
def test_graphs_that_mix_rows_are_in_doubt(name):
    case = MIXING[name]
    assert proof.doubt(model(case.nodes, case.inputs, case.outputs, case.constants, 13))


@pytest.mark.parametrize("name", [*OWN_AXES_IN, *OWN_AXES_OUT])
def test_own_axes_are_in_doubt_by_name_or_by_proof(name):
    case = (OWN_AXES_IN | OWN_AXES_OUT)[name]
    inputs, outputs = (
        {
            tensor: ["" if isinstance(d, int) else d for d in dims]
            for tensor, (_, dims) in of.items()
        }
        for of in (case.inputs, case.outputs)
    )
    assert axis_names.doubt(inputs, outputs)


def test_the_reason_names_the_operator():
    assert doubt_about(node("Softmax", "x", "y", axis=0, name="share")).startswith(
        "operator Softmax 'share' works along the axis"
    )


def body(nodes, inputs, outputs):
    values = (
        [helper.make_tensor_value_info(name, element, shape) for name, element, shape in each]
        for each in (inputs, outputs)
    )
    return helper.make_graph(nodes, "body", *values)


def test_a_loop_that_goes_on_for_every_row_alike_is_proved():
    turn = body(
        [node("Add", "s,x", "t"), node("Identity", "g", "h")],
        [("k", 7, []), ("g", 9, []), ("s", 1, None)],
        [("h", 9, []), ("t", 1, None)],
    )
    loop = node("Loop", "m,,x", "y", body=turn)
    assert doubt_about(loop, m=np.int64(3)) is None


def test_a_loop_that_ends_by_what_is_in_the_rows_is_in_doubt():
    turn = body(
        [
            node("Add", "s,x", "t"),
            node("ReduceMax", "t", "top", keepdims=0),
            node("Less", "top,m", "h"),
        ],
        [("k", 7, []), ("g", 9, []), ("s", 1, None)],
        [("h", 9, []), ("t", 1, None)],
    )
    assert doubt_about(node("Loop", ",,x", "y", body=turn), m=np.float32(9))


def test_a_branch_for_all_rows_alike_is_proved_and_one_by_their_number_is_not():
    branches = {
        f"{name}_branch": body([node(operator, "x", name)], [], [(name, 1, None)])
        for name, operator in (("then", "Neg"), ("else", "Abs"))
    }
    assert doubt_about(node("If", "c", "y", **branches), c=np.bool_(True)) is None
    counted = [node("Size", "x", "s"), node("Equal", "s,m", "c")]
    assert doubt_about(*counted, node("If", "c", "y", **branches), m=np.int64(9))


def test_functions_of_a_model_are_looked_into():
    opsets = [helper.make_opsetid("", 17)]
    for axis, apart in ((1, True), (0, False)):
        softmax = helper.make_node("Softmax", ["a"], ["b"], axis=axis)
        function = helper.make_function("own", "Share", ["a"], ["b"], [softmax], opsets)
        made = model(
            [node("Share", "x", "y", domain="own")],
            {"x": (FLOAT, ["n", 3])},
            {"y": (FLOAT, ["n", 3])},
            {},
        )
        made.opset_import.append(helper.make_opsetid("own", 1))
        made.functions.append(function)
        assert (proof.doubt(made) is None) is apart


def test_a_graph_is_read_without_its_weights(tmp_path):
    case = INDEPENDENT["linear argmax"]
    constants = {"w": np.ones((5, 400), np.float32)}
    made = model(case.nodes, case.inputs, {"label": (INT64, ["n"])}, constants)
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    read = structure.read(path)
    (weights,) = read.graph.initializer
    assert (list(weights.dims), weights.raw_data) == ([5, 400], b"")
    assert read.graph.node == made.graph.node
    assert proof.doubt(read) is None


def test_what_rules_stumble_over_is_in_doubt():
    broken = doubt_about(node("Reshape", "x", "y"))
    assert broken
