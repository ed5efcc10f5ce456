import json

import numpy as np
import pytest
from onnx import helper

from client import Client, UsageError
from measure.__main__ import main
from model.examples import standard_normal
from model.export import export
from model.reference import expect
from model.weights import exported, from_seed
from protos.quantize import DEFAULT_SCALE, from_wire, to_wire

CLASSES, FEATURES, SEED = 16, 3000, 5
W = exported(from_seed(CLASSES, FEATURES, SEED), "float32")
SCALES = {"float16": None, "int8": DEFAULT_SCALE, "coarse": 0.5}


@pytest.fixture(scope="module")
def address(graphs, serve):
    export(graphs.folder, "float16", W, "float32", SEED, wire="float16")
    export(graphs.folder, "int8", W, "float32", SEED, wire="int8")
    export(graphs.folder, "coarse", W, "float32", SEED, wire="int8", scale=0.5)
    for name, dtype in (("bare", "int8"), ("double", "float64")):
        graphs.add(
            name,
            [helper.make_node("Identity", ["x"], ["label"])],
            {"x": (dtype, ["batch", 2])},
            {"label": (dtype, ["batch", 2])},
        )
    return serve(graphs.folder).address


def examples(rows):
    return standard_normal(rows, FEATURES, 1, "float32")


def wanted(x, model):
    dtype = "float16" if model == "float16" else "int8"
    return expect(W, from_wire(to_wire(x, dtype, SCALES[model]), SCALES[model]), "float32").labels


@pytest.mark.parametrize("model", SCALES)
def test_predictions_are_those_of_the_rounded_examples(address, model):
    x = examples(100)
    with Client(address, model) as client:
        np.testing.assert_array_equal(client.predict(x), wanted(x, model))
        np.testing.assert_array_equal(client.predict(x.astype(np.float64)), wanted(x, model))
        assert client.predict(x[0]) == wanted(x[:1], model)
        answer = client.infer({"x": x}, ["label"])
        np.testing.assert_array_equal(answer.outputs[0].data, wanted(x, model))
        assert client.input().scale == SCALES[model]


@pytest.mark.parametrize("model", ["float16", "int8"])
def test_an_input_of_many_messages_is_rounded_message_by_message(address, model, monkeypatch):
    for bound in ("LEAST_BYTES", "MOST_BYTES"):
        monkeypatch.setattr(f"client.message_size.{bound}", 16 * FEATURES)
    sizes = []

    def counted(x, dtype, scale):
        sizes.append(len(x))
        return to_wire(x, dtype, scale)

    monkeypatch.setattr("client.model_input.to_wire", counted)
    x = examples(100)
    with Client(address, model) as client:
        np.testing.assert_array_equal(client.predict(x), wanted(x, model))
        parts = list(client.stream([x[:30], x[30:]]))
    np.testing.assert_array_equal(np.concatenate(parts), wanted(x, model))
    assert sum(sizes) == 200
    assert max(sizes) == (8 if model == "float16" else 16)


@pytest.mark.parametrize("model", ["float16", "int8"])
def test_rows_that_are_narrow_already_are_sent_as_they_are(address, model):
    x = examples(10)
    sent = to_wire(x, model, SCALES[model])
    with Client(address, model) as client:
        np.testing.assert_array_equal(client.predict(sent), wanted(x, model))
        answer = client.infer({"x": sent}, ["label"])
    np.testing.assert_array_equal(answer.outputs[0].data, wanted(x, model))


def test_floats_for_int8_of_unknown_scale_are_refused(address):
    x = np.ones((1, 2), np.float32)
    with Client(address, "bare") as client:
        for send in (client.predict, lambda x: client.infer({"x": x})):
            with pytest.raises(UsageError, match="returns no wire_scale"):
                send(x)
        np.testing.assert_array_equal(client.predict(x.astype(np.int8)), x)


@pytest.mark.parametrize(
    ("model", "number", "text"), [("int8", np.nan, "NaN"), ("float16", 7e4, "65504")]
)
def test_numbers_that_the_wire_cannot_hold_are_refused(address, model, number, text):
    x = examples(4)
    x[2, 7] = number
    with Client(address, model) as client:
        with pytest.raises(UsageError, match=text):
            client.predict(x)
        with pytest.raises(UsageError, match=text):
            list(client.stream([x]))


def test_other_models_get_what_was_given(address):
    with Client(address, "double") as client:
        answer = client.infer({"x": np.ones((1, 2))})
    assert answer.outputs[0].data.dtype == np.float64


@pytest.mark.parametrize("wire", [pytest.param("float16", marks=pytest.mark.slow), "int8"])
def test_a_sweep_sends_narrow_examples_and_says_how_many_labels_agree(tmp_path, wire, capsys):
    options = ["--features", "500", "--examples", "64", "--batch-sizes", "1,64", "--wire", wire]
    modes = ["--modes", "local,unary,stream,shm", "--repeats", "1", "--threads", "1"]
    assert main(["sweep", *options, *modes, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["settings"]["wire"] == wire
    assert content["settings"]["wire_scale"] == SCALES[wire]
    assert len(content["points"]) == 8
    for point in content["points"]:
        assert point["wrong_labels"] == 0
        assert 0.9 <= point["agreement"] <= 1
    assert "agree" in capsys.readouterr().out


SMALL_SWEEP = ["--batch-sizes", "8", "--examples", "64", "--repeats", "1", "--modes", "stream"]
SAME_MODEL = ["--classes", str(CLASSES), "--features", str(FEATURES), "--seed", str(SEED)]


def test_a_sweep_takes_the_scale_of_the_server_it_measures(tmp_path, address, monkeypatch):
    monkeypatch.setattr("measure.sweep.sweep.MODEL", "coarse")
    options = ["--address", address, "--wire", "int8", *SMALL_SWEEP, *SAME_MODEL]
    assert main(["sweep", *options, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["settings"]["wire_scale"] == 0.5
    (point,) = content["points"]
    # So coarse a scale changes some labels, none of which is the model's fault.
    assert point["wrong_labels"] == 0
    assert point["agreement"] < 1
    assert "changed by rounding to int8" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("model", "wire"), [("float16", "int8"), ("int8", "float16"), ("int8", "float32")]
)
def test_a_server_of_another_wire_is_not_measured(
    tmp_path, address, monkeypatch, capsys, model, wire
):
    monkeypatch.setattr("measure.sweep.sweep.MODEL", model)
    options = ["--address", address, "--wire", wire, *SMALL_SWEEP, *SAME_MODEL]
    assert main(["sweep", *options, "--out", str(tmp_path)]) == 2
    assert "--wire" in capsys.readouterr().err


def test_a_wire_of_float64_examples_is_refused(tmp_path, capsys):
    options = ["--dtype", "float64", "--wire", "int8", "--out", str(tmp_path)]
    assert main(["sweep", *options]) == 2
    assert "expected float32" in capsys.readouterr().err
