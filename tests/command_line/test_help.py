import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line.extras import MissingExtra, imported, optional
from measure.__main__ import PROGRAMS as OWN_PARSERS
from measure.__main__ import _parser as client_parser
from measure.__main__ import main as client_main
from model.__main__ import _parser as model_parser

ROOT = Path(__file__).resolve().parents[2]
# What the extras install and nothing else needs.
EXTRAS = {
    "grpc_tools",
    "h2",
    "hpack",
    "hyperframe",
    "hypothesis",
    "joblib",
    "mlperf_loadgen",
    "onnxruntime_ep_openvino",
    "safetensors",
    "skl2onnx",
    "sklearn",
    "tritonclient",
}
# These run in environments of other servers, which have none of ours.
ELSEWHERE = {
    "measure.peers.inside.plain_grpcio",
    "measure.peers.inside.kserve_server",
    "measure.peers.inside.tritonclient_driver",
}
GUARD = re.compile(r'^if __name__ == "__main__":$', re.MULTILINE)
# Scripts that end where they are shown to, without an option to explain.
NO_PROGRAMS = {"tests", "docs"}

# All in one process: what takes time is to import numpy, gRPC and the like.
HELP = """
import contextlib, importlib.abc, io, json, runpy, sys, traceback

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Hidden())
told = {{}}
for module in {modules}:
    sys.argv = [module, "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = "it came to its end"
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            code = traceback.format_exc()
    told[module] = code, out.getvalue()
print(json.dumps(told))
"""


def programs():
    """Names of all modules that can be run."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        hidden = any(part.startswith(".") for part in parts)
        if hidden or parts[0] in NO_PROGRAMS or not GUARD.search(path.read_text()):
            continue
        yield ".".join(parts[:-1] if parts[-1] == "__main__" else parts)


PROGRAMS = sorted(set(programs()) - ELSEWHERE)
SKLEARN_EXAMPLES = {"examples.sklearn.digits", "examples.sklearn.wide_text"}


@pytest.fixture(scope="module")
def explained():
    """Exit code and text of each program's --help, where no extra is installed."""
    modules = [name for name in PROGRAMS if name not in SKLEARN_EXAMPLES]
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(hidden=EXTRAS, modules=modules)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_programs_are_found():
    assert {"client", "server", "model", "soak", "protos.generate"} <= set(PROGRAMS)
    assert len(PROGRAMS) > 15


@pytest.mark.parametrize("module", [name for name in PROGRAMS if name not in SKLEARN_EXAMPLES])
def test_every_program_explains_itself_without_any_extra(module, explained):
    code, text = explained[module]
    assert code == 0
    assert re.search("usage:|python -m", text)


def parsers():
    for program, parser in (("client", client_parser()), ("model", model_parser())):
        yield program, None, parser
        (commands,) = (
            action for action in parser._actions if hasattr(action, "choices") and action.choices
        )
        for name, one in commands.choices.items():
            if name not in OWN_PARSERS:
                yield program, name, one


@pytest.mark.parametrize("command", OWN_PARSERS)
def test_commands_with_parsers_of_their_own_explain_themselves(command, capsys):
    with pytest.raises(SystemExit) as ended:
        client_main([command, "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: argmax-client {command} [-h]")
    assert "Exit codes: 0: done." in text


@pytest.mark.parametrize("columns", [30, 60, 80, 200])
@pytest.mark.parametrize(("program", "command", "parser"), list(parsers()))
def test_help_is_as_wide_as_the_terminal(program, command, parser, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = parser.format_help()
    assert "Exit codes: 0: done." in " ".join(text.split())
    # A word, such as a metavar, may be longer than a narrow terminal.
    assert all(len(line) <= columns or len(line.split()) < 4 for line in text.splitlines())
    if columns == 200:
        assert max(map(len, text.splitlines())) > 100


def test_commands_that_measure_say_what_becomes_of_it_when_interrupted():
    said = {
        command
        for _, command, parser in parsers()
        if "marked as partial" in " ".join(parser.format_help().split())
    }
    assert said == {"sweep", "load", "slo", "loadgen", "plan", "compare", "limits"}


def test_what_is_not_installed_is_missed_when_it_is_used():
    absent = optional("absent_package.part", "dev")
    with pytest.raises(
        MissingExtra, match=r"absent_package is not installed; run `pip install -e '\.\[dev\]'`"
    ):
        absent.anything()


def test_what_is_installed_is_what_it_is():
    assert optional("json", "dev").loads("1") == 1
    assert imported("json", "dev").loads("1") == 1
