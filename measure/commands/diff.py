"""The command `diff`: whether a newer result is worse than an older one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from client.errors import UsageError
from command_line import paths, terminal
from command_line.parser import DONE, WRONG, add_option, exit_codes
from measure.core import environment, record_files
from measure.core.arguments import over_zero
from measure.diff import table
from measure.diff.side import FEWEST_RUNS, FEWEST_VALUES, READERS, Side, merged, side
from measure.diff.verdicts import (
    LEVEL,
    UNDECIDED,
    WORSE,
    differences,
    incomparable,
    only_in_one,
    single_runs,
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("a point is worse")
    parser.set_defaults(command=_diff)
    for name in ("old", "new"):
        parser.add_argument(
            name,
            type=paths.path,
            metavar=name.upper(),
            help="folder or JSON file of a result, or a folder of several runs of it",
        )
    text = "largest share of a difference that is ignored"
    add_option(parser, "--tolerance", over_zero, 0.1, "SHARE", text)


def _diff(args: argparse.Namespace) -> int:
    """Exit code 0: no point is worse; 1: one is; 2: they cannot be compared."""
    contents = [record_files.found([place], READERS, _warn) for place in (args.old, args.new)]
    old, new = (_side(records) for records in contents)
    why = incomparable(old, new)
    if why is not None:
        raise UsageError(f"cannot compare {args.old} with {args.new}: {why}")
    console = terminal.results()
    for place, content in (one for records in contents for one in records):
        if content.get("partial"):
            said = f"{place} is partial: {content.get('partial_because')}"
            console.print(Text(said, style="yellow"), soft_wrap=True)
    with record_files.naming(f"{args.old}, {args.new}"):
        changed = environment.differences(*(records[0][1]["environment"] for records in contents))
    for text in (f"environments differ: {text}" for text in changed):
        console.print(Text(text, style="yellow"), soft_wrap=True)
    single = single_runs(old, new)
    for text in [*only_in_one(old, new), *([single] if single else [])]:
        console.print(Text(text, style="yellow"), soft_wrap=True)
    found = differences(old, new, args.tolerance)
    console.print(table.render(found))
    console.print(Text(_how(old, new, args.tolerance)), soft_wrap=True)
    worse = [one for one in found if one.verdict == WORSE]
    undecided = sum(one.verdict == UNDECIDED for one in found)
    summary = f"{len(worse)} of {len(found)} are worse"
    summary += f"; {undecided} cannot be decided" if undecided else ""
    console.print(Text(summary + ("; of single runs" if single else "")))
    if worse:
        print(f"worse: {worse[0].label}: {worse[0].metric}", file=sys.stderr)
    return WRONG if worse else DONE


def _warn(text: str) -> None:
    print(f"warning: {text}; it is not compared", file=sys.stderr)


def _side(records: Sequence[tuple[Path, dict[str, Any]]]) -> Side:
    """Read the runs of one side; UsageError says of which file it is."""
    runs = []
    for path, content in records:
        with record_files.naming(path):
            runs.append(side(content))
    try:
        return merged(runs)
    except UsageError as error:
        raise UsageError(f"{', '.join(str(path) for path, _ in records)}: {error}") from None


def _how(old: Side, new: Side, tolerance: float) -> str:
    if old.kind == "slo" and old.runs == new.runs == 1:
        return (
            "cost: ratio of the rates, each between the highest that met the bound and the lowest "
            f"that did not; worse: all of that over {1 + tolerance:g}"
        )
    return (
        f"cost: ratio of medians, above 1 is worse; brackets: bootstrap interval, {1 - LEVEL:.0%} "
        f"for all at once; worse: all of it over {1 + tolerance:g}; cannot tell: it includes "
        f"a limit, or values are fewer than {FEWEST_VALUES} of one run, {FEWEST_RUNS} of several"
    )
