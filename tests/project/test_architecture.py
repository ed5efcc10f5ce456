import ast
import functools
import importlib.metadata
import platform
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = PYPROJECT["tool"]["setuptools"]["packages"]
OURS = {package for package in PACKAGES if "." not in package}
GENERATED = "_pb2.py"
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if not path.name.endswith(GENERATED)
)
SERVER = [path for path in MODULES if path.is_relative_to(ROOT / "server")]
EDGE = (ROOT / "server" / "rpc", ROOT / "server" / "app" / "endpoint.py")
MOST_LINES = 400
NOT_INSTALLED = {"soak", "tests"}
MOST_FILES = 16
MOST_ENTRIES_OF_SERVER = 8


# What is installed with it.

NATIVE_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ")
# Paths of Rust's own library, then the compiler's note. `rustc` alone is not enough: among the
# words that brotli carries, `trust` comes before `canon`.
RUST_TRACES = (b"/rustc/", b"rustc version ")
CHUNK_BYTES = 2**20


def requirements(name):
    """Requirements of a distribution; of this one as the tree has them, however it is installed."""
    if name != PROJECT["name"]:
        yield from map(Requirement, importlib.metadata.requires(name) or ())
        return
    yield from map(Requirement, PROJECT["dependencies"])
    for extra, texts in PROJECT["optional-dependencies"].items():
        for requirement in map(Requirement, texts):
            own = "" if requirement.marker is None else f"({requirement.marker}) and "
            requirement.marker = Marker(f"{own}extra == '{extra}'")
            yield requirement


def runtime_closure(*extras):
    """Names of the distributions that installing this one with extras brings along."""
    found = set()
    left = [(PROJECT["name"], frozenset(extras))]
    seen = set()
    while left:
        name, extras = left.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for needed in requirements(name):
            choices = extras or {""}
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in choices
            ):
                left.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found


def native_files(distribution):
    """Its files that are native code, told by how they begin."""
    for file in importlib.metadata.files(distribution) or ():
        path = Path(file.locate())
        if path.suffix not in (".py", ".pyi", ".pyc") and path.is_file():
            with path.open("rb") as stream:
                if stream.read(4).startswith(NATIVE_MAGIC):
                    yield path


def from_rust(path):
    """Whether a file holds what rustc leaves in all it builds, read a piece at a time."""
    kept = b""
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK_BYTES):
            piece = kept + piece
            if any(trace in piece for trace in RUST_TRACES):
                return True
            kept = piece[1 - max(map(len, RUST_TRACES)) :]
    return False


def built_with_rust(distribution):
    return [path for path in native_files(distribution) if from_rust(path)]


def test_nothing_built_with_rust_is_needed_by_all():
    closure = runtime_closure("all")
    assert {"onnxruntime", "grpcio", "onnx", "pillow", "scikit-learn", "scipy"} <= closure
    # It has no wheel for Linux on ARM.
    assert ("mlcommons-loadgen" in closure) == (platform.machine() != "aarch64")
    assert "ruff" not in closure
    native = {name: list(native_files(name)) for name in closure}
    assert native["numpy"]
    assert native["onnxruntime"]
    assert native["grpcio"]
    assert [path for name in sorted(closure) for path in built_with_rust(name)] == []


def within(extra):
    """Extras that one is made of, itself included."""
    found = {extra}
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found = found.union(*map(within, requirement.extras))
    return found


def test_all_leaves_out_what_does_not_install_everywhere_without_rust():
    every = set(PROJECT["optional-dependencies"])
    assert every - within("all") == {"cuda", "dev", "openvino", "ray", "safetensors"}
    assert within("all") | {"safetensors"} <= within("dev")


def test_every_extra_serves():
    assert all("server" in within(extra) for extra in PROJECT["optional-dependencies"])


def test_only_an_extra_brings_safetensors_which_is_built_with_rust():
    assert "safetensors" in runtime_closure("safetensors")
    assert built_with_rust("safetensors")


def test_a_client_installs_little():
    assert runtime_closure() == {PROJECT["name"], "hpack", "ml-dtypes", "numpy", "protobuf"}


# The extra that installs what a folder imports, as docs/architecture.md says; of the longest path.
FOLDERS = {
    "client": None,
    "command_line": "server",
    "measure": "measure",
    "measure/load/export/parquet_file.py": "parquet",
    "model": "server",
    "model/from_sklearn": "sklearn",
    "model/linear_argmax.py": "sklearn",
    "protos": None,
    "rowwise": "server",
    "server": "server",
    "server/app/observers/otlp.py": "otel",
    "server/app/observers/spans.py": "otel",
    "transport": None,
    "transport/serving/grpc_context.py": "server",
    "transport/serving/grpc_handlers.py": "server",
}
# These run in the environments of other servers.
ELSEWHERE = ROOT / "measure" / "peers" / "inside"


