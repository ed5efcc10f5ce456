"""The command `limits`: measure the machine's roofs, and place a result under them."""

import argparse
import os
from pathlib import Path
from typing import Any

from client import arguments, environment, record, record_files
from client.compare import record as provider_record
from client.errors import UsageError
from client.limits import ceiling, roofline, roofs, table
from client.limits import record as limits_record
from client.limits.placing import place
from client.limits.subject import subject
from client.load import record as load_record
from client.summary import disturbances
from text_tables import new_console

_SCHEMAS = (record.SCHEMA, provider_record.SCHEMA, load_record.SCHEMA)


def add(commands: "argparse._SubParsersAction[Any]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("limits", help="the machine's roofs, and a result below them")
    parser.set_defaults(command=_limits)
    parser.add_argument(
        "--result",
        type=Path,
        metavar="DIR",
        help="folder or JSON file of the sweep, comparison or load that is placed (default: none)",
    )
    parser.add_argument(
        "--rounds",
        type=arguments.positive,
        default=7,
        metavar="N",
        help="of each roof; the best one counts (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=arguments.positive,
        metavar="N",
        help="that read memory and multiply (default: the result's, or one for each core)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="that is multiplied (default: the result's, or float32)",
    )
    parser.add_argument(
        "--ep",
        metavar="NAME[:key=value,...]",
        help="execution provider that multiplies (default: the result's, or cpu)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/limits"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )


def _limits(args: argparse.Namespace) -> int:
    """Exit code 0: measured, however far the result is from its roofs."""
    content: dict[str, Any] = {}
    if args.result is not None:
        found = record_files.found([args.result], _SCHEMAS)
        if len(found) > 1:
            names = ", ".join(str(path) for path, _ in found)
            raise UsageError(f"--result {args.result} holds several results: {names}; wanted one")
        ((_, content),) = found
    asked = content.get("settings", {})
    # A comparison has a list of providers; its first is what the others are held against.
    told = asked.get("ep") or "cpu"
    ep = args.ep or (told if isinstance(told, str) else told[0])
    dtype = args.dtype or asked.get("dtype") or "float32"
    threads = args.threads or asked.get("threads") or len(os.sched_getaffinity(0))
    placed_is = subject(content) if content else None
    args.out.mkdir(parents=True, exist_ok=True)
    console = new_console()
    start = environment.snapshot()
    measured, skipped = roofs.measure(args.rounds, dtype, threads, ep, console.print)
    placed = []
    if placed_is:
        console.print("sending to a server that computes nothing")
        asked_for = [(rate.mode, rate.batch_size) for rate in placed_is.rates if rate.batch_size]
        clients = ceiling.rows_per_s(
            asked_for, placed_is.features, placed_is.dtype, placed_is.sent, args.rounds
        )
        placed = place(placed_is, measured, clients)
    around = environment.describe(start, environment.snapshot())
    differences = environment.differences(content["environment"], around) if content else []
    written = limits_record.to_json(
        {
            "result": None if args.result is None else str(args.result),
            "rounds": args.rounds,
            "threads": threads,
            "dtype": dtype,
            "ep": ep,
        },
        around,
        measured,
        skipped,
        placed_is,
        placed,
        differences,
    )
    paths = [args.out / "limits.json"]
    record.write_text_atomically(paths[0], record.dumps(written))
    if placed and placed_is:
        paths.append(args.out / "limits.png")
        drawn = roofline.roofline_png(measured, placed, placed_is.work)
        record.write_bytes_atomically(paths[1], drawn)
    for finding in disturbances(around):
        console.print(f"the roofs may be too low: {finding.text}", style="red", markup=False)
    for text in differences:
        console.print(f"not where the result was measured: {text}", style="yellow", markup=False)
    for part in table.render(measured, skipped, placed):
        console.print(part)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    return 0
