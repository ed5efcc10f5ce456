import functools
import json
import re
import warnings
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC

from client import Client
from model.__main__ import main
from model.errors import ModelError
from model.from_sklearn.export import export_estimator
from model.linear_argmax import LinearArgmax
from model.verify import verify
from protos import model_config_pb2 as config_pb
from server.onnx.engine import Engine

FEATURES, TRAINED = 12, 150

ESTIMATORS = {
    "logistic": LogisticRegression(),
    "logistic without intercept": LogisticRegression(fit_intercept=False),
    "svc": LinearSVC(random_state=0),
    "svc without intercept": LinearSVC(fit_intercept=False, random_state=0),
    "svc of crammer and singer": LinearSVC(multi_class="crammer_singer", random_state=0),
    "sgd": SGDClassifier(random_state=0),
    "sgd log loss without intercept": SGDClassifier(
        loss="log_loss", fit_intercept=False, random_state=0
    ),
    "perceptron": Perceptron(random_state=0),
    "perceptron without intercept": Perceptron(fit_intercept=False, random_state=0),
    "ridge": RidgeClassifier(),
    "ridge without intercept": RidgeClassifier(fit_intercept=False),
    "ridge cv": RidgeClassifierCV(),
    "lda": LinearDiscriminantAnalysis(),
    "lda lsqr": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
}
# What holds a classifier, or is one of two classes only.
WRAPPED = {
    "grid search": GridSearchCV(RidgeClassifier(), {"alpha": [1, 10]}, cv=2),
    "random search": RandomizedSearchCV(
        RidgeClassifier(), {"alpha": [1, 10]}, n_iter=1, cv=2, random_state=0
    ),
    "halving search over a pipeline": HalvingGridSearchCV(
        make_pipeline(StandardScaler(), RidgeClassifier()),
        {"ridgeclassifier__alpha": [1, 10]},
        cv=2,
        random_state=0,
    ),
    "pipeline that ends in a search": make_pipeline(
        RobustScaler(), GridSearchCV(RidgeClassifier(), {"alpha": [1, 10]}, cv=2)
    ),
    "pipeline of pipelines": make_pipeline(
        make_pipeline(MinMaxScaler(), "passthrough"),
        make_pipeline(make_pipeline(StandardScaler()), LinearSVC(random_state=0)),
    ),
    "one against the rest": OneVsRestClassifier(LinearSVC(random_state=0)),
    "one against the rest, scaled inside": OneVsRestClassifier(
        make_pipeline(StandardScaler(), SGDClassifier(random_state=0))
    ),
    "one against the rest of linear SVCs": OneVsRestClassifier(SVC(kernel="linear")),
    "search over one against the rest": GridSearchCV(
        OneVsRestClassifier(RidgeClassifier()), {"estimator__alpha": [1, 10]}, cv=2
    ),
}
OF_TWO = {
    "linear SVC": SVC(kernel="linear"),
    "linear SVC of weighted classes": SVC(kernel="linear", class_weight="balanced", C=3),
    "linear NuSVC": NuSVC(kernel="linear"),
    "one against one": OneVsOneClassifier(LinearSVC(random_state=0)),
    "one against one of linear SVCs": OneVsOneClassifier(SVC(kernel="linear")),
}
CLASSES = {
    "two integers": np.array([0, 1]),
    "two names": np.array(["no", "yes"]),
    "integers that start elsewhere": np.array([-7, 3, 40, 41]),
    "names": np.array(["ant", "bee, or wasp", "crâne", "dog"]),
    "booleans": np.array([False, True]),
}
SCALERS = {
    "": [],
    "standard": [StandardScaler()],
    "mean only": [StandardScaler(with_std=False)],
    "std only": [StandardScaler(with_mean=False)],
    "neither": [StandardScaler(with_mean=False, with_std=False)],
    "maxabs then standard": [MaxAbsScaler(), StandardScaler()],
    "passthrough": ["passthrough", None, FunctionTransformer(), StandardScaler()],
    "robust": [RobustScaler()],
    "robust, center only": [RobustScaler(with_scaling=False)],
    "robust, scale only": [RobustScaler(with_centering=False, unit_variance=True)],
    "robust, neither": [RobustScaler(with_centering=False, with_scaling=False)],
    "minmax": [MinMaxScaler()],
    "minmax of another range, then robust": [MinMaxScaler((-3, 5)), RobustScaler()],
}