@functools.cache
def distributions_of_modules():
    return importlib.metadata.packages_distributions()


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_imports_its_extra_installs(folder):
    extra = FOLDERS[folder]
    closure = runtime_closure(*([extra] if extra else []))
    of_modules = distributions_of_modules()
    below = [ROOT / other for other in FOLDERS if other.startswith(f"{folder}/")]
    for path in (path for path in MODULES if path.is_relative_to(ROOT / folder)):
        if path.name == "generate.py" or any(map(path.is_relative_to, [*below, ELSEWHERE])):
            continue
        for name in imported_packages(path) - sys.stdlib_module_names - OURS:
            brought_by = {canonicalize_name(one) for one in of_modules[name]}
            assert brought_by & closure, f"{path} imports {name}"


def test_the_extra_of_every_folder_is_known_and_documented():
    assert {folder.partition("/")[0] for folder in FOLDERS} == OURS
    text = (ROOT / "docs" / "architecture.md").read_text()
    for folder, extra in FOLDERS.items():
        assert re.search(
            rf"^\|.*`{folder}(?:/`|`).*\| `?\[?{extra or 'none'}\]?`? ", text, re.MULTILINE
        )


@pytest.mark.parametrize("name", ["ruff", "grimp"])
def test_what_is_built_with_rust_is_found(name):
    assert built_with_rust(name)


@pytest.mark.parametrize("trace", RUST_TRACES)
@pytest.mark.parametrize("before", [0, CHUNK_BYTES - 5, CHUNK_BYTES - 1, CHUNK_BYTES])
def test_traces_of_rust_are_found_across_pieces(tmp_path, trace, before):
    path = tmp_path / "file"
    path.write_bytes(b"x" * before + trace + b"x")
    assert from_rust(path)
    path.write_bytes(b"x" * before + trace[:-1] + b"x")
    assert not from_rust(path)


# What the folders hold.


def test_the_packages_are_the_folders():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")}
    assert folders - NOT_INSTALLED == OURS
    holding = {path.parent for package in OURS for path in (ROOT / package).rglob("*.py")}
    # What is not named is not installed.
    assert set(PACKAGES) == {".".join(path.relative_to(ROOT).parts) for path in holding}


def begins_with_one_line(path):
    first, _, rest = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")
    return first.endswith(".") and (rest == "" or rest.startswith("\n"))


def test_a_docstring_says_in_one_line_what_each_module_is_for():
    assert [path for path in MODULES if not begins_with_one_line(path)] == []


@pytest.mark.parametrize(
    "text", ["x = 1\n", '"""What it does"""\n', '"""What\nit does."""\n', '"""One. Two.\nThree."""']
)
def test_other_docstrings_are_found(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(text)
    assert not begins_with_one_line(path)


def test_no_folder_holds_more_than_a_reader_takes_in():
    folders = {path.parent for path in MODULES}
    assert [each for each in folders if len(list(each.glob("*.py"))) > MOST_FILES] == []


def test_the_rooms_of_the_server_are_few():
    entries = {path.name for path in (ROOT / "server").iterdir()} - {"__init__.py", "__pycache__"}
    assert len(entries) <= MOST_ENTRIES_OF_SERVER


def test_no_module_is_long():
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


# Who may use what in the server.


def imports(path):
    """Names of the modules that one imports, wherever in the file, as `from a import b` -> a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def imported_packages(path):
    return {name.partition(".")[0] for name in imports(path)}


def process_inputs(path):
    """Uses of the environment and the arguments of the process, as `os.environ`.

    What is set for a library by `os.environ.setdefault` is not read here.
    """
    wanted = {"os": {"environ", "environb", "getenv"}, "sys": {"argv", "orig_argv"}}
    found = set()
    tree = ast.parse(path.read_text())
    writes = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "setdefault"
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node not in writes
            and isinstance(node.value, ast.Name)
            and node.attr in wanted.get(node.value.id, ())
        ):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names} & wanted.get(node.module, set())
            found.update(f"{node.module}.{name}" for name in names)
    return found


def test_only_the_edge_of_the_server_knows_grpc():
    grpc = {"grpc", "grpc_health", "grpc_reflection"}
    inside = (path for path in SERVER if not any(map(path.is_relative_to, EDGE)))
    assert [path for path in inside if imported_packages(path) & grpc] == []


def test_the_edge_of_the_server_is_found_to_know_grpc():
    edge = [ROOT / "server" / name for name in ("app/endpoint.py", "rpc/status.py")]
    assert all("grpc" in imported_packages(path) for path in edge)


def test_only_the_command_line_reads_environment_or_arguments():
    others = (path for path in SERVER if path.name != "__main__.py")
    assert [path for path in others if process_inputs(path)] == []


def test_reading_the_environment_is_found():
    assert "os.environ" in process_inputs(ROOT / "server" / "__main__.py")


@pytest.mark.parametrize(
    "line",
    ["import os; os.getenv('A')", "from os import environ", "import sys\nprint(sys.argv)"],
)
def test_each_way_to_read_them_is_found(tmp_path, line):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert process_inputs(path)


def test_one_module_imports_onnx_runtime_and_turns_its_telemetry_off():
    others = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "soak").rglob("*.py"), *MODULES]
    importing = {path for path in others if "onnxruntime" in imported_packages(path)}
    assert {path for path in importing if not path.is_relative_to(ELSEWHERE)} == {
        ROOT / "command_line" / "onnx_runtime.py"
    }
    for path in importing:
        before, _, _ = path.read_text().partition("import onnxruntime as")
        assert 'os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")' in before, path
