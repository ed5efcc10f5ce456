import numpy as np
import pytest

from model.__main__ import main
from model.export import export
from model.weights import from_seed

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)


def refused(capsys, *words):
    """Run a command that is refused; its one line."""
    assert main(list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_pointer_in_place_of_a_graph_is_named(tmp_path, capsys, command):
    path = export(tmp_path, "m", from_seed(2, 3, 0), "float32")
    path.write_text(POINTER)
    assert f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull`" in refused(
        capsys, command, tmp_path
    )


def test_a_pointer_in_place_of_weights_beside_a_graph_is_named(tmp_path, capsys):
    path = export(tmp_path, "m", from_seed(2, 3, 0), "float32", inline_limit_bytes=0)
    (data,) = path.parent.glob("*.data")
    data.write_text(POINTER)
    assert f"{data} is a Git LFS pointer" in refused(capsys, "verify", tmp_path)
    # The graph itself is there, and can be looked at.
    assert main(["inspect", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--weights", "w.npy"),
        ("--weights", "w.npz"),
        ("--weights", "w.safetensors"),
        ("--from", "estimator.joblib"),
    ],
)
def test_a_pointer_in_place_of_what_is_exported_is_named(tmp_path, capsys, option, name):
    file = tmp_path / name
    file.write_text(POINTER)
    said = refused(capsys, "export", "--out", tmp_path / "models", option, file)
    assert f"{file} is a Git LFS pointer" in said


def test_files_of_a_few_bytes_are_no_pointers(tmp_path):
    file = tmp_path / "w.npy"
    np.save(file, np.ones((1, 1)))
    assert main(["export", "--out", str(tmp_path / "models"), "--weights", str(file)]) == 0
