"""The command `sweep`: its options, what it prints and writes."""

import argparse
from dataclasses import asdict

from client.errors import UsageError
from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.commands import sweep_results as results
from measure.commands import verdicts
from measure.core import environment, options
from measure.core.arguments import modes, positive
from measure.core.verification import Experiment
from measure.report.sections.sweep import section as sweep_section
from measure.servers import table as servers_table
from measure.sweep import record, table
from measure.sweep.summary import Point
from measure.sweep.sweep import DEFAULT_MODES, MODES, Settings, sweep, with_scale
from measure.sweep.terminal import SweepProgress
from protos.quantize import WIRE_DTYPES


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("wrong labels or failed requests", keeps=True)
    parser.set_defaults(command=_sweep)
    measurement = group(parser, options.MEASUREMENT)
    options.add_experiment(parser, "results/sweep")
    options.add_address(parser, "server to measure (default: start one)")
    options.add_credentials(parser)
    options.add_balancing(parser)
    text = f"some of {','.join(MODES)} (default: {','.join(DEFAULT_MODES)})"
    add_option(measurement, "--modes", modes(MODES), DEFAULT_MODES, "M,M", text)
    group(parser, options.MODEL).add_argument(
        "--wire",
        choices=("float32", *WIRE_DTYPES),
        help="dtype of float32 examples on the wire (default: that of --dtype)",
    )
    text = "least number of batches per size"
    add_option(measurement, "--repeats", positive, 3, "N", text)
    options.add_ep(
        parser,
        "execution provider, as for the server's --ep, in process and in a server that this "
        "command starts",
    )


def _sweep(args: argparse.Namespace) -> int:
    if args.wire is not None and args.dtype != "float32":
        raise UsageError(f"got --wire {args.wire} with --dtype {args.dtype}, expected float32")
    settings = Settings(
        experiment=Experiment(
            args.classes,
            args.features,
            args.dtype,
            args.seed,
            options.examples(args),
            args.wire if args.wire in WIRE_DTYPES else None,
        ),
        batch_sizes=args.batch_sizes,
        modes=args.modes,
        repeats=args.repeats,
        threads=args.threads,
        address=options.addresses(args),
        out=args.out,
        credentials=options.credential_files(args).read(),
        ep=args.ep,
        balance=args.balance,
        resolve_s=args.resolve_s,
    )
    with results_folder(settings.out):
        return _measure(with_scale(settings))


def _measure(settings: Settings) -> int:
    start = environment.snapshot()
    points: list[Point] = []
    with keeping() as kept, SweepProgress(terminal.progress()) as progress:
        for point in sweep(settings, progress):
            points.append(point)
    planned = len(settings.batch_sizes) * len(settings.modes)
    marks = kept.because(len(points), f"{len(points)} of {planned} points")
    content = record.to_json(
        {
            **asdict(settings.experiment),
            "wire": settings.experiment.sent,
            "batch_sizes": list(settings.batch_sizes),
            "modes": list(settings.modes),
            "repeats": settings.repeats,
            "threads": settings.threads,
            "ep": settings.ep,
            "address": settings.address,
            "balance": settings.balance,
            "resolve_s": settings.resolve_s,
        },
        environment.describe(start, environment.snapshot()),
        points,
    )
    content |= marks
    paths = results.write(settings.out, content)
    console = terminal.results()
    in_order = sorted(points, key=lambda p: settings.modes.index(p.mode))
    console.print(table.render(in_order, agreement=settings.experiment.wire is not None))
    if groups := table.of_each_server(in_order):
        console.print(servers_table.render(groups, "sweep.json"))
    verdicts.show(console, sweep_section(content).verdicts)
    verdicts.end(console, paths, kept, settings.out)
    failed = any(point.wrong_labels or point.errors for point in points)
    return WRONG if failed else DONE
