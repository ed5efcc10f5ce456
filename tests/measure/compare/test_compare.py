import json
import subprocess
import sys
from pathlib import Path

import grpc
import in_process
import pytest

from measure.__main__ import main
from measure.compare import axes
from measure.compare import record as provider_record
from measure.compare.measure import labels
from measure.core.record import read
from server.errors import StartError
from server.onnx import provider_library
from server.onnx.execution_provider import OPENVINO, ExecutionProvider

ROOT = Path(__file__).resolve().parents[3]
SIZES = (1, 4, 32)
SMALL = ["--features", "512", "--batch-sizes", ",".join(map(str, SIZES)), "--threads", "1"]
QUICK = [*SMALL, "--rounds", "3", "--starts", "2"]
FILES = {"compare.json", "compare.png", "compare.html"}


def run(folder, *words):
    """Run a comparison as a process of its own; it, and its record."""
    done = subprocess.run(
        [sys.executable, "-m", "client", "compare", "--out", folder, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    path = folder / "compare.json"
    return done, json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope="module")
def with_itself(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return folder, *run(folder, "--ep", "cpu", "--ep", "cpu", *QUICK)


def test_every_provider_is_measured_everywhere(with_itself):
    folder, done, content = with_itself
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} >= FILES
    for name in FILES:
        assert str(folder / name) in done.stdout
    measured = read(content, provider_record.CompareRecord).measured
    assert [provider.label for provider in measured.providers] == ["cpu", "cpu #2"]
    assert measured.modes == ["local", "stream"]
    assert measured.batch_sizes == list(SIZES)
    assert len(measured.cells) == 2 * 2 * len(SIZES)
    for cell in measured.cells:
        assert len(cell.rounds_ns) == 3
        assert min(cell.rounds_ns) > 0
        assert cell.agreement == 1
        assert cell.point.errors == 0
        assert cell.point.rows >= 3 * cell.point.batch_size
    for provider in measured.providers:
        assert len(provider.start_ups_ns) == 2
        assert provider.start_up_ns > 0
        assert provider.server_peak_rss_bytes > 2**20


def test_too_few_rounds_find_no_difference_and_say_why(with_itself):
    _, done, content = with_itself
    assert {verdict["verdict"] for verdict in content["verdicts"]} == {"no difference"}
    assert "local: no difference at 1, 4, 32" in done.stdout
    assert "3 rounds are too few to claim a difference" in done.stdout


def test_the_record_carries_what_makes_the_run_again(with_itself):
    folder, _, content = with_itself
    settings = content["settings"]
    assert settings["ep"] == ["cpu", "cpu"]
    assert (settings["rounds"], settings["starts"], settings["threads"]) == (3, 2, 1)
    assert content["environment"]["versions"]["grpcio"] == grpc.__version__
    assert str(folder) in content["environment"]["command_line"]
    assert {line["mode"] for line in content["lines"]} == {"local", "stream"}
    assert len(content["crossovers"]) == 2


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("stream", ["instances=1,2"]),
        ("local", ["graph-optimization=all,off", "mem-pattern=off"]),
    ],
)
def test_options_are_compared_and_named(tmp_path, mode, options):
    chosen = [word for option in options for word in ("--option", option)]
    words = ["--ep", "cpu", *chosen, "--modes", mode, "--rounds", "3", "--starts", "1", *SMALL]
    done = in_process.run(main, "compare", "--out", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "compare.json").read_text())
    providers = read(content, provider_record.CompareRecord).measured.providers
    name, _, values = options[0].partition("=")
    common = options[1:]
    assert [provider.options for provider in providers] == [
        (f"{name}={value}", *common) for value in values.split(",")
    ]
    assert content["settings"]["option"][0] == [f"{name}={value}" for value in values.split(",")]
    page = (tmp_path / "compare.html").read_text()
    for provider in providers:
        assert provider.label == " ".join(("cpu", *provider.options))
        assert provider.label in page
        assert " ".join(done.stdout.split()).count(provider.options[0])


def test_options_of_a_contestant_reach_its_session_and_its_server():
    values = [axes.axis(text)[0] for text in ("threads=3", "execution-mode=parallel")]
    contestant = axes.Contestant("cpu", tuple(values))
    assert contestant.flags == ["--threads", "3", "--execution-mode", "parallel"]
    assert contestant.session.execution_mode == "parallel"
    assert contestant.threads(1) == 3
    assert axes.Contestant("cpu").threads(1) == 1


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """One mode, with a limit that is broken whatever the machine does.

    Nothing is a millionth of itself.
    """
    folder = tmp_path_factory.mktemp("limited")
    limit = ["--max-slowdown", "0.000001", "--require-agreement", "1"]
    words = ["--ep", "cpu", "--ep", "cpu", "--modes", "local", "--rounds", "3", "--starts", "1"]
    done = in_process.run(main, "compare", "--out", folder, *words, *limit, *SMALL)
    return folder, done, json.loads((folder / "compare.json").read_text())


