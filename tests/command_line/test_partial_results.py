import importlib.util
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from measure.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
MODEL = ["--features", "64", "--classes", "4", "--threads", "1"]
SHORT = ["--warm-up-s", "0.1", "--window-s", "0.2", "--max-windows", "3"]
TWO_PROVIDERS = ["--ep", "cpu", "--ep", "cpu", "--batch-sizes", "1", "--modes", "local"]
# Enough requests for a p99 within a second.
FAST = ["--start", "500"]
PATIENCE_S = 90

needs_loadgen = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None,
    reason="the extra [loadgen] is not installed",
)

# Each command goes on for much longer than it takes to measure what is waited for.
COMMANDS = {
    "sweep": (["client", "sweep", *MODEL, "--repeats", "3"], "local     1", "sweep.json"),
    "load": (
        ["client", "load", *MODEL, *SHORT, "--concurrency", ",".join(["1"] * 99)],
        "unary, closed 1 ",
        "load.json",
    ),
    "slo": (
        [
            "client",
            "slo",
            *MODEL,
            *SHORT,
            "--p99-ms",
            "1e6",
            "--precision",
            "1e-9",
            "--start",
            "500",
        ],
        "unary, open 500/s ",
        "slo.json",
    ),
    "plan": (
        ["client", "plan", *MODEL, "--rate", "10", "--p99-ms", "50", "--seconds", "3"],
        "unary, closed 1 ",
        "plan-loads.json",
    ),
    "compare": (
        ["client", "compare", *MODEL, *TWO_PROVIDERS, "--rounds", "99", "--starts", "99"],
        ", 3 of 99",
        "compare.json",
    ),
    "limits": (["client", "limits", "--rounds", "2"], "sending over sockets", "limits.json"),
    "loadgen": (
        ["client", "loadgen", *MODEL, "--quick", "0.3", "--examples", "16"],
        "MultiStream, performance",
        "loadgen.json",
    ),
}


# All commands are interrupted in `make test-slow`.
QUICK = ("sweep",)


def marks(command):
    slow = [] if command in QUICK else [pytest.mark.slow]
    return [*slow, needs_loadgen] if command == "loadgen" else slow


def interrupted(folder, words, waited_for, number=signal.SIGINT):
    """Send a signal as a terminal does, once a line is on stderr; exit code, stdout, stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words, "--out", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # Where the tests run in the background, a shell may have them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if waited_for in line:
                break
        assert waited_for in lines[-1], lines
        started = psutil.Process(process.pid).children(recursive=True)
        # To all that the terminal has started.
        os.killpg(process.pid, number)
        out, rest = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert left == []
    return process.returncode, out, [*lines, *rest.splitlines()]


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=marks(name)) for name in COMMANDS],
)
def test_ctrl_c_keeps_what_was_measured(command, tmp_path, capsys):
    words, waited_for, name = COMMANDS[command]
    folder = tmp_path / "results"
    code, out, err = interrupted(folder, words, waited_for)
    assert code == 130, err
    *_, last = err
    assert last.startswith("argmax-client: interrupted by SIGINT after ")
    assert last.endswith(f": partial results are in {folder}")
    assert not any("Traceback" in line for line in err)
    assert str(folder / name) in out.splitlines()
    content = json.loads((folder / name).read_text())
    assert content["partial"] is True
    assert last.startswith(f"argmax-client: {content['partial_because']}: ")
    page = tmp_path / "page.html"
    assert main(["report", str(folder), "--out", str(page)]) == 0
    assert f"Partial: {content['partial_because']}." in page.read_text()
    if command in ("sweep", "load", "plan", "compare", "limits"):
        capsys.readouterr()
        assert main(["diff", str(folder), str(folder)]) == 0
        assert f"is partial: {content['partial_because']}" in capsys.readouterr().out


def test_sigterm_does_the_same(tmp_path):
    words, waited_for, name = COMMANDS["load"]
    code, _, err = interrupted(tmp_path, words, waited_for, signal.SIGTERM)
    assert code == 143, err
    assert "interrupted by SIGTERM after 1 of 99 points" in err[-1]
    assert json.loads((tmp_path / name).read_text())["partial"] is True


def test_nothing_measured_leaves_no_files(tmp_path):
    words, *_ = COMMANDS["sweep"]
    code, out, err = interrupted(tmp_path / "results", words, "starting the server")
    assert (code, out) == (130, "")
    expected = "argmax-client: interrupted by SIGINT: nothing was measured, so nothing is written"
    assert err[-1] == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_overload_keeps_whole_rounds(tmp_path):
    small = ["--classes", "64", "--features", "256", "--rows", "4", "--streams", "2"]
    words = ["client", "overload", *small, "--seconds", "0.3", "--rounds", "99"]
    code, out, err = interrupted(tmp_path / "o.json", words, "round 1 of 99")
    assert code == 130, err
    assert err[-1].startswith("argmax-client overload: interrupted by SIGINT after ")
    assert "goodput  " in out
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["partial"] is True
    rounds = content["rounds"]
    assert {len(values) for name, values in rounds.items() if name != "failed"} == {1}


@pytest.mark.parametrize(
    "command", ["sweep", *(pytest.param(name, marks=pytest.mark.slow) for name in ("load", "slo"))]
)
def test_a_point_that_is_shown_is_kept(command, tmp_path, monkeypatch, capsys):
    words, _, name = COMMANDS[command]

    def interrupt_at_a_point(progress, step):
        if step.point is not None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("measure.sweep.terminal.SweepProgress.__call__", interrupt_at_a_point)
    monkeypatch.setattr("measure.load.terminal.LoadProgress.__call__", interrupt_at_a_point)
    assert main([*words[1:], "--out", str(tmp_path)]) == 130
    assert len(json.loads((tmp_path / name).read_text())["points"]) == 1
