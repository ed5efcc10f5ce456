"""The command `compare`: execution providers side by side, with limits that may be broken."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from client import arguments, environment, provider_results
from client import provider_record as record
from client import provider_table as table
from client.errors import UsageError
from client.provider_analysis import analyse
from client.provider_contest import MODES, contest
from client.provider_findings import broken_limits, findings
from client.sweep import Settings
from client.terminal import SweepProgress
from client.verification import Experiment

DEFAULT_ROUNDS, DEFAULT_STARTS = 16, 4
_FILE_WIDTH = 140


def add(commands: "argparse._SubParsersAction[Any]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("compare", help="execution providers side by side")
    parser.set_defaults(command=_compare)
    parser.add_argument(
        "--ep",
        action="append",
        required=True,
        metavar="EP",
        help="an execution provider as the server takes it, such as cpu or "
        "openvino:precision=bf16; the others are held against the first, so give it twice or more",
    )
    arguments.add_experiment(parser, Path("results/compare"))
    parser.add_argument(
        "--modes",
        type=arguments.modes(MODES),
        default=MODES,
        metavar="M,M",
        help=f"of {','.join(MODES)} (default: both)",
    )
    parser.add_argument(
        "--rounds",
        type=arguments.positive,
        default=DEFAULT_ROUNDS,
        metavar="N",
        help="rounds of each batch size, in each of which every provider is measured "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--starts",
        type=arguments.positive,
        default=DEFAULT_STARTS,
        metavar="N",
        help="how often the servers are started anew, with the rounds dealt over them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--require-agreement",
        type=_share,
        metavar="SHARE",
        help="exit with 1 where fewer labels agree with the reference, near ties aside",
    )
    parser.add_argument(
        "--max-slowdown",
        type=_factor,
        metavar="FACTOR",
        help="exit with 1 where a provider surely takes more times as long as the first",
    )


def _compare(args: argparse.Namespace) -> int:
    """Exit code 0: done; 1: failed requests, or a limit is broken."""
    if len(args.ep) < 2:
        raise UsageError(f"--ep came once, {args.ep[0]}; wanted at least two to compare")
    if args.starts > args.rounds:
        raise UsageError(f"--starts {args.starts} is over --rounds {args.rounds}")
    settings = Settings(
        experiment=Experiment(
            classes=args.classes,
            features=args.features,
            dtype=args.dtype,
            seed=args.seed,
            examples=arguments.examples(args),
        ),
        batch_sizes=tuple(dict.fromkeys(args.batch_sizes)),
        modes=args.modes,
        repeats=args.rounds,
        threads=args.threads,
        address=None,
        out=args.out,
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    start = environment.snapshot()
    with SweepProgress(console) as progress:
        analysis = analyse(contest(settings, args.ep, args.starts, progress))
    around = environment.describe(start, environment.snapshot())
    broken = list(broken_limits(analysis, args.require_agreement, args.max_slowdown))
    content = record.to_json(
        {
            **asdict(settings.experiment),
            "ep": args.ep,
            "batch_sizes": list(settings.batch_sizes),
            "modes": list(settings.modes),
            "rounds": settings.repeats,
            "starts": args.starts,
            "threads": settings.threads,
            "require_agreement": args.require_agreement,
            "max_slowdown": args.max_slowdown,
        },
        around,
        analysis,
        broken,
    )
    paths = provider_results.write(settings.out, content)
    # In a file there is room for what a narrow terminal must fold.
    shown = console if console.is_terminal else Console(width=_FILE_WIDTH)
    shown.print(table.render(analysis))
    found = findings(analysis, around)
    for finding in found:
        colour = "red" if finding.level == "fail" else "yellow"
        console.print(finding.text, style=colour, markup=False, highlight=False, soft_wrap=True)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        print(f"limit broken: {broken[0]}{more}", file=sys.stderr)
    return 1 if broken or any(finding.level == "fail" for finding in found) else 0


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a share from 0 to 1")
    return value


def _factor(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a factor over 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
