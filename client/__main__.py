"""Command line of the client: `python -m client COMMAND`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from client import arguments, environment, record, table
from client.commands import compare as compare_command
from client.commands import diff as diff_command
from client.commands import limits as limits_command
from client.commands import load as load_command
from client.commands import loadgen as loadgen_command
from client.commands import plan as plan_command
from client.commands import predict as predict_command
from client.commands import report as report_command
from client.commands import slo as slo_command
from client.commands import sweep_results as results
from client.commands import verdicts
from client.errors import RequestFailed, UsageError
from client.reporting.sweep import section as sweep_section
from client.sweep import DEFAULT_MODES, MODES, Settings, sweep, with_scale
from client.terminal import SweepProgress
from client.verification import Experiment
from protos.quantize import WIRE_DTYPES
from text_tables import new_console

PROGRAM = "argmax-client"
DONE, WRONG, REFUSED = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like those of the rest of the program."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: wrong labels, failed requests; 2: usage or environment."""
    try:
        args = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except RequestFailed as error:
        return _complain(str(error), WRONG)
    except (UsageError, OSError, MemoryError) as error:
        return _complain(str(error) or type(error).__name__, REFUSED)
    except KeyboardInterrupt:
        return _complain("interrupted", REFUSED)


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="Predict with a served model, or measure it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict_command.add(commands)
    many = commands.add_parser("sweep", help="latency and throughput over batch sizes")
    many.set_defaults(command=_sweep)
    arguments.add_experiment(many, Path("results/sweep"))
    arguments.add_address(many, "server to measure (default: one of its own)")
    arguments.add_credentials(many)
    many.add_argument(
        "--modes",
        type=arguments.modes(MODES),
        default=DEFAULT_MODES,
        metavar="M,M",
        help=f"of {','.join(MODES)} (default: {','.join(DEFAULT_MODES)})",
    )
    many.add_argument(
        "--wire",
        choices=("float32", *WIRE_DTYPES),
        help="what float32 examples are sent as (default: what --dtype is)",
    )
    many.add_argument(
        "--repeats",
        type=arguments.positive,
        default=3,
        metavar="N",
        help="fewest batches measured of each size (default: %(default)s)",
    )
    many.add_argument(
        "--ep",
        default="cpu",
        metavar="NAME[:key=value,...]",
        help="execution provider, as the server's --ep, here and in a server of its own "
        "(default: %(default)s)",
    )
    compare_command.add(commands)
    load_command.add(commands)
    slo_command.add(commands)
    loadgen_command.add(commands)
    plan_command.add(commands)
    limits_command.add(commands)
    diff_command.add(commands)
    report_command.add(commands)
    return parser


def _sweep(args: argparse.Namespace) -> int:
    if args.wire is not None and args.dtype != "float32":
        raise UsageError(f"--wire {args.wire} came with --dtype {args.dtype}; wanted float32")
    settings = Settings(
        experiment=Experiment(
            classes=args.classes,
            features=args.features,
            dtype=args.dtype,
            seed=args.seed,
            examples=arguments.examples(args),
            wire=args.wire if args.wire in WIRE_DTYPES else None,
        ),
        batch_sizes=args.batch_sizes,
        modes=args.modes,
        repeats=args.repeats,
        threads=args.threads,
        address=None if args.address is None else ",".join(args.address),
        out=args.out,
        credentials=arguments.credential_files(args).read(),
        ep=args.ep,
    )
    # Hours of measuring must not end at a folder that cannot be written.
    settings.out.mkdir(parents=True, exist_ok=True)
    settings = with_scale(settings)
    console = new_console()
    start = environment.snapshot()
    with SweepProgress(console) as progress:
        points = sweep(settings, progress)
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
        },
        environment.describe(start, environment.snapshot()),
        points,
    )
    paths = results.write(settings.out, content)
    in_order = sorted(points, key=lambda p: settings.modes.index(p.mode))
    console.print(table.render(in_order, agreement=settings.experiment.wire is not None))
    verdicts.show(console, sweep_section(content).verdicts)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    failed = any(point.wrong_labels or point.errors for point in points)
    return WRONG if failed else DONE


def _complain(text: str, status: int) -> int:
    print(f"{PROGRAM}: error: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