def data(classes, seed=0):
    """Features of different centers and sizes; the last rows are for testing."""
    x, y = make_classification(
        n_samples=400,
        n_features=FEATURES,
        n_informative=6,
        n_classes=len(classes),
        flip_y=0.1,
        random_state=seed,
    )
    rng = np.random.default_rng(seed)
    x = x * rng.uniform(0.2, 5, FEATURES) + rng.uniform(-3, 3, FEATURES)
    return x, classes[y]


def fitted(estimator, scalers, classes):
    made = clone(make_pipeline(*scalers, estimator) if scalers else estimator)
    x, y = data(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return made.fit(x[:TRAINED], y[:TRAINED]), x[TRAINED:]


# Every estimator with two classes and more, and scaled or not; the kinds of class and scaler once.
CASES = [
    *((name, "two names", "") for name in ESTIMATORS),
    *((name, "names", "standard") for name in ESTIMATORS),
    *(("logistic", of, "standard") for of in CLASSES if of != "names"),
    *(("svc without intercept", "names", scaler) for scaler in SCALERS if scaler != "standard"),
    *((name, "names", "") for name in WRAPPED),
    ("one against the rest", "two names", ""),
    ("search over one against the rest", "two names", ""),
    *((name, "two names", "standard") for name in OF_TWO),
]
# Every one of them with everything else.
MORE = [
    *((name, "two names", "standard") for name in ESTIMATORS),
    *((name, "names", "") for name in ESTIMATORS),
    *((name, "two names", "") for name in (*WRAPPED, *OF_TWO)),
]
EVERY = [
    *CASES,
    *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE if case not in CASES),
]


@functools.cache
def fitted_case(name, of, scaler):
    return fitted((ESTIMATORS | WRAPPED | OF_TWO)[name], SCALERS[scaler], CLASSES[of])


@pytest.fixture(scope="module")
def served(tmp_path_factory, serve, call):
    """Export a case and have a server load it; the model's folder and the server's address."""
    repository = tmp_path_factory.mktemp("models")
    address = serve(repository, model_control="explicit").address
    caller = call(address)

    @functools.cache
    def serve_case(*case):
        name = re.sub("[^a-z]+", "_", "_".join(case).lower())
        estimator, _ = fitted_case(*case)
        made = export_estimator(repository, name, estimator)
        assert made.same == made.examples
        caller.control("RepositoryModelLoad", model_name=name)
        return repository / name, address

    return serve_case


@pytest.mark.parametrize(("name", "of", "scaler"), EVERY)
def test_every_row_gets_over_grpc_what_the_estimator_predicts(served, name, of, scaler):
    folder, address = served(name, of, scaler)
    estimator, x = fitted_case(name, of, scaler)
    with Client(address, folder.name) as client:
        indices = client.predict(x)
        told = json.loads(client.config().parameters["labels"].string_value)
    wanted = estimator.predict(x)
    assert len(set(wanted.tolist())) > 1
    np.testing.assert_array_equal(estimator.classes_[indices], wanted)
    assert told == estimator.classes_.tolist()
    lines = (folder / "labels.txt").read_text().splitlines()
    assert [lines[i] for i in indices] == [str(label) for label in wanted.tolist()]


