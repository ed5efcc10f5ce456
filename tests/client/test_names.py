"""predict(x, names=True) and `client predict --names` against a server."""

import json

import in_process
import numpy as np
import pytest
from onnx import helper

from client import Client, UsageError
from measure.__main__ import main

FEATURES = 3
LABELS = ["ant", "bee", "crab: small"]
WORDS = "\n".join(LABELS)
X = np.array([[1, 5, 2], [7, 3, 6], [0, 0, 9], [4, 4, 4]], np.float32)
WANTED = ["bee", "ant", "crab: small", "ant"]


@pytest.fixture(scope="module")
def address(graphs, serve):
    rows = ("float32", ["batch", FEATURES])

    def add(name, labelled, labels=WORDS, outputs=("label", "scores"), output="label"):
        nodes = {
            "label": helper.make_node("ArgMax", ["x"], [output], axis=1, keepdims=0),
            "scores": helper.make_node("Identity", ["x"], ["scores"]),
        }
        kinds = {"label": (output, ("int64", ["batch"])), "scores": ("scores", rows)}
        graphs.add(
            name, [nodes[kind] for kind in outputs], {"x": rows}, dict(map(kinds.get, outputs))
        )
        folder = graphs.folder / name
        (folder / "labels.txt").write_text(labels)
        lines = [f'output {{ name: "{of}" label_filename: "labels.txt" }}' for of in labelled]
        (folder / "config.pbtxt").write_text("\n".join(["max_batch_size: 8", *lines]))

    add("both", ["label", "scores"])
    add("scores_only", ["scores"])
    add("other_name", ["top"], output="top")
    add("unlabelled", [])
    add("in_parameters", [])
    with (graphs.folder / "in_parameters" / "config.pbtxt").open("a") as config:
        labels = json.dumps(json.dumps(LABELS))
        config.write(f'\nparameters {{ key: "labels" value {{ string_value: {labels} }} }}')
    add("short", ["label"], "ant\nbee\n")
    # More than ModelConfig shows.
    add("large", ["label", "scores"], "\n".join([*LABELS, *(f"{i:01000}" for i in range(1100))]))
    return serve(graphs.folder).address


@pytest.fixture
def connect(address):
    clients = []

    def connected(model, **options):
        clients.append(Client(address, model, deadline_s=20, **options))
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


@pytest.mark.parametrize("model", ["both", "scores_only", "other_name", "in_parameters"])
def test_the_classes_of_any_labelled_output_are_named(connect, model):
    names = connect(model).predict(X, names=True)
    assert names.dtype.kind == "U"
    assert names.tolist() == WANTED


@pytest.mark.parametrize("model", ["both", "large"])
def test_scores_are_named_by_their_best(connect, model):
    assert connect(model).predict(X, "scores", names=True).tolist() == WANTED
    assert connect(model, output="scores").predict(X, names=True).tolist() == WANTED


@pytest.mark.parametrize("model", ["both", "large"])
def test_more_rows_than_a_request_takes_are_named_too(connect, model):
    client = connect(model)
    names = client.predict(np.tile(X, (10, 1)), "scores", names=True)
    assert names.tolist() == 10 * WANTED
    assert client.predict(np.empty((0, FEATURES), np.float32), "scores", names=True).tolist() == []


def test_one_row_has_one_name(connect):
    assert connect("both").predict(X[1], names=True).tolist() == ["ant"]


@pytest.mark.parametrize(
    ("model", "output", "reason"),
    [
        ("unlabelled", None, r"output 'label' .*label_filename: \"labels.txt\""),
        ("scores_only", "label", r"output 'label' .* has no labels"),
        ("both", "nothing", r"\['label', 'scores'\], but no 'nothing'"),
        ("large", "label", "does not return its lines; expected scores"),
        ("short", None, "class 2 of output 'label' has no label"),
    ],
)
def test_classes_that_cannot_be_named_say_why(connect, model, output, reason):
    with pytest.raises(UsageError, match=reason):
        connect(model).predict(X, output, names=True)


def run(address, model, folder, *options):
    np.save(folder / "x.npy", X)
    words = ("predict", "--address", address, "--model", model, "--input", folder / "x.npy")
    return in_process.run(main, *words, *options)


def test_the_command_prints_names(address, tmp_path):
    done = run(address, "both", tmp_path, "--names")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == WANTED


def test_the_command_writes_names(address, tmp_path):
    path = tmp_path / "names.npy"
    assert run(address, "both", tmp_path, "--names", "--out", path).returncode == 0
    assert np.load(path, allow_pickle=False).tolist() == WANTED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "output 'label' of model 'unlabelled' has no labels"),
        (
            ("--output", "label", "--output", "scores", "--out", "y.npz"),
            "expected one with --names",
        ),
    ],
)
def test_the_command_refuses_in_one_line(address, tmp_path, options, reason):
    done = run(address, "unlabelled", tmp_path, "--names", *options)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert reason in line
