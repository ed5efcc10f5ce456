import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# As in an installation without the extras: finding them fails as if they were not there.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
from model.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
OPTIONAL = ("joblib", "safetensors", "scipy", "skl2onnx", "sklearn")


def without(hidden, *argv):
    command = [sys.executable, "-c", HIDE.format(hidden=set(hidden)), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("hidden", "option", "file", "extra"),
    [
        (["safetensors"], "--weights", "w.safetensors", "safetensors"),
        (["joblib"], "--from", "e.joblib", "sklearn"),
        (["skl2onnx"], "--from", "e.joblib", "sklearn"),
        (["sklearn"], "--from", "e.joblib", "sklearn"),
    ],
)
def test_what_an_extra_installs_is_asked_for_by_name(tmp_path, hidden, option, file, extra):
    (tmp_path / file).touch()
    ran = without(hidden, "export", "--out", tmp_path, option, tmp_path / file)
    assert (ran.returncode, ran.stdout) == (2, "")
    user = option if extra == "sklearn" else tmp_path / file
    assert ran.stderr == (
        f"argmax-model: error: {user} needs the extra [{extra}]: run `pip install -e '.[{extra}]'` "
        f"in the folder of argmax-serving (no module named {hidden[0]!r})\n"
    )


def test_everything_else_needs_no_further_extra(tmp_path):
    small = ["--classes", 2, "--features", 3]
    for argv in (
        ["export", "--out", tmp_path, *small],
        ["verify", tmp_path],
        ["inspect", tmp_path],
    ):
        ran = without(OPTIONAL, *argv)
        assert (ran.returncode, ran.stderr) == (0, "")
