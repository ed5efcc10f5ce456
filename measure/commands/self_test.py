"""Run an A/A test: compare a thing with itself, write the record, print the answer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from command_line import terminal
from command_line.interruption import keeping
from command_line.parser import DONE, WRONG
from measure.commands import verdicts
from measure.core import environment
from measure.core.comparison import Calibration, calibrate
from measure.core.record import recorded, write_record
from measure.presentation.format import BAD

# A function that compares once, as `calibrate` takes it, and one that reports progress.
Comparing = tuple[Callable[[], bool | None], Callable[[str], None]]


def self_test(
    path: Path,
    schema: str,
    runs: int,
    comparing: Callable[[ExitStack], Comparing],
    settings: Mapping[str, Any],
    results: Callable[[], Sequence[Any]],
    **more: Any,
) -> int:
    """Compare `runs` times and write a record to `path`; the exit code.

    `comparing` prepares the comparison; the stack closes what it opens. `results` gives the
    record of each run; `more` are further keys of the record.
    """
    claimed: list[bool | None] = []
    start = environment.snapshot()
    with keeping() as kept, ExitStack() as stack:
        claims, report = comparing(stack)
        calibrate(claims, runs, report, claimed)
    marks = kept.because(len(claimed), f"{len(claimed)} of {runs} runs")
    found = Calibration(tuple(claimed))
    content = recorded(
        schema,
        environment=environment.describe(start, environment.snapshot()),
        settings=settings,
        **more,
        answer=found.text,
        passed=found.passed,
        runs=results(),
    )
    write_record(path, content | marks)
    console = terminal.results()
    console.print(found.text, style="" if found.passed else BAD, highlight=False)
    verdicts.end(console, [path], kept, path.parent)
    return DONE if found.passed else WRONG
