import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILED = ("Go", "Java", "TypeScript", "C++")
PATIENCE_S = 100


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path, tools):
    """Run the examples on a small model, with no tools on PATH but those in `tools`."""

    def run(*options):
        command = [sys.executable, "-m", "examples.run", "--out", tmp_path / "out"]
        return subprocess.run(
            [*map(str, command), "--examples", "70", "--features", "64", *options],
            cwd=ROOT,
            env=os.environ | {"PATH": str(tools), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


def test_what_has_no_toolchain_is_skipped_and_the_python_example_runs(run):
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stream   70 labels, 0 wrong" in done.stdout
    for language in COMPILED:
        assert f"{language}: skipped, there is no " in done.stdout


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("[ $1 = env ] && echo go1.99 || { echo it is broken; exit 1; }", "it is broken"),
        ("[ $1 = env ] && echo go1.99; exit 0", "No such file or directory"),
    ],
    ids=["a build that fails", "a build that builds nothing"],
)
@pytest.mark.slow
def test_what_cannot_be_built_is_a_failure(run, tools, script, said):
    go = tools / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    done = run("--only", "Go")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Go: FAILED" in done.stdout
    assert said in done.stdout


@pytest.mark.slow
def test_an_old_toolchain_is_skipped(run, tools):
    go = tools / "go"
    go.write_text("#!/bin/sh\necho go1.19.8\n")
    go.chmod(0o755)
    done = run("--only", "Go")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "Go: skipped, `go env GOVERSION` prints 'go1.19.8', expected 1.24 or newer" in done.stdout
    )


@pytest.mark.parametrize(
    ("whole", "few", "few_code", "code"),
    [
        pytest.param("70 labels, 0 wrong", "4 labels, 1 wrong", 1, 0, marks=pytest.mark.slow),
        pytest.param("69 labels, 0 wrong", "4 labels, 1 wrong", 1, 1, marks=pytest.mark.slow),
        pytest.param("70 labels, 1 wrong", "4 labels, 1 wrong", 1, 1, marks=pytest.mark.slow),
        ("70 labels, 0 wrong", "4 labels, 0 wrong", 1, 1),
        pytest.param("70 labels, 0 wrong", "4 labels, 1 wrong", 0, 1, marks=pytest.mark.slow),
    ],
    ids=["right", "leaves one out", "finds one", "overlooks one", "ends with 0 all the same"],
)
def test_a_client_is_held_to_the_labels_it_should_find(run, tools, whole, few, few_code, code):
    client = tools / "client"
    client.write_text(
        f"""#!/bin/sh
case $3 in
*few.i64) echo "stream   {few}, 9 examples/s"; exit {few_code} ;;
*) echo "stream   {whole}, 9 examples/s" ;;
esac
"""
    )
    client.chmod(0o755)
    go = tools / "go"
    # What `go build -o PROGRAM .` builds is the client above.
    go.write_text(
        f"#!/bin/sh\ncase $1 in env) echo go1.99 ;; build) /bin/ln -sf {client} $3 ;; esac\n"
    )
    go.chmod(0o755)
    done = run("--only", "Go")
    assert done.returncode == code, done.stdout + done.stderr
    assert ("Go: FAILED" in done.stdout) == bool(code)


def test_an_unknown_language_is_refused(run):
    done = run("--only", "Cobol")
    assert done.returncode == 2
    assert "got Cobol, expected some of Python, Go, Java, TypeScript, C++" in done.stdout
