import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from measure.__main__ import GROUPS, parser_for
from model.__main__ import _parser as model_parser

ROOT = Path(__file__).resolve().parents[2]
CLIENT_COMMANDS = [command.name for group in GROUPS.values() for command in group]
# What [measure] does not install.
EXTRAS = {
    "grpc_tools",
    "hypothesis",
    "joblib",
    "mlperf_loadgen",
    "onnxruntime_ep_openvino",
    "safetensors",
    "skl2onnx",
    "sklearn",
    "tritonclient",
}
# These run in environments of their own: of other servers, and that of the image.
ELSEWHERE = {
    "deploy.image.build",
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
    """Exit code and text of each program's --help, where [measure] is installed and no more."""
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
def test_every_program_explains_itself_without_optional_extras(module, explained):
    code, text = explained[module]
    assert code == 0
    assert re.search("usage:|python -m", text)


def commands_of(parser):
    """Parsers of its commands by name."""
    (commands,) = (
        action for action in parser._actions if hasattr(action, "choices") and action.choices
    )
    return commands.choices


def parsers():
    yield "client", None, parser_for([])
    for name in CLIENT_COMMANDS:
        yield "client", name, commands_of(parser_for([name]))[name]
    yield "model", None, model_parser()
    for name, parser in commands_of(model_parser()).items():
        yield "model", name, parser


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_commands_explain_themselves_under_their_own_name(command):
    text = commands_of(parser_for([command]))[command].format_help()
    assert text.startswith(f"usage: argmax-client {command} [-h]")


def test_help_of_the_client_shows_each_command_in_its_group():
    sections = dict(
        section.split(":\n", 1) for section in parser_for([]).format_help().split("\n\n")[2:-1]
    )
    for group, commands in GROUPS.items():
        shown = [line.split()[0] for line in sections[group].splitlines()]
        assert shown == [command.name for command in commands]
    assert "-h, --help" in sections["options"]


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
    every = {command for program, command, _ in parsers() if program == "client" and command}
    assert said == every - {"predict", "health", "diff", "report"}
