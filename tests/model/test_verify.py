import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from model.errors import ModelError
from model.examples import standard_normal
from model.export import export
from model.verify import verify
from model.weights import from_seed

DTYPES = ["float32", "float64"]
CLASSES, FEATURES, SEED = 6, 200, 4
W = from_seed(CLASSES, FEATURES, SEED)


def changed(path, change):
    """Apply a change to a graph on disk."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def with_weights(w):
    def change(model):
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(w.T), "W"))

    return change


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", [{}, {"inline_limit_bytes": 0}], ids=["inline", "external"])
def test_an_exported_model_is_right(tmp_path, dtype, storage):
    path = export(tmp_path, "linear", W, dtype, SEED, **storage)
    found = verify(tmp_path, 100, 1)
    assert found.path == path
    assert (found.examples, found.wrong_labels, found.near_ties) == (100, 0, 0)
    assert found.agreement == 1
    assert found.sha_ok is True
    assert found.seed_ok is True
    assert found.ok


def test_wrong_labels_are_caught(tmp_path):
    def lowest(model):
        model.graph.node[1].op_type = "ArgMin"

    found = verify(changed(export(tmp_path, "linear", W, "float32"), lowest), 100, 1)
    assert found.wrong_labels == 100
    assert found.agreement == 0
    assert not found.ok


def test_every_example_is_run_once(tmp_path):
    def forget_the_sign(model):
        model.graph.node[0].output[0] = "signed"
        model.graph.node.insert(1, onnx.helper.make_node("Abs", ["signed"], ["scores"]))

    # Class 1 is right for negative examples, where the graph now gives class 0.
    path = export(tmp_path, "sign", np.array([[1.0], [-1.0]]), "float32")
    found = verify(changed(path, forget_the_sign), 300, 1)
    negative = int((standard_normal(300, 1, 1, "float32") < 0).sum())
    assert found.wrong_labels == negative
    assert found.agreement == (300 - negative) / 300


@pytest.mark.parametrize("seed", [None, SEED])
def test_one_tampered_weight_is_caught(tmp_path, seed):
    w = W.astype(np.float32)
    w[2, 3] += 1
    path = changed(export(tmp_path, "linear", W, "float32", seed), with_weights(w))
    found = verify(path, 100, 1)
    assert found.wrong_labels == 0
    assert found.sha_ok is False
    assert found.seed_ok is (None if seed is None else False)
    assert not found.ok


@pytest.mark.parametrize("said", ["5", "-1", "four"])
def test_a_seed_that_does_not_give_the_weights_is_caught(tmp_path, said):
    def another_seed(model):
        for item in model.metadata_props:
            if item.key == "seed":
                item.value = said

    found = verify(changed(export(tmp_path, "linear", W, "float32", SEED), another_seed), 1, 1)
    assert (found.sha_ok, found.seed_ok, found.ok) == (True, False, False)


def test_a_graph_without_metadata_is_judged_by_its_labels(tmp_path):
    def forget(model):
        del model.metadata_props[:]

    found = verify(changed(export(tmp_path, "linear", W, "float32", SEED), forget), 10, 1)
    assert (found.sha_ok, found.seed_ok, found.ok) == (None, None, True)


def test_near_ties_are_counted_apart_from_wrong_labels(tmp_path):
    def last_of_equals(model):
        (attribute,) = (a for a in model.graph.node[1].attribute if a.name == "select_last_index")
        attribute.i = 1

    twins = np.vstack((W[:1], W[:1]))
    path = export(tmp_path, "twins", twins, "float32")
    assert verify(path, 10, 1).near_ties == 10
    found = verify(changed(path, last_of_equals), 10, 1)
    assert (found.near_ties, found.wrong_labels, found.agreement) == (10, 0, 0)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x07"])
def test_files_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx .*expected"):
        verify(path, 1, 1)


def test_another_model_is_refused(tmp_path):
    def rename(model):
        model.graph.input[0].name = model.graph.node[0].input[0] = "images"

    path = changed(export(tmp_path, "linear", W, "float32"), rename)
    with pytest.raises(ModelError, match=r"inputs \['images'\].*expected a linear argmax model"):
        verify(path, 1, 1)


def test_a_model_with_weights_of_another_name_is_refused(tmp_path):
    def rename(model):
        model.graph.initializer[0].name = model.graph.node[0].input[1] = "B"

    path = changed(export(tmp_path, "linear", W, "float32"), rename)
    with pytest.raises(ModelError, match=r"initializers \['B'\].*\['W'\]"):
        verify(path, 1, 1)


def test_truncated_weights_are_refused(tmp_path):
    def truncate(model):
        model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]

    path = changed(export(tmp_path, "linear", W, "float32"), truncate)
    with pytest.raises(ModelError, match=r"model\.onnx: "):
        verify(path, 1, 1)


def test_a_graph_that_cannot_be_run_is_refused(tmp_path):
    def unknown(model):
        model.graph.node[0].op_type = "NoSuchOperator"

    path = changed(export(tmp_path, "linear", W, "float32"), unknown)
    with pytest.raises(ModelError, match="cannot be run"):
        verify(path, 1, 1)


def test_weights_that_do_not_fit_the_graph_are_refused(tmp_path):
    path = changed(export(tmp_path, "linear", W, "float32"), with_weights(np.full_like(W, np.nan)))
    with pytest.raises(ModelError, match="NaN or infinite"):
        verify(path, 1, 1)


def test_lost_external_data_is_refused(tmp_path):
    path = export(tmp_path, "linear", W, "float32", inline_limit_bytes=0)
    for data in path.parent.glob("*.data"):
        data.unlink()
    with pytest.raises((ModelError, OSError), match="data"):
        verify(path, 1, 1)


def test_no_examples_prove_nothing(tmp_path):
    with pytest.raises(ModelError, match="got 0 examples, expected at least 1"):
        verify(tmp_path, 0, 1)