def test_scores_are_the_decision_function(served):
    for of, binary in (("names", False), ("two names", True)):
        case = ("logistic", of, "standard")
        folder, address = served(*case)
        estimator, x = fitted_case(*case)
        with Client(address, folder.name) as client:
            scores = client.infer({"x": x}, ["scores"]).outputs[0].data
        wanted = estimator.decision_function(x)
        if binary:
            wanted = np.stack([np.zeros(len(x)), wanted], axis=1)
        np.testing.assert_allclose(scores, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", ["two names", "names"])
def test_a_tie_is_the_estimators_tie(tmp_path, classes):
    estimator, _ = fitted(LogisticRegression(fit_intercept=False), [], CLASSES[classes])
    path = export_estimator(tmp_path, "tie", estimator).path
    x = np.zeros((3, FEATURES))
    np.testing.assert_array_equal(labels(path, x), [0, 0, 0])
    assert estimator.predict(x).tolist() == [estimator.classes_[0]] * 3


@pytest.mark.parametrize(
    ("estimator", "classes"),
    [
        (OneVsRestClassifier(LinearSVC(fit_intercept=False, random_state=0)), "names"),
        (OneVsRestClassifier(LinearSVC(fit_intercept=False, random_state=0)), "two names"),
    ],
)
def test_a_tie_of_one_against_the_rest_is_the_estimators_tie(tmp_path, estimator, classes):
    estimator, _ = fitted(estimator, [], CLASSES[classes])
    path = export_estimator(tmp_path, "tie", estimator).path
    x = np.zeros((3, FEATURES))
    assert estimator.classes_[labels(path, x)].tolist() == estimator.predict(x).tolist()


@pytest.mark.parametrize("kind", [SVC, NuSVC])
@pytest.mark.parametrize("wrap", [lambda svc: svc, OneVsOneClassifier, OneVsRestClassifier])
def test_a_tie_of_support_vectors_is_the_estimators_tie(tmp_path, kind, wrap):
    estimator = wrap(kind(kernel="linear")).fit(np.array([[-1.0, -1], [1, 1]]), [3, 8])
    path = export_estimator(tmp_path, "tie", estimator).path
    x = np.array([[0.0, 0], [1, -1], [-1, -1], [1, 1]])
    wanted = estimator.predict(x).tolist()
    assert estimator.classes_[labels(path, x)].tolist() == wanted
    # LIBSVM's own rule is the other way round.
    assert wanted[:2] == ([3, 3] if wrap is OneVsRestClassifier else [8, 8])
    assert verify(path, 100, 1).ok


def test_of_equal_scores_the_last_wins_where_the_estimator_says_so(tmp_path):
    same = LinearArgmax.of(np.ones((3, 2)), 0.0, np.array([4, 5, 6]), last_of_ties=True)
    x = np.ones((2, 2))
    assert same.predict(x).tolist() == [6, 6]
    path = export_estimator(tmp_path, "tie", same).path
    assert labels(path, x).tolist() == [2, 2]
    # A copy in a pipeline keeps it.
    path = export_estimator(tmp_path, "tie", make_pipeline(FunctionTransformer(), same)).path
    assert labels(path, x).tolist() == [2, 2]


def test_a_frozen_estimator_is_the_one_inside(tmp_path):
    estimator, _ = fitted(LogisticRegression(), [StandardScaler()], CLASSES["names"])
    plain = export_estimator(tmp_path, "plain", estimator).path.read_bytes()
    frozen = export_estimator(tmp_path, "frozen", FrozenEstimator(estimator)).path.read_bytes()
    assert frozen == plain


def labels(path, x):
    return Engine(path, 1).run(["label"], {"x": x})[0]


def test_the_graph_is_matmul_add_argmax_for_the_widest_range_of_runtimes(tmp_path):
    estimator, _ = fitted(LogisticRegression(), [StandardScaler()], CLASSES["names"])
    model = onnx.load(export_estimator(tmp_path, "m", estimator).path)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add", "ArgMax"]
    (opset,) = model.opset_import
    assert (opset.domain, opset.version, model.ir_version) == ("", 13, 7)
    assert [(value.name, value.type.tensor_type.shape.dim[0].dim_param) for value in (
        *model.graph.input, *model.graph.output
    )] == [("x", "batch"), ("label", "batch"), ("scores", "batch")]  # fmt: skip


def test_nothing_is_added_where_the_bias_is_zero(tmp_path):
    estimator, _ = fitted(LinearSVC(fit_intercept=False, random_state=0), [], CLASSES["names"])
    path = export_estimator(tmp_path, "m", estimator).path
    assert [node.op_type for node in onnx.load(path).graph.node] == ["MatMul", "ArgMax"]


@pytest.mark.parametrize("storage", [{}, {"inline_limit_bytes": 0}], ids=["inline", "external"])
@pytest.mark.parametrize(
    ("dtype", "wire", "scale"),
    [
        ("float64", None, None),
        ("float32", None, None),
        ("float32", "float16", None),
        ("float32", "int8", 0.25),
    ],
)
def test_every_kind_of_model_verifies(tmp_path, storage, dtype, wire, scale):
    estimator, _ = fitted(LogisticRegression(), [], CLASSES["names"])
    made = export_estimator(tmp_path, "m", estimator, dtype, wire=wire, scale=scale, **storage)
    assert made.same > 0.8 * made.examples
    found = verify(tmp_path, 300, 1)
    assert (found.wrong_labels, found.sha_ok) == (0, True)
    assert found.ok
    assert len(list(made.path.parent.iterdir())) == (2 if storage else 1)


def test_a_tampered_bias_is_caught(tmp_path):
    estimator, _ = fitted(LogisticRegression(), [], CLASSES["names"])
    path = export_estimator(tmp_path, "m", estimator).path
    model = onnx.load(path)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "b"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1e-6, "b"))
    onnx.save(model, path)
    assert verify(path, 10, 1).sha_ok is False


