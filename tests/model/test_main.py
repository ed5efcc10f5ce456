import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from model.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--classes", "4", "--features", "50"]


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT, check=False
    )


def refused(capsys, *argv):
    """Return the one line of complaint of a command that must be refused."""
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"argmax-model: error: [^\n]+\n", err)
    return err


def exported(folder, *options):
    assert main(["export", "--out", str(folder), *SMALL, *map(str, options)]) == 0
    (path,) = folder.glob("*/1/model.onnx")
    return path


def test_a_model_is_exported_then_verified_from_the_shell(tmp_path):
    made = run("-m", "model", "export", "--out", tmp_path, *SMALL)
    assert (made.returncode, made.stderr) == (0, "")
    assert re.fullmatch(
        r"\S+/linear_argmax/1/model\.onnx  \[4, 50\] float32  0\.0 MiB  sha256 [0-9a-f]{12}\n",
        made.stdout,
    )
    checked = run("-m", "model", "verify", tmp_path, "--examples", 5)
    assert (checked.returncode, checked.stderr) == (0, "")
    found = dict(re.split(r"  +", line) for line in checked.stdout.splitlines())
    assert found["examples"] == "5"
    assert found["agreement"] == "100.00%"
    assert found["verdict"] == "ok"


def test_a_full_disk_is_one_line_that_leaves_the_old_model_alone(tmp_path):
    path = exported(tmp_path)
    before = path.read_bytes()
    limited = (
        "import resource, sys; from model.__main__ import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); sys.exit(main(sys.argv[1:]))"
    )
    made = run(
        "-c", limited, "export", "--out", tmp_path, *SMALL, "--seed", 1, "--dtype", "float64"
    )
    assert made.returncode == 2
    assert made.stderr == f"argmax-model: error: {path}: File too large\n"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_wrong_model_is_exit_code_1(tmp_path, capsys):
    path = exported(tmp_path)
    model = onnx.load(path)
    model.graph.node[1].op_type = "ArgMin"
    onnx.save(model, path)
    assert main(["verify", str(tmp_path)]) == 1
    assert "wrong labels  256\n" in capsys.readouterr().out


def test_a_tampered_weight_is_exit_code_1(tmp_path, capsys):
    path = exported(tmp_path)
    model = onnx.load(path)
    raw = bytearray(model.graph.initializer[0].raw_data)
    raw[0] ^= 1
    model.graph.initializer[0].raw_data = bytes(raw)
    onnx.save(model, path)
    assert main(["verify", str(path)]) == 1
    assert "W: sha256     MISMATCH\n" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_weights_from_a_file_bring_their_own_size(tmp_path, capsys, suffix):
    w = np.arange(12.0).reshape(3, 4)
    file = tmp_path / f"w.{suffix}"
    np.save(file, w) if suffix == "npy" else np.savez(file, W=w)
    out = ["--out", str(tmp_path / "models"), "--dtype", "float64", "--name", "own"]
    assert main(["export", *out, "--weights", str(file)]) == 0
    assert "/own/1/model.onnx  [3, 4] float64 " in capsys.readouterr().out
    assert main(["export", *out, "--weights", str(file), "--classes", "3"]) == 0
    assert main(["verify", str(tmp_path / "models")]) == 0
    assert "W: seed       not recorded\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--classes", 64, "has 3 for --classes, expected 64"),
        ("--features", 5, "has 4 for --features, expected 5"),
        ("--seed", 0, "got --seed 0 with --weights, expected one of them"),
    ],
)
def test_options_that_contradict_the_weights_are_refused(tmp_path, capsys, option, value, message):
    np.save(tmp_path / "w.npy", np.ones((3, 4)))
    weights = ["--weights", tmp_path / "w.npy"]
    assert message in refused(capsys, "export", "--out", tmp_path, *weights, option, value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--classes", "0", "got 0, expected an integer of 1 or more"),
        ("--features", "-3", "got -3, expected an integer of 1 or more"),
        ("--features", "many", "got 'many', expected an integer of 1 or more"),
        ("--seed", "-1", "got -1, expected an integer of 0 or more"),
        ("--dtype", "float16", "invalid choice: 'float16'"),
        ("--name", "a/b", "name is 'a/b'"),
        ("--weights", "nowhere.npy", "nowhere.npy: No such file or directory"),
        ("--bogus", "1", "unrecognized argument --bogus"),
    ],
)
def test_bad_values_are_refused(tmp_path, capsys, option, value, message):
    arguments = ["export", "--out", tmp_path / "out", *SMALL, f"{option}={value}"]
    assert message in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    err = refused(capsys, "export", "--out", tmp_path / "file", *SMALL)
    assert "Not a directory" in err


def test_a_missing_model_is_refused(tmp_path, capsys):
    assert "nowhere does not exist" in refused(capsys, "verify", tmp_path / "nowhere")
    assert "holds no model" in refused(capsys, "verify", tmp_path)


def test_no_command_is_refused(capsys):
    assert "required: COMMAND" in refused(capsys)


@pytest.mark.parametrize("command", [["export"], ["verify"]])
def test_help_shows_every_default(capsys, command):
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = {"export": ("linear_argmax", "64", "262144", "0", "float32"), "verify": ("256", "1")}
    for default in defaults[command[0]]:
        assert f"(default: {default})" in text
