"""The command `plan`: its options, what it prints and writes."""

import argparse
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from command_line import paths, terminal
from command_line.interruption import Kept, keeping, results_folder
from command_line.parser import add_option, exit_codes, group
from measure.commands import verdicts
from measure.commands.load_options import settings_of, write
from measure.core import environment
from measure.core.arguments import over_zero, seconds
from measure.core.options import (
    add_ep,
    add_model,
    add_p99,
    add_rows,
    add_server,
    add_timeout,
    add_version,
    addresses,
    credential_files,
)
from measure.core.record import encoded, write_record
from measure.load import record as load_record
from measure.load import table as load_table
from measure.load.settings import Settings, collecting
from measure.load.summary import LoadPoint
from measure.load.terminal import LoadProgress
from measure.plan import record as plan_record
from measure.plan import table as plan_table
from measure.plan.calibration import calibrate
from measure.plan.capacity import Demand, Plan, plan
from measure.plan.check import check, trusted
from measure.plan.fit import executions, fit_costs
from measure.plan.fleet import check_fleet
from measure.plan.observed import Calibration
from measure.servers.replicas import Replica, replicas_of
from measure.sweep.sweep import MODEL

PLANNED, REFUSED = 0, 1


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command `plan`."""
    parser.epilog = exit_codes("predictions do not hold, or no rate is enough", keeps=True)
    parser.set_defaults(command=_plan)
    target, calibration = group(parser, "target"), group(parser, "calibration")
    text = "requests per second of all replicas together"
    target.add_argument("--rate", type=over_zero, required=True, metavar="R", help=text)
    add_p99(target)
    text = "network bandwidth of a replica, in Gbit/s"
    add_option(target, "--link-gbit", over_zero, 25.0, "G", text)
    text = "folder of an earlier plan, whose calibration is used again"
    add_option(calibration, "--result", paths.path, None, "DIR", text)
    add_server(parser, "measure", MODEL)
    add_version(parser)
    add_rows(calibration)
    text = "seconds of each of seven open loops, in two parts"
    add_option(calibration, "--seconds", seconds, 20.0, "S", text)
    add_timeout(calibration)
    add_ep(parser)
    add_model(parser, "results/plan")


def _plan(args: argparse.Namespace) -> int:
    """Exit code 0: planned; 1: nothing is, because predictions do not hold or no rate is enough."""
    credential_files(args)  # contradicting options are reported before anything is written
    with results_folder(args.out):
        return _measure(args)


def _measure(args: argparse.Namespace) -> int:
    notes, console = terminal.progress(), terminal.results()
    if args.result is not None:
        calibration, described = plan_record.earlier(args.result)
    else:
        calibration, described = _calibrate(args, notes)
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
    fleet, kept = None, Kept()
    if planned is not None and len(_replicas(args)) > 1:
        with keeping() as kept, LoadProgress(notes) as progress:
            settings = _settings(args)
            limits = calibration.limits
            fleet = check_fleet(settings, demand, planned, limits, args.seconds, progress)
    if fleet is not None:
        text = plan_table.fleet_text(fleet)
        console.print(Text(text, style="bold" if fleet.holds else "bold red"))
    given = {name: value for name, value in vars(args).items() if name != "command"}
    given["address"] = addresses(args)
    content = plan_record.to_json(
        given, described, calibration, costs, checks, planned, answer, fleet
    )
    content |= kept.because(1, "the plan, without its check by several servers")
    path = args.out / plan_record.NAME
    write_record(path, content)
    verdicts.end(console, [path], kept, args.out)
    return PLANNED if planned and (fleet is None or fleet.holds) else REFUSED


def _replicas(args: argparse.Namespace) -> tuple[Replica, ...]:
    """The servers that are given."""
    text = addresses(args)
    return () if text is None else replicas_of(text)


def _settings(args: argparse.Namespace) -> Settings:
    """A calibration has these settings, whatever the options."""
    fixed: dict[str, Any] = {"modes": ("unary",), "concurrency": (), "rate": ()}
    fixed |= {"arrivals": "poisson", "processes": 1, "warm_up_s": 0.0, "window_s": args.seconds}
    fixed |= {"window_requests": 0, "max_windows": 1}
    return settings_of(argparse.Namespace(**vars(args) | fixed))


def _calibrate(args: argparse.Namespace, notes: Console) -> tuple[Calibration, dict[str, Any]]:
    settings = _settings(args)
    if replicas := _replicas(args):
        # A plan is made from the costs of one server, of several the first.
        settings = replace(settings, address=replicas[0].address)
    start = environment.snapshot()
    points: list[LoadPoint] = []
    with keeping() as kept, LoadProgress(notes) as progress:
        calibration = calibrate(settings, args.seconds, collecting(points, progress))
    described = environment.describe(start, environment.snapshot())
    marks = kept.because(len(points), f"{len(points)} loads of the calibration")
    if marks:
        known = all(point.wrong_labels is not None for point in points)
        unchecked = None if known else "the right labels of the model are not known"
        # A part of a calibration gives no plan, but its loads are a result by themselves.
        content = load_record.to_json(encoded(settings), described, points, unchecked)
        written = write(settings.out, "plan-loads", content | marks, points)
        console = terminal.results()
        for part in load_table.render(points, unchecked):
            console.print(part)
        verdicts.end(console, written, kept, settings.out)
    return calibration, described