def test_sparse_coefficients_are_taken(tmp_path):
    estimator, _ = fitted(SGDClassifier(random_state=0), [], CLASSES["names"])
    dense = export_estimator(tmp_path, "dense", estimator).path.read_bytes()
    estimator.sparsify()
    assert sparse.issparse(estimator.coef_)
    assert export_estimator(tmp_path, "sparse", estimator).path.read_bytes() == dense


def test_an_estimator_trained_in_float32_is_taken(tmp_path):
    x, y = data(CLASSES["names"])
    x = x.astype(np.float32)
    estimator = LinearDiscriminantAnalysis().fit(x[:TRAINED], y[:TRAINED])
    assert estimator.coef_.dtype == np.float32
    for dtype in ("float32", "float64"):
        path = export_estimator(tmp_path, dtype, estimator, dtype).path
        indices = labels(path, x[TRAINED:].astype(dtype))
        np.testing.assert_array_equal(estimator.classes_[indices], estimator.predict(x[TRAINED:]))


def test_columns_that_had_names_are_no_reason_to_warn(tmp_path):
    estimator, _ = fitted(LogisticRegression(), [StandardScaler()], CLASSES["names"])
    for step in estimator:
        step.feature_names_in_ = np.array([f"c{i}" for i in range(FEATURES)], object)
    with pytest.warns(UserWarning, match="valid feature names"):
        estimator.predict(np.zeros((1, FEATURES)))
    assert export_estimator(tmp_path, "m", estimator).same == 256


def test_classes_that_json_lacks_are_told_as_text(tmp_path):
    days = np.array(["2026-01-02", "2026-01-03"], "datetime64[D]")
    estimator, _ = fitted(LogisticRegression(), [], CLASSES["two names"])
    estimator.classes_ = days
    path = export_estimator(tmp_path, "m", estimator).path
    told = {item.key: item.value for item in onnx.load(path).metadata_props}["labels"]
    assert json.loads(told) == ["2026-01-02", "2026-01-03"]
    assert (tmp_path / "m" / "labels.txt").read_text() == "2026-01-02\n2026-01-03\n"


