"""The command `limits`: measure the machine's roofs, and place a result under them."""

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from client.errors import UsageError
from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, add_option, exit_codes, group
from command_line.paths import path
from command_line.resources import cores
from measure.commands import verdicts
from measure.core import environment, options, record_files
from measure.core.arguments import positive
from measure.core.record import write_bytes_atomically, write_record
from measure.limits import ceiling, peaks, roofline, table
from measure.limits import record as limits_record
from measure.limits.placement import Placed, place
from measure.limits.subject import READERS, Subject, subject
from measure.sweep.summary import disturbances


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes(None, keeps=True)
    parser.set_defaults(command=_limits)
    execution = group(parser, options.EXECUTION)
    text = (
        "folder or JSON file of a sweep, comparison or load to compare with the roofs "
        "(default: none)"
    )
    add_option(group(parser, "result"), "--result", path, None, "DIR", text)
    text = "rounds of each roof; the best one counts"
    add_option(group(parser, options.MEASUREMENT), "--rounds", positive, 7, "N", text)
    text = "threads that read memory and multiply (default: the result's, or one per core)"
    add_option(execution, "--threads", positive, None, "N", text)
    execution.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="dtype of the multiplication (default: the result's, or float32)",
    )
    text = "execution provider of the multiplication (default: the result's, or cpu)"
    add_option(execution, "--ep", str, None, "NAME[:key=value,...]", text)
    options.add_out(group(parser, options.OUTPUT), "results/limits")


def _limits(args: argparse.Namespace) -> int:
    """Exit code 0: measured, however far the result is from its roofs."""
    content: dict[str, Any] = {}
    if args.result is not None:
        found = record_files.found([args.result], READERS)
        if len(found) > 1:
            names = ", ".join(str(path) for path, _ in found)
            raise UsageError(f"--result {args.result} holds several results: {names}, expected one")
        ((_, content),) = found
    asked = content.get("settings", {})
    # A comparison has a list of providers; its first is what the others are held against.
    recorded = asked.get("ep") or "cpu"
    ep = args.ep or (recorded if isinstance(recorded, str) else recorded[0])
    dtype = args.dtype or asked.get("dtype") or "float32"
    threads = args.threads or asked.get("threads") or cores()
    with record_files.naming(args.result):
        placed_is = subject(content) if content else None
    with results_folder(args.out):
        return _measure(args, content, _Run(ep, dtype, threads), placed_is)


@dataclass(frozen=True, slots=True)
class _Run:
    ep: str
    dtype: str
    threads: int


def _measure(
    args: argparse.Namespace, content: dict[str, Any], run: _Run, placed_is: Subject | None
) -> int:
    notes = terminal.progress()
    start = environment.snapshot()
    found = peaks.Measured()
    placed: list[Placed] = []
    with keeping() as kept:
        peaks.measure(args.rounds, run.dtype, run.threads, run.ep, notes.print, found)
        if placed_is:
            notes.print("sending to a server that computes nothing")
            asked_for = [(r.mode, r.batch_size) for r in placed_is.rates if r.batch_size]
            clients = ceiling.rows_per_s(
                asked_for, placed_is.features, placed_is.dtype, placed_is.sent, args.rounds
            )
            placed = place(placed_is, found.roofs, clients)
    measured = found.roofs
    marks = kept.because(len(measured), f"{len(measured)} roofs")
    around = environment.describe(start, environment.snapshot())
    differences = environment.differences(content["environment"], around) if content else []
    written = limits_record.to_json(
        {
            "result": None if args.result is None else str(args.result),
            "rounds": args.rounds,
            **asdict(run),
        },
        around,
        measured,
        found.skipped,
        placed_is,
        placed,
        differences,
    )
    written |= marks
    console = terminal.results()
    paths = [args.out / "limits.json"]
    write_record(paths[0], written)
    if placed and placed_is:
        paths.append(args.out / "limits.png")
        drawn = roofline.roofline_png(measured, placed, placed_is.work)
        write_bytes_atomically(paths[1], drawn)
    verdicts.show_findings(console, disturbances(around), "the roofs may be too low: ")
    for text in differences:
        console.print(f"not where the result was measured: {text}", style="yellow", markup=False)
    for part in table.render(measured, found.skipped, placed):
        console.print(part)
    verdicts.end(console, paths, kept, args.out)
    return DONE
