"""`python -m client predict` with any model: inputs by name, outputs by name, files and lines."""

import numpy as np
import pytest
from onnx import helper

from measure.__main__ import main

A = np.arange(40, dtype=np.float32).reshape(20, 2)
B = A[::-1].copy()


@pytest.fixture(scope="module")
def address(serve, graphs):
    row = ("float32", ["batch", 2])
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["file"]),
    ]
    graphs.add("two", nodes, {"a": row, "b": row}, {"sum": row, "file": row})
    graphs.add("one", [helper.make_node("Neg", ["x"], ["y"])], {"x": row}, {"y": row})
    text = ("string", ["batch"])
    graphs.add("text", [helper.make_node("Identity", ["x"], ["y"])], {"x": text}, {"y": text})
    return serve(graphs.folder, max_batch_rows=8).address


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "b.npy", B)
    np.save(tmp_path / "x=a.npy", A)
    np.save(tmp_path / "none.npy", A[:0])
    np.save(tmp_path / "text.npy", np.array(["one", "naïve"]))
    return tmp_path


@pytest.fixture
def predict(address, files, monkeypatch):
    """Run the command in the folder of the files; its exit code."""
    monkeypatch.chdir(files)

    def run(*words):
        return main(["predict", "--address", address, *words])

    return run


def lines(rows):
    return "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist())


def test_the_only_output_needs_no_name(predict, capsys):
    assert predict("--model", "one", "--input", "a.npy") == 0
    assert capsys.readouterr().out == lines(-A)


def test_an_input_may_be_named(predict, capsys):
    assert predict("--model", "one", "--input", "x=b.npy") == 0
    assert capsys.readouterr().out == lines(-B)


def test_a_file_with_an_equals_sign_says_where_it_lies(predict, capsys):
    assert predict("--model", "one", "--input", "./x=a.npy") == 0
    assert capsys.readouterr().out == lines(-A)


def test_several_inputs_and_one_output(predict, files):
    words = ("--model", "two", "--input", "b=b.npy", "--input", "a=a.npy", "--output", "file")
    assert predict(*words, "--out", "out.npy") == 0
    np.testing.assert_array_equal(np.load(files / "out.npy"), A - B)


def test_several_outputs_go_to_one_file(predict, files):
    words = ["--model", "two", "--input", "a=a.npy", "--input", "b=b.npy"]
    words += ["--output", "sum", "--output", "file"]
    assert predict(*words, "--out", "out.npz") == 0
    with np.load(files / "out.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["file", "sum"]
        np.testing.assert_array_equal(archive["sum"], A + B)
        np.testing.assert_array_equal(archive["file"], A - B)


def test_text_goes_in_and_out(predict, files, capsys):
    assert predict("--model", "text", "--input", "text.npy") == 0
    assert capsys.readouterr().out == "one\nnaïve\n"
    assert predict("--model", "text", "--input", "text.npy", "--out", "out.npy") == 0
    assert np.load(files / "out.npy", allow_pickle=False).tolist() == ["one", "naïve"]


def test_a_file_without_rows_gives_none(predict, files, capsys):
    assert predict("--model", "one", "--input", "none.npy") == 0
    assert capsys.readouterr().out == ""
    assert predict("--model", "one", "--input", "none.npy", "--out", "out.npy") == 0
    assert np.load(files / "out.npy").shape == (0, 2)


TWO = ["--model", "two", "--input", "a=a.npy", "--input", "b=b.npy"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (TWO, "has outputs ['sum', 'file'], none of them 'label'"),
        ([*TWO, "--output", "none"], "'none'"),
        ([*TWO, "--output", "sum", "--output", "sum"], "--output names sum, sum"),
        ([*TWO, "--output", "sum", "--output", "file"], "expected --out FILE.npz"),
        (
            [*TWO, "--output", "sum", "--output", "file", "--out", "o.npy"],
            "expected --out FILE.npz",
        ),
        (["--model", "two", "--input", "a.npy", "--output", "sum"], "has inputs ['a', 'b']"),
        (["--model", "one", "--input", "a.npy", "--input", "b.npy"], "twice without a name"),
        (["--model", "one", "--input", "x=a.npy", "--input", "x=b.npy"], "names 'x' twice"),
        (["--model", "one", "--input", "x=a.npy", "--input", "b.npy"], "with and without a name"),
        (["--model", "one", "--input", "z=a.npy"], "got inputs ['z']; the model has inputs ['x']"),
        (["--model", "one", "--input", "=a.npy"], "has no name before the ="),
        (["--model", "one", "--input", "text.npy"], "input 'x' has dtype <U5"),
        (["--model", "one", "--input", "missing.npy"], "missing.npy"),
    ],
)
def test_what_does_not_go_together_is_one_line(predict, files, words, says, capsys):
    assert predict(*words) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not list(files.glob("o.*"))
