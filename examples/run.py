"""Build and run every example client against a server, and say which could not be.

Run it in the repository's root: `python -m examples.run`, or `make examples`.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from client.errors import UsageError
from command_line import terminal
from command_line.parser import Parser
from command_line.paths import path
from command_line.table import Column, Table
from examples.make_inputs import Inputs, add_sizes, make_inputs
from examples.refusing_proxy import refusing_proxy
from examples.toolchains import ROOT, Example, all_examples
from measure.core.local_server import running_server
from model.errors import ModelError

_BUILD_TIMEOUT_S, _RUN_TIMEOUT_S = 900, 180
_SHOWN_LINES = 40
_RESULT = re.compile(r"^stream +(\d+) labels, (\d+) wrong, (\d+) examples/s$", re.MULTILINE)
# Enough for a single request and a stream; the last label is made wrong.
_FEW_ROWS = 4

# grpcio-tools brings the compiler that others get from their distribution.
_PROTOC = """#!/bin/sh
exec '{python}' -m grpc_tools.protoc "$@"
"""


class Failed(Exception):
    """An example could not be built, or failed; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one example: its figures, or why there are none."""

    language: str
    labels: int = 0
    examples_per_second: int = 0
    skipped: str = ""
    failed: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if every example that could be tried passed, 1 if one failed, 2 for bad usage."""
    args = _arguments(argv)
    out = args.out.resolve()
    examples = all_examples(out, os.environ.get("PATH", os.defpath))
    known = [example.language for example in examples]
    if unknown := set(args.only) - set(known):
        print(f"examples: got {', '.join(unknown)}, expected some of {', '.join(known)}")
        return 2
    console = terminal.results()
    try:
        inputs = make_inputs(out, args.examples, args.classes, args.features)
        few = _few_with_a_wrong_label(inputs, out)
        _write_protoc(out / "bin" / "protoc")
        with running_server(inputs.models) as server:
            outcomes = [
                _try(example, server.address, inputs, few, console)
                for example in examples
                if not args.only or example.language in args.only
            ]
    except (ModelError, UsageError, OSError) as error:
        print(f"examples: error: {error}", file=sys.stderr)
        return 2
    console.print(table(outcomes))
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="examples", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=path, default=ROOT / ".examples", metavar="DIR", help="(default: .examples)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="LANGUAGE", help="this one; repeatable"
    )
    add_sizes(parser)
    return parser.parse_args(argv)


def _try(example: Example, address: str, inputs: Inputs, few: Inputs, console: Console) -> Outcome:
    lacking = example.lacking()
    if lacking:
        console.print(f"{example.language}: skipped, {lacking}", markup=False)
        return Outcome(example.language, skipped=f"{lacking}; get {example.get}")
    try:
        start = time.monotonic()
        for step in example.build:
            _call(step.command, step.folder, example, _BUILD_TIMEOUT_S)
        built_s = time.monotonic() - start
        console.print(f"{example.language}: built in {built_s:.0f} s", markup=False)
        labels, rate = _run(example, address, inputs, console)
        _run(example, address, few, wrong=1)
        with refusing_proxy(address) as proxy:
            _run(example, proxy, inputs)
    except Failed as failure:
        console.print(f"{example.language}: FAILED, {failure}", markup=False)
        return Outcome(example.language, failed=True)
    return Outcome(example.language, labels, rate)


def _run(
    example: Example, address: str, inputs: Inputs, console: Console | None = None, wrong: int = 0
) -> tuple[int, int]:
    """Return how many labels were checked, how many examples/s; Failed unless `wrong` are wrong."""
    command = (*example.run, address, str(inputs.rows), str(inputs.labels))
    said = _call(command, ROOT, example, _RUN_TIMEOUT_S, expect_code=1 if wrong else 0)
    if console:
        console.print(said.rstrip(), markup=False)
    labels = inputs.labels.stat().st_size // np.dtype("<i8").itemsize
    result = _RESULT.search(said)
    if not result or (int(result[1]), int(result[2])) != (labels, wrong):
        raise Failed(f"it did not report {labels} labels, {wrong} wrong:\n{said}")
    return labels, int(result[3])


def _call(
    command: Sequence[str], folder: Path, example: Example, timeout_s: float, expect_code: int = 0
) -> str:
    """Return what a command printed; Failed when it ends otherwise than expected."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | example.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from None
    if done.returncode != expect_code:
        last = "\n".join(done.stdout.splitlines()[-_SHOWN_LINES:])
        raise Failed(
            f"{Path(command[0]).name} ended with {done.returncode}, expected {expect_code}: "
            f"{' '.join(command)}\n{last}"
        )
    return done.stdout


def _few_with_a_wrong_label(inputs: Inputs, out: Path) -> Inputs:
    """Write the first rows again, with a label at the end that none of them gets."""
    labels = np.fromfile(inputs.labels, "<i8")
    row_bytes = inputs.rows.stat().st_size // len(labels)
    few = Inputs(inputs.models, out / "few.f32", out / "few.i64")
    with inputs.rows.open("rb") as rows:
        few.rows.write_bytes(rows.read(_FEW_ROWS * row_bytes))
    labels = labels[:_FEW_ROWS].copy()
    labels[-1] = -1
    few.labels.write_bytes(labels.tobytes())
    return few


def _write_protoc(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PROTOC.format(python=sys.executable))
    path.chmod(0o755)


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each example."""
    rows = []
    for outcome in outcomes:
        figures = "-", "-"
        note = "tried again what was refused"
        if outcome.skipped:
            note = f"skipped: {outcome.skipped}"
        elif outcome.failed:
            note = "FAILED, see above"
        else:
            figures = f"{outcome.labels}", f"{outcome.examples_per_second}"
        rows.append((outcome.language, *figures, note))
    columns = (
        Column("language", words=True),
        Column("labels checked"),
        Column("examples/s"),
        Column("", words=True),
    )
    return Table(columns, [rows])


if __name__ == "__main__":
    sys.exit(main())