def test_a_bias_too_large_for_the_dtype_is_refused(tmp_path):
    estimator, _ = fitted(LogisticRegression(), [], CLASSES["names"])
    estimator.intercept_ = estimator.intercept_ + 1e39
    with pytest.raises(ModelError, match="b has numbers too large for float32"):
        export_estimator(tmp_path, "m", estimator, "float32")
    assert export_estimator(tmp_path, "m", estimator).path.exists()


def test_the_label_file_is_named_by_a_config_that_is_the_owners_from_then_on(tmp_path):
    estimator, _ = fitted(LogisticRegression(), [], CLASSES["names"])
    export_estimator(tmp_path, "m", estimator)
    config = tmp_path / "m" / "config.pbtxt"
    outputs = text_format.Parse(config.read_text(), config_pb.ModelConfig()).output
    files = {output.name: output.label_filename for output in outputs}
    assert files == {"label": "labels.txt", "scores": "labels.txt"}
    config.write_text("# mine")
    other, _ = fitted(LogisticRegression(), [], CLASSES["integers that start elsewhere"])
    export_estimator(tmp_path, "m", other)
    assert config.read_text() == "# mine"
    assert (tmp_path / "m" / "labels.txt").read_text() == "-7\n3\n40\n41\n"


# What is refused.


class Contrary(LogisticRegression):
    """Predicts the lowest score."""

    def predict(self, X):  # noqa: N803
        return self.classes_[self.decision_function(X).argmin(axis=1)]


def saved(folder, estimator):
    path = folder / "estimator.joblib"
    joblib.dump(estimator, path)
    return path


def refused(folder, capsys, *options):
    assert main(["export", "--out", str(folder / "models"), *map(str, options)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("argmax-model: error: ")
    assert err.count("\n") == 1
    assert not list(folder.glob("models/*/*/*.onnx"))
    return err


def test_the_command_exports_what_joblib_saved(tmp_path, capsys):
    estimator, _ = fitted(LogisticRegression(), [StandardScaler()], CLASSES["names"])
    file = saved(tmp_path, estimator)
    out = ["--out", str(tmp_path / "models"), "--name", "own"]
    assert main(["export", "--from", str(file), *out]) == 0
    said = capsys.readouterr().out
    assert "own/1/model.onnx  [4, 12] float64 " in said
    assert said.endswith("agrees with Pipeline.predict on 256 of 256 examples\n")
    assert main(["verify", str(tmp_path / "models")]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit(RandomForestClassifier(n_estimators=2)), "got a RandomForestClassifier"),
        (
            lambda: fit(SVC(kernel="linear")),
            "the SVC decides between 4 classes by votes of pairs, which is not linear; expected "
            "two classes, or OneVsRestClassifier around it",
        ),
        (
            lambda: fit(SVC(kernel="linear", break_ties=True)),
            "the SVC decides between 4 classes by votes of pairs",
        ),
        (lambda: fit(NuSVC()), "the NuSVC has the kernel 'rbf'; expected 'linear'"),
        (
            lambda: fit(OneVsOneClassifier(LinearSVC())),
            "the OneVsOneClassifier decides between 4 classes by votes of pairs",
        ),
        (
            lambda: fit(OneVsRestClassifier(LinearSVC()), multilabel=True),
            "the OneVsRestClassifier is multilabel: it predicts 3 labels",
        ),
        (lambda: fit(OneVsRestClassifier(GaussianNB())), "got a GaussianNB"),
        (lambda: OneVsRestClassifier(LinearSVC()), "got a OneVsRestClassifier that is not fitted"),
        (
            lambda: fit(CalibratedClassifierCV(LinearSVC(), cv=2)),
            "a CalibratedClassifierCV compares calibrated probabilities, which are not linear",
        ),
        (lambda: GridSearchCV(LinearSVC(), {}), "the GridSearchCV has no best_estimator_; expect"),
        (
            lambda: fit(GridSearchCV(LinearSVC(), {}, cv=2, refit=False)),
            "the GridSearchCV has no best_estimator_; expected a search that is fitted, with refit",
        ),
        (
            lambda: fit(GridSearchCV(GaussianNB(), {}, cv=2)),
            "got a GaussianNB, expected LinearArgmax, Linear",
        ),
        (
            lambda: fit(make_pipeline(make_pipeline(MinMaxScaler(clip=True)), LinearSVC())),
            "step 'pipeline__minmaxscaler' is a MinMaxScaler with clip=True, which is not linear",
        ),
        (
            lambda: fit(make_pipeline(FunctionTransformer(np.abs), LinearSVC())),
            "step 'functiontransformer' is a FunctionTransformer with a func; expected None",
        ),
        (lambda: fit(make_pipeline(Normalizer(), LinearSVC())), "step 'normalizer' is a Normali"),
        (lambda: fit(GaussianNB()), "got a GaussianNB, expected LinearArgmax, Linear"),
        (lambda: fit(LinearRegression(), numbers=True), "got a LinearRegression"),
        (lambda: {"coef_": 1}, "got a dict"),
        (
            lambda: fit(make_pipeline(StandardScaler(), PolynomialFeatures(), RidgeClassifier())),
            "step 'polynomialfeatures' is a PolynomialFeatures, expected MaxAbsScaler or MinMax",
        ),
        (
            lambda: make_pipeline(HashingVectorizer(), SGDClassifier()),
            "step 'hashingvectorizer' is a HashingVectorizer",
        ),
        (lambda: fit(make_pipeline(StandardScaler(), GaussianNB())), "got a GaussianNB"),
        (LogisticRegression, "got a LogisticRegression that is not fitted"),
        (lambda: make_pipeline(StandardScaler(), LinearSVC()), "got a StandardScaler that is not"),
        (lambda: fit(RidgeClassifier(), multilabel=True), "is multilabel: it predicts 3 labels"),
        (lambda: fit(Contrary()), "predicts something else than its coefficients"),
        (
            lambda: fit(LogisticRegression(), classes=np.array(["a\nb", "c", "d", "e"])),
            r"a class is 'a\nb', expected classes whose text is one line",
        ),
    ],
)  # fmt: skip
def test_what_is_no_linear_classifier_is_refused(tmp_path, capsys, make, message):
    err = refused(tmp_path, capsys, "--from", saved(tmp_path, make()))
    assert message in err


