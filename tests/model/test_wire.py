import hashlib

import numpy as np
import onnx
import pytest

from model.__main__ import main
from model.errors import ModelError
from model.examples import standard_normal
from model.export import export
from model.reference import expect
from model.verify import verify
from model.weights import exported, from_seed
from protos.quantize import DEFAULT_SCALE, from_wire, to_wire
from server.onnx.engine import Engine

CLASSES, FEATURES, SEED = 6, 200, 4
W = from_seed(CLASSES, FEATURES, SEED)
WIRES = [("float16", None), ("int8", None), ("int8", 4 / 127)]


def changed(path, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def properties(path):
    return {item.key: item.value for item in onnx.load(path).metadata_props}


@pytest.mark.parametrize(("wire", "scale"), WIRES)
@pytest.mark.parametrize("storage", [{}, {"inline_limit_bytes": 0}], ids=["inline", "external"])
def test_a_narrow_model_is_right(tmp_path, wire, scale, storage):
    path = export(tmp_path, "m", W, "float32", SEED, wire=wire, scale=scale, **storage)
    found = verify(path, 300, 1)
    assert (found.wrong_labels, found.wire, found.wire_ok, found.sha_ok) == (0, wire, True, True)
    assert 0.9 < found.agreement <= 1
    assert found.ok
    assert properties(path)["wire"] == wire
    assert ("wire_scale" in properties(path)) == (wire == "int8")


@pytest.mark.parametrize(("wire", "scale"), WIRES)
def test_the_graph_widens_as_the_reference_of_the_widened_examples(tmp_path, wire, scale):
    path = export(tmp_path, "m", W, "float32", wire=wire, scale=scale)
    told = properties(path).get("wire_scale")
    sent = to_wire(standard_normal(50, FEATURES, 1, "float32"), wire, float(told) if told else None)
    engine = Engine(path, 1)
    (label, scores) = engine.run(["label", "scores"], {"x": sent})
    wanted = expect(exported(W, "float32"), from_wire(sent, float(told) if told else None), "f4")
    np.testing.assert_array_equal(label, wanted.labels)
    np.testing.assert_allclose(scores, wanted.scores, rtol=1e-4, atol=1e-4)
    assert engine.inputs[0].dtype == wire


def test_what_a_coarse_scale_changes_is_no_wrong_label(tmp_path):
    found = verify(export(tmp_path, "m", W, "float32", wire="int8", scale=1.0), 300, 1)
    assert found.agreement < 0.95
    assert found.wrong_labels == 0
    assert found.ok


def test_wrong_labels_are_caught_behind_a_narrow_wire(tmp_path):
    def lowest(model):
        model.graph.node[2].op_type = "ArgMin"

    path = export(tmp_path, "m", W, "float32", wire="int8")
    changed(path, lowest)
    assert verify(path, 100, 1).wrong_labels == 100


def test_metadata_that_tell_another_scale_are_caught(tmp_path):
    def lie(model):
        for item in model.metadata_props:
            if item.key == "wire_scale":
                item.value = "0.5"

    path = export(tmp_path, "m", W, "float32", wire="int8")
    changed(path, lie)
    found = verify(path, 10, 1)
    assert (found.wrong_labels, found.wire_ok, found.ok) == (0, False, False)


def test_a_wide_model_is_the_same_file_whether_its_wire_is_named_or_not(tmp_path):
    named = export(tmp_path, "named", W, "float32", SEED, wire="float32")
    plain = export(tmp_path, "plain", W, "float32", SEED)
    assert len({hashlib.sha256(p.read_bytes()).hexdigest() for p in (named, plain)}) == 1
    assert not {"wire", "wire_scale"} & set(properties(plain))
    found = verify(plain, 10, 1)
    assert (found.wire, found.wire_scale, found.wire_ok) == ("float32", None, None)


@pytest.mark.parametrize(
    ("dtype", "options", "text"),
    [
        ("float64", {"wire": "int8"}, "int8 of a float64 model"),
        ("float64", {"wire": "float32"}, "float32 of a float64 model"),
        ("float32", {"wire": "int4"}, "wire is int4"),
        ("float32", {"wire": "float16", "scale": 1.0}, "scale of 1.0 with wire float16"),
        ("float32", {"scale": 1.0}, "scale of 1.0 with wire float32"),
        ("float32", {"wire": "int8", "scale": -1.0}, "expected a finite number over 0"),
    ],
)
def test_wires_that_make_no_sense_are_refused(tmp_path, dtype, options, text):
    with pytest.raises(ModelError, match=text):
        export(tmp_path, "m", W, dtype, **options)
    assert not list(tmp_path.iterdir())


def test_a_narrow_model_is_exported_and_verified_by_command(tmp_path, capsys):
    small = ["--classes", "4", "--features", "50"]
    assert main(["export", "--out", str(tmp_path), *small, "--wire", "int8"]) == 0
    assert "float32 from int8" in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"int8 times {DEFAULT_SCALE}" in out
    assert "wrong labels  0\n" in out


def test_a_float64_model_with_a_wire_is_refused_by_command(tmp_path, capsys):
    options = ["--dtype", "float64", "--wire", "int8"]
    assert main(["export", "--out", str(tmp_path), *options, "--features", "5"]) == 2
    assert "wire is int8 of a float64 model" in capsys.readouterr().err
