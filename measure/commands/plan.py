"""The command `plan`: its options, what it prints and writes."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from client.connection.credentials import CredentialFiles
from command_line import paths, terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import add_renamed, exit_codes, group
from measure.commands import verdicts
from measure.commands.load_options import write
from measure.core import environment
from measure.core.arguments import (
    EP_HELP,
    EXECUTION,
    SERVER,
    add_credentials,
    add_model,
    address,
    credential_files,
    over_zero,
    positive,
    seconds,
)
from measure.core.record import encoded, write_record
from measure.load import record as load_record
from measure.load import table as load_table
from measure.load.settings import Settings, Windows, collecting
from measure.load.summary import LoadPoint
from measure.load.terminal import LoadProgress
from measure.plan import record as plan_record
from measure.plan import table as plan_table
from measure.plan.calibration import calibrate
from measure.plan.capacity import Demand, Plan, plan
from measure.plan.check import check, trusted
from measure.plan.fit import executions, fit_costs
from measure.plan.observed import Calibration

PLANNED, REFUSED = 0, 1


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command `plan`."""
    parser.epilog = exit_codes("predictions do not hold, or no rate is enough", keeps=True)
    parser.set_defaults(command=_plan)
    target, calibration = group(parser, "target"), group(parser, "calibration")
    server = group(parser, SERVER)
    target.add_argument(
        "--rate",
        type=over_zero,
        required=True,
        metavar="R",
        help="requests per second of all replicas together",
    )
    target.add_argument(
        "--p99-ms",
        type=over_zero,
        required=True,
        metavar="MS",
        help="bound of p99, in milliseconds",
    )
    target.add_argument(
        "--link-gbit",
        type=over_zero,
        default=25.0,
        metavar="G",
        help="network bandwidth of a replica, in Gbit/s (default: %(default)s)",
    )
    calibration.add_argument(
        "--result",
        type=paths.path,
        metavar="DIR",
        help="folder of an earlier plan, whose calibration is used again",
    )
    server.add_argument(
        "--address",
        type=address,
        metavar="A",
        help="server to measure: HOST:PORT or unix:/path (default: start one)",
    )
    add_credentials(parser)
    server.add_argument(
        "--model",
        default="linear_argmax",
        metavar="M",
        help="name of the model (default: %(default)s)",
    )
    server.add_argument(
        "--model-version", default="", metavar="V", help="its version (default: the highest)"
    )
    calibration.add_argument(
        "--rows",
        type=positive,
        default=1,
        metavar="N",
        help="rows of a request (default: %(default)s)",
    )
    calibration.add_argument(
        "--seconds",
        type=seconds,
        default=20.0,
        metavar="S",
        help="seconds of each of seven open loops, in two parts (default: %(default)s)",
    )
    add_renamed(
        calibration,
        "--timeout-s",
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="seconds after which a request has failed (default: %(default)s)",
    )
    group(parser, EXECUTION).add_argument(
        "--ep",
        default="cpu",
        metavar="NAME[:key=value,...]",
        help=f"{EP_HELP} (default: %(default)s)",
    )
    add_model(parser, Path("results/plan"))


def _plan(args: argparse.Namespace) -> int:
    """Exit code 0: planned; 1: nothing is, because predictions do not hold or no rate is enough."""
    files = credential_files(args)
    with results_folder(args.out):
        return _measure(args, files)


def _measure(args: argparse.Namespace, files: CredentialFiles) -> int:
    notes, console = terminal.progress(), terminal.results()
    if args.result is not None:
        calibration, described = plan_record.earlier(args.result)
    else:
        calibration, described = _calibrate(args, files, notes)
    notes.print(Text("fitting the costs, simulating"))
    costs = fit_costs(calibration)
    checks = check(calibration, costs)
    console.print(plan_table.costs_text(costs, executions(calibration), calibration))
    console.print(plan_table.checks_table(checks))
    demand = Demand(args.rate, args.p99_ms * 1e6, args.link_gbit * 1e9)
    trust = trusted(checks)
    planned: Plan | None = None
    if trust is None:
        answer = plan_table.refusal(checks)
    elif (planned := plan(demand, calibration, costs, trust)) is None:
        answer = plan_table.unreachable(demand, calibration, trust)
    else:
        answer = plan_table.answer(demand, planned)
        console.print(plan_table.options_table(planned, calibration))
        console.print(plan_table.network_table(demand, planned, calibration))
    console.print(Text(answer, style="bold" if planned else "bold red"))
    settings = {name: value for name, value in vars(args).items() if name != "command"}
    content = plan_record.to_json(settings, described, calibration, costs, checks, planned, answer)
    path = args.out / plan_record.NAME
    write_record(path, content)
    console.print(str(path), highlight=False, soft_wrap=True)
    return PLANNED if planned else REFUSED


def _calibrate(
    args: argparse.Namespace, files: CredentialFiles, notes: Console
) -> tuple[Calibration, dict[str, Any]]:
    settings = Settings(
        address=args.address,
        model=args.model,
        version=args.model_version,
        modes=("unary",),
        rows=args.rows,
        concurrencies=(),
        rates_per_s=(),
        arrivals="poisson",
        processes=1,
        windows=Windows(0.0, args.seconds, 0, 1),
        timeout_s=args.timeout_s,
        classes=args.classes,
        features=args.features,
        dtype=args.dtype,
        seed=args.seed,
        threads=args.threads,
        ep=args.ep,
        out=args.out,
        credential_files=files,
    )
    start = environment.snapshot()
    points: list[LoadPoint] = []
    with keeping() as kept, LoadProgress(notes) as progress:
        calibration = calibrate(settings, args.seconds, collecting(points, progress))
    described = environment.describe(start, environment.snapshot())
    marks = kept.because(len(points), f"{len(points)} loads of the calibration")
    if marks:
        known = all(point.wrong_labels is not None for point in points)
        unchecked = None if known else "the right labels of the model are not known"
        # There is no plan of a part of a calibration, but loads are a result of their own.
        content = load_record.to_json(encoded(settings), described, points, unchecked)
        written = write(settings.out, "plan-loads", content | marks, points)
        console = terminal.results()
        for part in load_table.render(points, unchecked):
            console.print(part)
        verdicts.end(console, written, kept, settings.out)
    return calibration, described