def fit(estimator, classes=CLASSES["names"], *, multilabel=False, numbers=False):
    x, y = data(classes)
    if numbers:
        y = x[:, 0]
    if multilabel:
        y = x[:, :3] > np.median(x[:, :3], axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


def test_what_was_there_stays_when_an_estimator_is_refused(tmp_path):
    path = export_estimator(tmp_path, "m", fit(LogisticRegression())).path
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ModelError, match="something else"):
        export_estimator(tmp_path, "m", fit(Contrary()), inline_limit_bytes=0)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert path in before


@pytest.mark.parametrize("content", [b"", b"coef_ = 1\n", b"\x80\x04cnowhere\nThing\n."])
def test_files_that_joblib_cannot_load_are_refused(tmp_path, capsys, content):
    file = tmp_path / "estimator.joblib"
    file.write_bytes(content)
    err = refused(tmp_path, capsys, "--from", file)
    assert "estimator.joblib cannot be loaded" in err


def test_a_missing_estimator_is_refused(tmp_path, capsys):
    assert "No such file" in refused(tmp_path, capsys, "--from", tmp_path / "nowhere.joblib")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--classes", 4),
        ("--features", 12),
        ("--seed", 0),
        ("--weights", "w.npy"),
        ("--tensor", "a"),
    ],
)
def test_options_of_other_sources_are_refused(tmp_path, capsys, option, value):
    file = saved(tmp_path, fit(LogisticRegression()))
    err = refused(tmp_path, capsys, "--from", file, option, value)
    assert f"got {option} {value} with --from, expected one of them" in err