def test_one_mode_needs_no_server(limited):
    _, _, content = limited
    assert read(content, provider_record.CompareRecord).measured.modes == ["local"]
    assert content["providers"][0]["start_ups_ns"] == []


def test_a_provider_is_held_against_itself(tmp_path, capsys):
    words = ["compare", "--ep", "cpu", "--aa", "2", "--out", str(tmp_path), *SMALL]
    # Whether the machine is quiet is not what is tested.
    assert main([*words, "--modes", "local", "--rounds", "10", "--starts", "1"]) in (0, 1)
    content = json.loads((tmp_path / "compare-aa.json").read_text())
    assert content["answer"] in capsys.readouterr().out
    assert [one["could_differ"] for one in content["runs"]] == [True, True]
    differing = sum(one["differs"] for one in content["runs"])
    assert content["answer"] == f"A/A: no difference in {2 - differing} of 2 runs"
    for one in content["runs"]:
        assert [pair["provider"] for pair in one["pairs"]] == ["cpu #2"] * len(SIZES)
        assert [pair["ratio"]["pairs"] for pair in one["pairs"]] == [10] * len(SIZES)


def test_a_broken_limit_is_one_line_and_exit_code_1(limited):
    folder, done, content = limited
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line.startswith("limit broken: local, batch size ")
    assert "cpu #2 takes" in line
    assert line.endswith("(and 2 more)")
    assert len(content["broken_limits"]) == 3
    assert "limit broken" in (folder / "compare.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--ep"),
        (["--ep", "cpu"], "got one --ep, cpu, expected at least two"),
        (["--ep", "cpu", "--ep", "cpu", "--modes", "unary"], "expected some of local,stream"),
        (["--ep", "cpu", "--option", "instances=1"], "got one --ep, cpu, expected at least two"),
        (["--ep", "cpu", "--option", "instances=1,2"], "expected --modes stream"),
        (["--ep", "cpu", "--option", "models=a,b"], "expected NAME=VALUE[,VALUE...], with one of"),
        (["--ep", "cpu", "--option", "mem-arena"], "got 'mem-arena', expected NAME=VALUE"),
        (["--ep", "cpu", "--option", "instances=1,0"], "got '0' for instances, expected an int"),
        (["--ep", "cpu", "--ep", "cpu", "--rounds", "0"], "expected an integer of at least 1"),
        (["--ep", "cpu", "--ep", "cpu", "--rounds", "2"], "--starts 4 is over --rounds 2"),
        (["--ep", "cpu", "--aa", "2", "--rounds", "9"], "got --rounds 9, expected at least 10"),
        (
            ["--ep", "cpu", "--ep", "cpu", "--require-agreement", "2"],
            "expected a share from 0 to 1",
        ),
        (["--ep", "cpu", "--ep", "cpu", "--max-slowdown", "no"], "expected a factor over 0"),
        (["--ep", "cpu", "--ep", "cpu", "--examples", "8"], "batch size 1024 is over --examples 8"),
    ],
)
def test_usage(words, said, tmp_path, capsys):
    assert main(["compare", "--out", str(tmp_path / "out"), *words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_provider_is_refused_in_one_line(tmp_path, capsys):
    words = ["--ep", "cpu", "--ep", "abacus", "--out", str(tmp_path)]
    assert main(["compare", *words, *QUICK]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "abacus" in line
    assert not (tmp_path / "compare.json").exists()


def test_the_same_provider_again_is_numbered():
    assert labels(["cpu", "x", "cpu", "cpu", "x"]) == ["cpu", "x", "cpu #2", "cpu #3", "x #2"]


def test_openvino_agrees_in_full_precision_and_nearly_in_half(tmp_path):
    try:
        provider_library.require(ExecutionProvider(OPENVINO))
    except StartError as error:
        pytest.skip(str(error))
    specs = ["cpu", "openvino:precision=f32", "openvino:precision=bf16"]
    words = [word for spec in specs for word in ("--ep", spec)]
    done, content = run(tmp_path, *words, *QUICK)
    assert done.returncode == 0, done.stderr
    measured = read(content, provider_record.CompareRecord).measured
    assert [provider.spec for provider in measured.providers] == specs
    for cell in measured.cells:
        assert cell.point.errors == 0
        assert cell.agreement == 1 or (cell.provider == specs[2] and cell.agreement > 0.8)
