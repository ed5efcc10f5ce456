"""What each example client needs, and the commands that build and run it."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
_PROBE_TIMEOUT_S = 60
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_NPM_CI = "[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that prints its version, and the oldest version that works."""

    command: Sequence[str]
    least: tuple[int, ...] = ()

    def lacking(self) -> str | None:
        """Say what is wrong with it, None if nothing is."""
        name = " ".join(self.command)
        try:
            output = subprocess.run(
                self.command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_PROBE_TIMEOUT_S,
                check=True,
            ).stdout
        except OSError:
            return f"there is no {self.command[0]}"
        except subprocess.SubprocessError:
            return f"`{name}` fails"
        output = _COLOURS.sub("", output)
        version = tuple(map(int, re.findall(r"\d+", output)[: len(self.least)]))
        if version < self.least:
            wanted = ".".join(map(str, self.least))
            return f"`{name}` prints {output.partition(chr(10))[0]!r}, expected {wanted} or newer"
        return None


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a build, and the folder that it runs in."""

    command: Sequence[str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Example:
    """A client in some language. `run` takes ADDRESS INPUTS LABELS besides."""

    language: str
    run: Sequence[str]
    build: Sequence[Step] = ()
    needs: Sequence[Tool] = ()
    get: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def lacking(self) -> str | None:
        """Say what is not there to build it, None if all is."""
        return next(filter(None, (tool.lacking() for tool in self.needs)), None)


def all_examples(out: Path, path: str) -> list[Example]:
    """Every example; what it builds goes below `out` or into ignored folders of its own.

    `path` is the PATH that they are built with.
    """
    tools = out / "bin"
    go, java, node, cpp = (EXAMPLES / name for name in ("go", "java", "node", "cpp"))
    return [
        Example("Python", (sys.executable, "-m", "examples.python.predict")),
        Example(
            "Go",
            (str(tools / "predict"),),
            (
                Step(("go", "install", "tool"), go),
                Step(("go", "generate", "."), go),
                Step(("go", "build", "-o", str(tools / "predict"), "."), go),
            ),
            (Tool(("go", "env", "GOVERSION"), (1, 24)),),
            "Go from go.dev",
            {"GOBIN": str(tools), "PATH": f"{tools}:{path}"},
        ),
        Example(
            "Java",
            ("java", "-jar", str(java / "target" / "predict.jar")),
            (Step(("mvn", "--batch-mode", "--quiet", "package"), java),),
            (
                Tool(("javac", "-version"), (17,)),
                Tool(("mvn", "-version"), (3, 6)),
            ),
            "Debian's openjdk-17-jdk and maven",
        ),
        Example(
            "TypeScript",
            ("node", str(node / "dist" / "src" / "predict.js")),
            (
                Step(("sh", "-c", _NPM_CI), node),
                Step(("npm", "run", "build"), node),
            ),
            (Tool(("node", "--version"), (20,)), Tool(("npm", "--version"))),
            "Node.js from nodejs.org",
        ),
        Example(
            "C++",
            (str(out / "cpp" / "predict"),),
            (
                Step(("cmake", "-S", str(cpp), "-B", str(out / "cpp")), ROOT),
                Step(("cmake", "--build", str(out / "cpp"), "--parallel"), ROOT),
            ),
            (
                Tool(("cmake", "--version"), (3, 18)),
                Tool(("c++", "-dumpfullversion", "-dumpversion"), (8,)),
                Tool(("protoc", "--version")),
                Tool(("pkg-config", "--modversion", "grpc++"), (1, 51)),
                Tool(("pkg-config", "--modversion", "protobuf")),
                Tool(("sh", "-c", "command -v grpc_cpp_plugin")),
            ),
            "Debian's cmake g++ pkg-config libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc",
        ),
    ]