def test_the_help_warns_that_loading_runs_code(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "WARNING: loading the file runs the code in it" in text


def test_no_other_module_loads_pickles():
    root = Path(__file__).resolve().parents[2]
    loading = [
        path.name
        for package in ("protos", "rowwise", "model", "server", "client", "measure")
        for path in (root / package).rglob("*.py")
        if ("import joblib" in path.read_text() or "allow_pickle=True" in path.read_text())
    ]
    assert loading
    assert set(loading) <= {"__main__.py", "estimators.py"}


# Graphs that do not agree.


def unscaled(size):
    """A classifier of features of that size, which standard normal examples are made into."""
    x, y = data(CLASSES["names"])
    return make_pipeline(StandardScaler(), RidgeClassifier()).fit(x * size, y)


def far(offset):
    """A classifier of features that hardly differ from what they have in common."""
    x, y = data(CLASSES["names"])
    return make_pipeline(StandardScaler(), RidgeClassifier()).fit(x + offset, y)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        # Most numbers lie beyond 127/32, and are cut.
        (
            lambda: unscaled(10),
            ["--dtype", "float32", "--wire", "int8"],
            "does not explain {n}; int8 holds 127 times its scale at most (--wire-scale)",
        ),
        # What float32 keeps of 1e7 and its neighbours are whole numbers.
        (
            lambda: far(1e8),
            ["--dtype", "float32"],
            "because rounding to float32 blurs the difference between classes; "
            "expected at least 0.9 of them (--least-agreement)",
        ),
        (
            lambda: unscaled(1),
            ["--dtype", "float32", "--wire", "int8", "--wire-scale", "8"],
            "because rounding to int8 of 8 blurs",
        ),
    ],
)
def test_a_graph_that_does_not_agree_is_refused_and_the_old_one_stays(
    tmp_path, capsys, make, options, message
):
    models = tmp_path / "models"
    out = ["--out", str(models), "--name", "m"]
    old = saved(tmp_path, fit(LogisticRegression()))
    assert main(["export", "--from", str(old), *out]) == 0
    before = {file: file.read_bytes() for file in models.rglob("*") if file.is_file()}
    capsys.readouterr()
    file = saved(tmp_path, make())
    assert main(["export", "--from", str(file), *out, *options]) == 2
    said, err = capsys.readouterr()
    assert said == ""
    found = re.match(
        r"argmax-model: error: the graph agrees with Pipeline\.predict on only (\d+) of 256 "
        r"examples",
        err,
    )
    assert int(found[1]) < 231
    count = re.search(r"does not explain (\d+)", err)
    assert message.format(n=count and count[1]) in err
    assert {file: file.read_bytes() for file in models.rglob("*") if file.is_file()} == before


def test_less_agreement_may_be_asked_for_where_rounding_explains_it(tmp_path):
    options = {"dtype": "float32", "wire": "int8", "scale": 8}
    made = export_estimator(tmp_path, "m", unscaled(1), **options, least_agreement=0.0)
    assert 0 < made.same < 231
    # But nothing else than rounding.
    with pytest.raises(ModelError, match="does not explain"):
        export_estimator(
            tmp_path, "m", unscaled(10), **options | {"scale": 1 / 32}, least_agreement=0.0
        )


def test_scores_beyond_the_dtype_are_not_explained_by_rounding(tmp_path):
    estimator = fit(RidgeClassifier())
    estimator.coef_ = estimator.coef_ * (3e38 / np.abs(estimator.coef_).max())
    estimator.intercept_ = 0 * estimator.intercept_
    with pytest.raises(ModelError, match=r"does not explain|returns wrong labels"):
        export_estimator(tmp_path, "m", estimator, "float32")


@pytest.mark.parametrize("value", ["-0.1", "1.1", "x", "nan"])
def test_the_least_agreement_is_a_fraction(capsys, value):
    export = ["export", "--from", "f", "--out", "m", "--name", "n"]
    assert main([*export, "--least-agreement", value]) == 2
    assert "expected a number from 0 to 1" in capsys.readouterr().err
