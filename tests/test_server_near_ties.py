"""Of answers with timings the server says whether a label may depend on the batch.

It must say so wherever a label did change with the size of the batch, and must not where it could
not.
"""

import numpy as np
import pytest
from onnx import helper

from model.examples import standard_normal
from model.export import export
from model.weights import from_seed
from protos.codec import decode_stream_response
from protos.quantize import to_wire
from server import argmax_labels
from server.engine import Engine
from server.near_ties import near_ties

CLASSES, FEATURES, THREADS = 64, 1000, 2
TIMINGS = {"timings": True}
SIZES = (1, 2, 3, 16, 33, 64)


def near_weights(dtype, features=FEATURES):
    """W whose first classes win often, and often by what rounding makes of them."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((CLASSES, features))
    w[1:] /= 10
    # So little that it is lost in the sums, not in the weights.
    eps = np.finfo(dtype).eps
    for other in range(1, 4):
        w[other] = w[0] + 4 * eps * np.sqrt(features) * rng.standard_normal(features)
    return w


def clear(x, w):
    """Rows whose best score leads by more than any rounding."""
    scores = np.sort(x.astype(np.float64) @ w.T.astype(np.float64), axis=1)
    return x[scores[:, -1] - scores[:, -2] > 1]


def single_layer(graphs, name, nodes, outputs, **constants):
    graphs.add(
        name,
        nodes,
        {"x": ("float32", ["n", FEATURES])},
        outputs,
        constants,
    )


@pytest.fixture(scope="module")
def models(graphs):
    for dtype in ("float32", "float64"):
        export(graphs.folder, f"near_{dtype}", near_weights(dtype), dtype, 1)
        export(graphs.folder, dtype, from_seed(CLASSES, FEATURES, 1), dtype, 1)
    for wire in ("float16", "int8"):
        export(graphs.folder, wire, from_seed(CLASSES, FEATURES, 1), "float32", 1, wire=wire)
    w = from_seed(CLASSES, FEATURES, 1).astype(np.float32)
    argmax = helper.make_node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=0)
    label, scores = {"label": ("int64", ["n"])}, {"scores": ("float32", ["n", CLASSES])}
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["scores"], transB=1)
    single_layer(graphs, "gemm", [gemm, argmax], label | scores, w=w, b=w[:, 0])
    single_layer(graphs, "hidden", [gemm, argmax], label, w=w, b=w[:, 0])
    single_layer(
        graphs,
        "lowest",
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["b", "product"], ["scores"]),
            helper.make_node("ArgMin", ["scores"], ["at"], axis=1, keepdims=1),
            helper.make_node("Cast", ["at"], ["label"], to=6),
        ],
        {"label": ("int32", ["n", 1])} | scores,
        w=np.ascontiguousarray(w.T),
        b=w[:, 0],
    )
    two_layers = [
        helper.make_node("MatMul", ["x", "v"], ["deep"]),
        helper.make_node("Relu", ["deep"], ["act"]),
        helper.make_node("MatMul", ["act", "u"], ["scores"]),
        argmax,
    ]
    single_layer(
        graphs, "layers", two_layers, label | scores, v=w.T.copy(), u=w[:, :CLASSES].copy()
    )
    single_layer(
        graphs,
        "also",
        [gemm, argmax, helper.make_node("Cast", ["x"], ["whole"], to=7)],
        label | scores | {"whole": ("int64", ["n", FEATURES])},
        w=w,
        b=w[:, 0],
    )
    graphs.add(
        "unbatched",
        [helper.make_node("ArgMax", ["x"], ["y"], axis=0, keepdims=0)],
        {"x": ("float32", [3])},
        {"y": ("int64", [])},
    )
    return graphs.folder


@pytest.fixture(scope="module")
def caller(serve, call, models):
    return call(serve(models, threads=THREADS, group_rows=64).address)


def answer(caller, model, x, outputs=("label",), parameters=TIMINGS):
    message = caller.message(model, x=x, outputs=outputs, parameters=parameters)
    return caller.infer(message)


def depends(response):
    return response.parameters.get("batch_dependent")


def told(caller, model, x):
    """What is said of each row alone."""
    return np.array([depends(answer(caller, model, row[None])) for row in x])


def values(response):
    return response.outputs[0].data


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_that_change_with_the_batch_are_said_to(caller, dtype):
    x = standard_normal(256, FEATURES, 1, dtype)
    alone = np.concatenate([values(answer(caller, f"near_{dtype}", row[None])) for row in x])
    batches = [answer(caller, f"near_{dtype}", x[at : at + 64]) for at in range(0, 256, 64)]
    changed = alone != np.concatenate([values(batch) for batch in batches])
    said = told(caller, f"near_{dtype}", x)
    assert said[changed].all()
    assert all(depends(batch) for batch in batches)
    # Half of the rows are won by the near classes, the others by a class far from its next.
    assert 0.2 < said.mean() < 0.8


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("features", [3, 100, FEATURES])
def test_no_size_and_number_of_threads_changes_a_label_that_is_said_to_stay(
    tmp_path, dtype, features
):
    path = export(tmp_path, "m", near_weights(dtype, features), dtype, 1)
    (label,) = argmax_labels.find(path)
    x = standard_normal(512, features, 1, dtype)
    seen, near = [], np.zeros(len(x), bool)
    for threads in (1, 2, 3):
        engine = Engine(path, threads)
        for size in SIZES:
            for at in range(0, len(x), size):
                rows = slice(at, at + size)
                found, scores = engine.run(["label", "scores"], {"x": x[rows]})
                near[rows] |= near_ties(label, x[rows], scores)
                seen.append((at, found))
    labels = np.zeros((len(x), CLASSES), bool)
    for at, found in seen:
        labels[np.arange(at, at + len(found)), found] = True
    assert not ((labels.sum(axis=1) > 1) & ~near).any()
    assert 0 < near.mean() < 0.8


@pytest.mark.parametrize("model", ["float32", "float64", "float16", "int8", "gemm", "lowest"])
def test_clear_labels_are_said_to_depend_on_nothing(caller, model):
    w = from_seed(CLASSES, FEATURES, 1)
    if model in ("gemm", "lowest"):
        w = w.astype(np.float32)
    x = clear(standard_normal(128, FEATURES, 1, "float64"), w if model != "lowest" else -w)
    x = x[:64].astype("float64" if model == "float64" else "float32")
    if model in ("float16", "int8"):
        x = to_wire(x, model, 1 / 32 if model == "int8" else None)
    assert len(x) > 40
    assert depends(answer(caller, model, x)) is False


@pytest.mark.parametrize("model", ["gemm", "lowest"])
def test_rows_without_a_best_score_depend_on_the_batch(caller, model):
    x = np.zeros((2, FEATURES), np.float32)
    x[1] = np.nan
    assert depends(answer(caller, model, x[1:])) is True
    assert depends(answer(caller, model, x)) is True


def test_one_near_row_of_many_is_enough(caller):
    x = standard_normal(200, FEATURES, 1, "float64")
    said = told(caller, "near_float64", x)
    certain, doubtful = x[~said], x[said]
    assert depends(answer(caller, "near_float64", certain)) is False
    for at in (0, len(certain) // 2, len(certain)):
        mixed = np.insert(certain, at, doubtful[0], axis=0)
        assert depends(answer(caller, "near_float64", mixed)) is True


def test_each_message_of_a_stream_has_its_own_answer(caller):
    x = standard_normal(60, FEATURES, 1, "float64")
    said = told(caller, "near_float64", x)
    messages = [
        caller.message(
            "near_float64", x=row[None], parameters={"timings": bool(wanted), "more_follows": True}
        )
        for row, wanted in zip(x, np.arange(len(x)) % 3 > 0, strict=True)
    ]
    for at, data in enumerate(caller.open_stream(iter(messages))):
        error, response = decode_stream_response(data)
        assert not error
        assert depends(response) is (bool(said[at]) if at % 3 else None)


def test_scores_that_were_not_asked_for_do_not_come(caller):
    x = standard_normal(5, FEATURES, 1, "float64")
    for outputs in (["label"], ["scores"], ["scores", "label"]):
        response = answer(caller, "float64", x, outputs)
        assert [tensor.name for tensor in response.outputs] == outputs


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("float32", ["scores"]),  # no label
        ("hidden", ["label"]),  # no scores to judge it by
        ("layers", ["label"]),  # what rounding does to scores behind a layer is not known
        ("also", ["label", "whole"]),  # one label of two
    ],
)
def test_nothing_is_said_where_nothing_is_known(caller, model, outputs):
    x = standard_normal(3, FEATURES, 1, "float32")
    response = answer(caller, model, x, outputs)
    assert "compute_ns" in response.parameters
    assert depends(response) is None


def test_nothing_is_said_without_timings(caller):
    x = standard_normal(3, FEATURES, 1, "float32")
    assert depends(answer(caller, "float32", x, parameters={})) is None


def test_models_without_a_batch_axis_do_not_depend_on_it(caller):
    response = answer(caller, "unbatched", np.ones(3, np.float32), ["y"])
    assert depends(response) is False


def test_the_process_that_tries_a_model_hands_on_what_it_read(serve, call, tmp_path):
    export(tmp_path, "near", near_weights("float64"), "float64", 1)
    caller = call(serve(tmp_path, validation=True, group_rows=64).address)
    x = standard_normal(20, FEATURES, 1, "float64")
    assert set(told(caller, "near", x)) == {False, True}


def test_products_that_cancel_are_counted_in_full(tmp_path):
    # The weights of each class add up to 0 nearly, so a row of 50s gives scores of about 0.
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, FEATURES))
    w -= w.mean(axis=1, keepdims=True)
    path = export(tmp_path, "m", w, "float32", 1)
    (label,) = argmax_labels.find(path)
    x = (50 + 0.0003 * rng.standard_normal((256, FEATURES))).astype(np.float32)
    exact = x.astype(np.float64) @ w.astype(np.float32).astype(np.float64).T
    (found, scores) = Engine(path, 1).run(["label", "scores"], {"x": x})
    # What rounding changed is among what it may have.
    wrong = found != exact.argmax(axis=1)
    assert wrong.any()
    assert near_ties(label, x, scores)[wrong].all()


def test_long_rows_are_judged_like_short_ones(tmp_path):
    features = 20_000
    path = export(tmp_path, "m", near_weights("float64", features), "float64", 1)
    (label,) = argmax_labels.find(path)
    x = standard_normal(64, features, 1, "float64")
    runs = [Engine(path, threads).run(["label", "scores"], {"x": x}) for threads in (1, 2)]
    alone = np.concatenate([Engine(path, 2).run(["label"], {"x": row[None]})[0] for row in x])
    near = near_ties(label, x, runs[0][1])
    assert 0.2 < near.mean() < 0.8
    for found in (runs[1][0], alone):
        assert near[found != runs[0][0]].all()
    # A long row that is far from a tie is not read, whatever is in it.
    far = np.flatnonzero(~near)
    assert not near_ties(label, np.full_like(x[far], np.nan), runs[0][1][far]).any()


def test_weights_beside_the_graph_are_read_like_those_within(tmp_path):
    w = from_seed(CLASSES, FEATURES, 1)
    paths = [
        export(tmp_path, name, w, "float32", 1, **storage)
        for name, storage in (("within", {}), ("beside", {"inline_limit_bytes": 0}))
    ]
    assert len(list(paths[1].parent.iterdir())) == 2
    within, beside = (argmax_labels.find(path) for path in paths)
    assert within == beside
    assert within[0].weights_norm == pytest.approx(np.linalg.norm(w, axis=1).max(), rel=1e-6)
    assert within[0].weights_most == pytest.approx(np.abs(w).max(), rel=1e-6)
