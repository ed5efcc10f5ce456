import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from command_line.onnx_runtime import ort
from model.errors import ModelError
from model.graph import Wire
from model.linear_argmax import LinearArgmax, to_graph

RNG = np.random.default_rng(0)
CLASSES = np.array(["a", "b", "c"])
W, B = RNG.standard_normal((3, 5)), RNG.standard_normal(3)
X = RNG.standard_normal((50, 5))


def run(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["label", "scores"], {session.get_inputs()[0].name: x})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [B, np.zeros(3)], ids=["bias", "no bias"])
def test_skl2onnx_takes_the_estimator_by_itself(dtype, bias):
    linear = LinearArgmax.of(W, bias, CLASSES)
    model = to_onnx(linear, X.astype(dtype), target_opset=13)
    assert [node.op_type for node in model.graph.node] == [
        "MatMul",
        *(["Add"] if bias.any() else []),
        "ArgMax",
    ]
    label, scores = run(model, X.astype(dtype))
    assert scores.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(CLASSES[label], linear.predict(X))
    np.testing.assert_allclose(scores, linear.decision_function(X), rtol=1e-4, atol=1e-5)


def test_skl2onnx_takes_it_at_the_end_of_a_pipeline():
    before = make_pipeline(StandardScaler(), PCA(3)).fit(X)
    wide = before.transform(X).shape[1]
    linear = LinearArgmax.of(RNG.standard_normal((3, wide)), B, CLASSES)
    pipeline = make_pipeline(*(step for _, step in before.steps), linear)
    model = to_onnx(pipeline, X, target_opset=13)
    assert "LinearClassifier" not in {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(CLASSES[run(model, X)[0]], pipeline.predict(X))


def test_the_graph_of_the_exporter_has_no_data_for_w_alone():
    model = to_graph(LinearArgmax.of(W, B, CLASSES), "float32", Wire("int8", 0.5))
    empty = [t.name for t in model.graph.initializer if not t.raw_data and not t.float_data]
    assert empty == ["W"]
    assert model.graph.node[0].op_type == "DequantizeLinear"


def test_one_row_of_coefficients_decides_between_two_classes():
    w = np.array([[1.0, -1.0]])
    linear = LinearArgmax.of(w, 0.5, np.array([10, 20]))
    np.testing.assert_array_equal(linear.coef_, [[0, 0], [1, -1]])
    np.testing.assert_array_equal(linear.intercept_, [0, 0.5])
    above, tie, below = [0.0, 0.0], [0.0, 0.5], [0.0, 1.0]
    np.testing.assert_array_equal(linear.predict([above, tie, below]), [20, 10, 10])


def test_an_estimator_that_was_not_made_cannot_predict():
    with pytest.raises(NotFittedError):
        LinearArgmax().predict(X)


@pytest.mark.parametrize(
    ("coef", "intercept", "classes"),
    [
        (W, B, CLASSES[:2]),
        (W[:1], 0.0, CLASSES),
        (W[:1], 0.0, CLASSES[:1].repeat(1)[:0]),
        (W, [0, np.inf, 0], CLASSES),
    ],
)
def test_parts_that_do_not_fit_are_refused(coef, intercept, classes):
    with pytest.raises(ModelError, match="expected finite numbers, a row per class"):
        LinearArgmax.of(coef, intercept, classes)


def test_an_input_of_another_kind_is_refused():
    with pytest.raises(ModelError, match="expected one of DoubleTensorType"):
        to_onnx(LinearArgmax.of(W, B, CLASSES), X.astype(np.int64), target_opset=13)
