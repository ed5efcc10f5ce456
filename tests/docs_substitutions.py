"""What is changed in documented commands before they run, what for, and which may end with 1.

This is the only place where a command of a page is not run as it is written.
"""

import re
from dataclasses import dataclass

PORT = "8001"
"""The port in the pages, and the server's own. Each page runs with a free one in its place."""

DEFAULT_ADDRESS = "ARGMAX_SERVER_ADDRESS"
"""The variable that gives a server without `--address` that port."""

LOOPBACK = {
    "0.0.0.0": "127.0.0.1",
    "HOST": "127.0.0.1",
    "10.0.0.1": "127.0.0.1",
    "10.0.0.2": "127.0.0.1",
}
"""Hosts of the pages, and what stands for them: no command sends anything beyond this machine."""

_ADDRESS = re.compile(
    r"(?<![\w.:/-])(?P<host>[\w.-]*[A-Za-z.][\w.-]*):(?P<port>\d{2,5})(?!\w|\.\d)"
)
_LOCAL_HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Substitution:
    """Each match of `pattern` in a command or a Python block becomes `replacement`."""

    pattern: str
    replacement: str
    because: str


SMALL = "a row of 4 KiB in place of 1 MiB, and few of them, go through the same code"
SHORT = "what a load takes minutes to measure is for readers; the command is the same"
CLIENT = r"\bpython -m client {}\b"

# Options are put directly behind the command, so that those of the page come later and win.
SUBSTITUTIONS = (
    Substitution(
        r"\bpython -m model export\b(?!.* --(from|features) )", r"\g<0> --features 1024", SMALL
    ),
    Substitution(r"\b262144\b", "1024", SMALL),
    Substitution(
        r"^make sweep( OUT=\S+)?",
        r"\g<0> ARGS='--features 1024 --batch-sizes 1,8 --examples 8'",
        SMALL,
    ),
    Substitution(
        CLIENT.format("(?:sweep|compare)"),
        r"\g<0> --features 1024 --batch-sizes 1,8 --examples 8",
        SMALL,
    ),
    Substitution(CLIENT.format("loadgen"), r"\g<0> --features 1024 --examples 64", SMALL),
    Substitution(r"--quick(?= |$)", "--quick 0.5", SHORT),
    Substitution(r"--scenario Offline", r"\g<0> --quick 0.5", SHORT),
    Substitution(
        CLIENT.format("(?:load|slo)"),
        r"\g<0> --features 1024 --warm-up-s 0.1 --window-s 0.1 --max-windows 3",
        SHORT,
    ),
    Substitution(r"--concurrency 1:16\b", "--concurrency 1:2", SHORT),
    Substitution(r"--rate (\d+):\d+:\d+", "--rate 400", SHORT),
    Substitution(r"--ramp 100:2000:60s", "--ramp 100:200:1s:2", SHORT),
    Substitution(r"--rate 100 --aa 20\b", "--rate 500 --aa 1", SHORT),
    Substitution(CLIENT.format("slo"), r"\g<0> --start 200 --most 200", SHORT),
    Substitution(r"--p99-ms 50\b", "--p99-ms 5000", "a busy machine would search for minutes"),
    Substitution(
        r"--tune\b",
        r"\g<0> --tune-group-rows auto --tune-queue-delays-us 0,1000"
        r" --tune-trials 4 --tune-pairs 1",
        SHORT,
    ),
    Substitution(CLIENT.format("limits"), r"\g<0> --rounds 1", SHORT),
    Substitution(r"--transport unary", r"\g<0> --scenario SingleStream", SHORT),
    Substitution(CLIENT.format("compare"), r"\g<0> --rounds 10 --starts 1", SHORT),
    Substitution(
        r"--ep openvino:precision=\w+",
        "--ep cpu",
        "OpenVINO's plugin takes Intel's processors only",
    ),
    Substitution(
        r"^make test\b", r"\g<0> ARGS=tests/protos/test_quantize.py", "this is a test of it"
    ),
    Substitution(r"^make (soak|fuzz) \w+=\d+ ARGS='", r"\g<0>--seconds 3 ", SHORT),
    Substitution(
        r"^make (soak|fuzz) \w+=\d+(?= *(#|$))", r"\g<0> ARGS='--seconds 3 --only codec'", SHORT
    ),
    Substitution(
        r"^for i in 1 2 3 4 5; do",
        "mkdir before after\nfor i in 1; do",
        "one version stands for two, the one that is installed",
    ),
)


@dataclass(frozen=True, slots=True)
class MayFail:
    """Commands that match `pattern` may end with 1: what they say depends on the machine."""

    pattern: str
    because: str


MAY_FAIL = (
    MayFail(r"python -m client slo\b", "a busy machine meets no bound, or cannot tell"),
    MayFail(r"python -m client load .*--aa\b", "a busy machine may show a difference"),
    MayFail(r"python -m client loadgen\b", "LoadGen calls a run INVALID that was too short"),
    MayFail(r"python -m client diff\b", "one sweep may be slower than the one before"),
)


class LeavesTheMachine(Exception):
    """A command that names an address which is not of this machine."""


def substituted(source: str, port: int) -> str:
    """Return `source` as it runs, with `port` in place of the pages' one.

    Raises LeavesTheMachine if an address of another machine is left.
    """
    for substitution in SUBSTITUTIONS:
        pattern = re.compile(substitution.pattern, re.MULTILINE)
        source = pattern.sub(substitution.replacement, source)
    for host, local in LOOPBACK.items():
        source = re.sub(rf"(?<![\w.]){re.escape(host)}(?=:{PORT}\b)", local, source)
    source = re.sub(rf"(?<=:){PORT}\b", str(port), source)
    for address in _ADDRESS.finditer(source):
        if address["host"] not in _LOCAL_HOSTS:
            raise LeavesTheMachine(f"got the address {address[0]}, expected one of this machine")
    return source


def unused(sources: list[str]) -> list[str]:
    """Return the patterns of both tables that match none of the blocks' `sources`."""
    patterns = [entry.pattern for entry in (*SUBSTITUTIONS, *MAY_FAIL)]
    return [p for p in patterns if not re.search(p, "\n".join(sources), re.MULTILINE)]


def allowed_codes(command: str) -> tuple[int, ...]:
    """Return the exit codes with which `command` may end."""
    return (0, 1) if any(re.search(entry.pattern, command) for entry in MAY_FAIL) else (0,)
