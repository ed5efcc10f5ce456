"""Graphs drawn at random: where rows share executions, each is answered as it is alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from row_graphs import node

from protos.model_config_pb2 import ModelConfig
from rowwise import proof, structure
from server import row_independence
from server.engine import Engine
from server.errors import InvalidInput, StartError

# Tensors are [n, 3] wherever an operator leaves them so, which makes most graphs fit together.
WIDTH, ROWS, MOST_NODES, GRAPHS = 3, 6, 6, 300

_whole = np.int64
CONSTANTS = {
    "square": np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32),
    "row": np.array([[1, -2, 3]], np.float32),
    "vector": np.array([0.5, 1, -1], np.float32),
    "column": np.array([[1], [2], [3]], np.float32),
    "scalar": np.float32(2),
    "order": np.array([2, 0, 1]),
    "first": np.array([0]),
    "second": np.array([1]),
    "last": np.array([-1]),
    "two": np.array([2]),
    "end": np.array([2**62]),
    "flat": np.array([-1]),
    "wide": np.array([-1, WIDTH]),
    "kept": np.array([0, -1]),
    "stack": np.array([-1, 1, WIDTH]),
    "pads": np.array([0, 1, 0, 1]),
    "repeats": np.array([1, 2]),
    "zero": _whole(0),
    "one": _whole(1),
}
OPERANDS = ("row", "vector", "column", "scalar", "square")
AXES = ("first", "second", "last")

unary = st.sampled_from(["Neg", "Relu", "Tanh", "Abs", "Identity"])
arithmetic = st.sampled_from(["Add", "Mul", "Sub"])
axis = st.sampled_from([0, 1, -1])


@st.composite
def operators(draw, values, out):
    """Some nodes from values that are there to `out`."""
    value, other = draw(st.sampled_from(values)), draw(st.sampled_from([*values, *OPERANDS]))
    where = draw(st.sampled_from(AXES))
    choices = {
        "unary": lambda: [node(draw(unary), [value], [out])],
        "binary": lambda: [
            node(draw(st.sampled_from(["Add", "Mul", "Sub"])), [value, other], [out])
        ],
        "softmax": lambda: [node("Softmax", [value], [out], axis=draw(axis))],
        "cumsum": lambda: [node("CumSum", [value, draw(st.sampled_from(["zero", "one"]))], [out])],
        "sum": lambda: [node("ReduceSum", [value, where], [out], keepdims=draw(st.integers(0, 1)))],
        "max": lambda: [node("ReduceMax", [value], [out], axes=[draw(axis)], keepdims=1)],
        "transpose": lambda: [node("Transpose", [value], [out])],
        "matmul": lambda: [node("MatMul", draw(st.permutations([value, other])), [out])],
        "gemm": lambda: [node("Gemm", [value, "square"], [out], transA=draw(st.integers(0, 1)))],
        "gather": lambda: [node("Gather", [value, "order"], [out], axis=draw(axis))],
        "slice": lambda: [
            node(
                "Slice",
                [value, draw(st.sampled_from(["first", "second"])), "end", where],
                [out],
            )
        ],
        "reshape": lambda: [
            node(
                "Reshape",
                [value, draw(st.sampled_from(["flat", "wide", "kept", "stack"]))],
                [out],
            )
        ],
        "like itself": lambda: [
            node("Shape", [other], [f"{out}_shape"]),
            node("Reshape", [value, f"{out}_shape"], [out]),
        ],
        "unsqueeze": lambda: [node("Unsqueeze", [value, where], [out])],
        "squeeze": lambda: [node("Squeeze", [value, where], [out])],
        "concat": lambda: [node("Concat", [value, other], [out], axis=draw(axis))],
        "pad": lambda: [node("Pad", [value, "pads"], [out])],
        "tile": lambda: [node("Tile", [value, "repeats"], [out])],
        "sort": lambda: [node("TopK", [value, "two"], [out, f"{out}_at"], axis=draw(axis))],
        "count": lambda: [
            node("Size", [value], [f"{out}_size"]),
            node("Cast", [f"{out}_size"], [f"{out}_number"], to=TensorProto.FLOAT),
            node("Mul", [value, f"{out}_number"], [out]),
        ],
        "norm": lambda: [node("LpNormalization", [value], [out], axis=draw(axis))],
    }
    return choices[draw(st.sampled_from(sorted(choices)))]()


@st.composite
def models(draw):
    """A graph from x [n, 3] to y, whose first axis has whatever size comes of it."""
    nodes, values = [], ["x"]
    for number in range(draw(st.integers(1, MOST_NODES))):
        nodes += draw(operators(values, f"v{number}"))
        values.append(f"v{number}")
    nodes.append(node("Identity", [values[-1]], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(np.asarray(a), name) for name, a in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "drawn", [x], [y], constants)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture(scope="module")
def verdicts():
    return Counter()


def outputs(engine, x):
    return engine.run(["y"], {"x": np.ascontiguousarray(x)})[0]


@given(model=models(), seed=st.integers(0, 9))
@settings(
    max_examples=GRAPHS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_rows_that_are_proved_apart_are_answered_as_they_are_alone(folder, verdicts, model, seed):
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        engine = Engine(path, 1)
    except StartError:
        verdicts["no graph"] += 1
        return
    proved = proof.doubt(structure.read(path)) is None
    batched = engine.batches and not row_independence.doubt(engine, path, ModelConfig(), 64, 16)
    # The probe may doubt what is proved, never the other way.
    assert proved or not batched
    verdicts["batched" if batched else "in doubt"] += 1
    if not proved:
        return
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    order = rng.permutation(ROWS)
    companies = (order, order[:1], order[:2], order[1:4], np.append(order, order))
    try:
        whole = outputs(engine, x)
        answers = [outputs(engine, x[company]) for company in companies]
    except InvalidInput:  # nodes that nothing comes of may refuse some numbers of rows
        assert not batched
        return
    for company, got in zip(companies, answers, strict=True):
        assert got.shape == (len(company), *whole.shape[1:])
        np.testing.assert_allclose(got, whole[company], rtol=1e-4, atol=1e-4)


def test_graphs_of_both_kinds_were_drawn(verdicts):
    assert verdicts["batched"] > GRAPHS / 20
    assert verdicts["in doubt"] > GRAPHS / 20
