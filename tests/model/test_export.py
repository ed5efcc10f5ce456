import os
import resource
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from command_line.onnx_runtime import ort
from model.errors import ModelError
from model.examples import standard_normal
from model.export import export
from model.graph import IR_VERSION, OPSET
from model.reference import expect
from model.weights import from_seed, sha256

DTYPES = ["float32", "float64"]
CLASSES, FEATURES = 5, 300
W = from_seed(CLASSES, FEATURES, 0)
# So low that every W is stored beside its graph.
NOTHING_INLINE = {"inline_limit_bytes": 0}
STORAGES = pytest.mark.parametrize("storage", [{}, NOTHING_INLINE], ids=["inline", "external"])


@contextmanager
def disk_full_after(size_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def session(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


@STORAGES
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_graph_gives_what_the_reference_expects(tmp_path, dtype, storage):
    path = export(tmp_path, "linear", W, dtype, 0, **storage)
    assert path == tmp_path / "linear" / "1" / "model.onnx"
    x = standard_normal(70, FEATURES, 1, dtype)
    label, scores = session(path).run(["label", "scores"], {"x": x})
    expected = expect(W, x, dtype)
    assert label.dtype == np.int64
    assert scores.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(label, expected.labels)
    np.testing.assert_allclose(scores, expected.scores, atol=expected.tolerance.max())


@STORAGES
@pytest.mark.parametrize("dtype", DTYPES)
def test_first_index_wins_a_tie_in_the_graph(tmp_path, dtype, storage):
    w = np.array([[0, 1], [2, 3], [2, 3], [1, 1]])
    x = np.array([[1, 1], [0, 0], [-1, -1]], dtype)
    path = export(tmp_path, "tie", w, dtype, **storage)
    (label,) = session(path).run(["label"], {"x": x})
    np.testing.assert_array_equal(label, [1, 0, 0])
    np.testing.assert_array_equal(label, expect(w, x, dtype).labels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_signature_has_a_free_batch_axis(tmp_path, dtype):
    ran = session(export(tmp_path, "linear", W, dtype))
    element = {"float32": "tensor(float)", "float64": "tensor(double)"}[dtype]
    found = [(a.name, a.type, a.shape) for a in (*ran.get_inputs(), *ran.get_outputs())]
    assert found == [
        ("x", element, ["batch", FEATURES]),
        ("label", "tensor(int64)", ["batch"]),
        ("scores", element, ["batch", CLASSES]),
    ]


@STORAGES
def test_the_files_pass_the_full_check_of_onnx(tmp_path, storage):
    path = export(tmp_path, "linear", W, "float32", 0, **storage)
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (7, 13)
    (stored,) = model.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), W.T.astype(np.float32))


def test_no_older_format_holds_the_opset():
    opsets = [helper.make_opsetid("", OPSET)]
    assert helper.find_min_ir_version_for(opsets) == IR_VERSION


@pytest.mark.parametrize("seed", [None, 0, 3])
def test_the_metadata_say_where_the_model_comes_from(tmp_path, seed):
    path = export(tmp_path, "linear", W, "float32", seed)
    metadata = session(path).get_modelmeta().custom_metadata_map
    assert metadata.pop("exporter").startswith("argmax-serving ")
    assert metadata.pop("seed", None) == (None if seed is None else str(seed))
    assert metadata == {
        "classes": str(CLASSES),
        "features": str(FEATURES),
        "dtype": "float32",
        "weights_sha256": sha256(W.astype(np.float32)),
    }


@STORAGES
def test_the_same_model_is_the_same_bytes(tmp_path, storage):
    a, b = (export(tmp_path / name, "linear", W, "float32", 0, **storage) for name in "ab")
    assert content(a.parent) == content(b.parent)


@STORAGES
def test_an_identical_model_is_left_untouched(tmp_path, storage):
    path = export(tmp_path, "linear", W, "float32", 0, **storage)
    before = {file: file.stat() for file in path.parent.iterdir()}
    export(tmp_path, "linear", np.asfortranarray(W), np.float32, 0, **storage)
    after = {file: file.stat() for file in path.parent.iterdir()}
    assert {f: (s.st_ino, s.st_mtime_ns) for f, s in before.items()} == {
        f: (s.st_ino, s.st_mtime_ns) for f, s in after.items()
    }


@STORAGES
def test_another_model_replaces_the_one_that_is_there(tmp_path, storage):
    export(tmp_path, "linear", W, "float32", **storage)
    path = export(tmp_path, "linear", -W, "float32", **storage)
    x = standard_normal(3, FEATURES, 1, "float32")
    (label,) = session(path).run(["label"], {"x": x})
    np.testing.assert_array_equal(label, expect(-W, x, "float32").labels)
    assert len(content(path.parent)) == (1 if not storage else 2)


def test_moving_w_into_the_graph_leaves_no_data_beside_it(tmp_path):
    export(tmp_path, "linear", W, "float32", **NOTHING_INLINE)
    path = export(tmp_path, "linear", W, "float32")
    assert list(content(path.parent)) == ["model.onnx"]


@pytest.mark.parametrize("limit", [W.nbytes + (1 << 20) - 1, W.nbytes + (1 << 20)])
def test_w_leaves_the_graph_only_beyond_the_limit(tmp_path, limit):
    path = export(tmp_path, "linear", W, "float64", inline_limit_bytes=limit)
    assert len(content(path.parent)) == (1 if limit >= W.nbytes + (1 << 20) else 2)


@STORAGES
def test_a_full_disk_leaves_the_old_model_alone(tmp_path, storage):
    path = export(tmp_path, "linear", W, "float32", **storage)
    before = content(path.parent)
    with disk_full_after(1 << 10), pytest.raises(OSError, match="File too large"):
        export(tmp_path, "linear", -W, "float32", **storage)
    assert content(path.parent) == before


def test_data_without_its_graph_is_taken_away_again(tmp_path):
    path = export(tmp_path, "linear", W, "float32", **NOTHING_INLINE)
    before = content(path.parent)
    # Room for W of 4 bytes, too little for the graph.
    with disk_full_after(64), pytest.raises(OSError, match="File too large"):
        export(tmp_path, "linear", np.ones((1, 1)), "float32", **NOTHING_INLINE)
    assert content(path.parent) == before


def test_versions_lie_side_by_side(tmp_path):
    for version in (1, 2):
        export(tmp_path, "linear", W * version, "float32", version=version)
    assert sorted(os.listdir(tmp_path / "linear")) == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "w", "dtype", "message"),
    [
        ("../linear", W, "float32", "name is"),
        ("linear", W[0], "float32", "W has shape"),
        ("linear", W * np.nan, "float32", "NaN or infinite"),
        ("linear", W * 1e39, "float32", "too large for float32"),
        ("linear", W, "float16", "expected float32 or float64"),
    ],
)
def test_what_cannot_be_a_model_writes_nothing(tmp_path, name, w, dtype, message):
    with pytest.raises(ModelError, match=message):
        export(tmp_path, name, w, dtype)
    assert os.listdir(tmp_path) == []
