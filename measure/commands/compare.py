"""The command `compare`: execution providers side by side, with limits that may be broken."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from client.errors import UsageError
from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import add_option, exit_codes, group
from measure.commands import compare_results as provider_results
from measure.commands import verdicts
from measure.commands.self_test import Comparing, self_test
from measure.compare import axes, record, table
from measure.compare.analysis import Pair, analyse, could_differ
from measure.compare.axes import Contestant
from measure.compare.findings import broken_limits, findings
from measure.compare.measure import MODES, Observed, contest
from measure.core import arguments, environment, options
from measure.core.comparison import COMPARE_SCHEMA, fewest_to_claim
from measure.core.verification import Experiment
from measure.sweep.sweep import Settings
from measure.sweep.terminal import SweepProgress

DEFAULT_ROUNDS, DEFAULT_STARTS = 16, 4


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("failed requests, or a limit that is missed", keeps=True)
    parser.set_defaults(command=_compare)
    measurement, limits = group(parser, options.MEASUREMENT), group(parser, "limits")
    group(parser, options.EXECUTION).add_argument(
        "--ep",
        action="append",
        required=True,
        metavar="EP",
        help="execution provider, as for the server's --ep, such as cpu or "
        "openvino:precision=bf16; repeat it: the others are compared with the first",
    )
    group(parser, options.EXECUTION).add_argument(
        "--option",
        action="append",
        type=axes.axis,
        default=[],
        metavar=axes.FORM,
        help="server option with the values to compare, such as instances=1,2 or "
        "graph-optimization=all,off; repeat it: every combination, on every --ep",
    )
    options.add_experiment(parser, "results/compare")
    text = f"some of {','.join(MODES)} (default: both)"
    add_option(measurement, "--modes", arguments.modes(MODES), MODES, "M,M", text)
    text = "rounds per batch size; each measures every provider once"
    add_option(measurement, "--rounds", arguments.positive, DEFAULT_ROUNDS, "N", text)
    text = "starts of the servers, which share the rounds"
    add_option(measurement, "--starts", arguments.positive, DEFAULT_STARTS, "N", text)
    options.add_aa(parser, "--ep with itself, in RUNS runs")
    text = "exit with 1 if a smaller share of labels agrees with the reference, near ties aside"
    add_option(limits, "--require-agreement", arguments.share, None, "SHARE", text)
    text = (
        "exit with 1 if the whole interval of a provider's latency ratio to the first one is above "
        "this"
    )
    add_option(limits, "--max-slowdown", _factor, None, "FACTOR", text)


def _compare(args: argparse.Namespace) -> int:
    """Exit code 0: done; 1: failed requests, or a limit is broken."""
    if len(_contestants(args)) < 2 and args.aa is None:
        raise UsageError(
            f"got one --ep, {args.ep[0]}, expected at least two to compare, or --option with values"
        )
    if "local" in args.modes and any(v.name == axes.INSTANCES for o in args.option for v in o):
        raise UsageError(
            "got --option instances with the mode local, which has one; expected --modes stream"
        )
    if args.starts > args.rounds:
        raise UsageError(f"--starts {args.starts} is over --rounds {args.rounds}")
    settings = Settings(
        experiment=Experiment(
            args.classes, args.features, args.dtype, args.seed, options.examples(args)
        ),
        batch_sizes=tuple(dict.fromkeys(args.batch_sizes)),
        modes=args.modes,
        repeats=args.rounds,
        threads=args.threads,
        address=None,
        out=args.out,
    )
    if args.aa is not None:
        _check_that_it_can_fail(settings)
    with results_folder(settings.out):
        return _measure(args, settings) if args.aa is None else _calibrate(args, settings)


def _measure(args: argparse.Namespace, settings: Settings) -> int:
    start = environment.snapshot()
    contestants = _contestants(args)
    observed = Observed(settings, contestants)
    with keeping() as kept, SweepProgress(terminal.progress()) as progress:
        contest(settings, contestants, args.starts, progress, observed)
    whole = len(observed.sizes)
    of_all = f"{whole} of {len(settings.batch_sizes)} batch sizes, in fewer rounds"
    marks = kept.because(whole, of_all)
    analysis = analyse(observed.measured())
    around = environment.describe(start, environment.snapshot())
    broken = list(broken_limits(analysis, args.require_agreement, args.max_slowdown))
    content = record.to_json(_recorded_settings(args, settings), around, analysis, broken) | marks
    paths = provider_results.write(settings.out, content)
    console = terminal.results()
    console.print(table.render(analysis))
    found = findings(analysis, around)
    verdicts.show_findings(console, found)
    verdicts.end(console, paths, kept, settings.out)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        print(f"limit broken: {broken[0]}{more}", file=sys.stderr)
    return 1 if broken or any(finding.level == "fail" for finding in found) else 0


def _contestants(args: argparse.Namespace) -> list[Contestant]:
    """Each provider with each combination of options."""
    combined = axes.combinations(args.option)
    return [Contestant(ep, values) for ep in args.ep for values in combined]


def _check_that_it_can_fail(settings: Settings) -> None:
    """UsageError where no --aa of such settings could claim a difference."""
    comparisons = len(settings.modes) * len(settings.batch_sizes)
    needed = fewest_to_claim(comparisons)
    if settings.repeats < needed:
        raise UsageError(
            f"--aa could not fail: got --rounds {settings.repeats}, expected at least {needed}, "
            f"as no difference among {comparisons} comparisons is claimed of fewer"
        )


def _calibrate(args: argparse.Namespace, settings: Settings) -> int:
    """Hold the first provider against itself."""
    runs: list[list[Pair]] = []

    def comparing(stack: ExitStack) -> Comparing:
        notes = terminal.progress()
        progress = stack.enter_context(SweepProgress(notes))

        def claims() -> bool | None:
            specs = _contestants(args)[:1] * 2
            runs.append(list(analyse(contest(settings, specs, args.starts, progress)).pairs))
            return _differs(runs[-1]) if could_differ(runs[-1]) else None

        return claims, notes.print

    return self_test(
        settings.out / "compare-aa.json",
        COMPARE_SCHEMA,
        args.aa,
        comparing,
        _recorded_settings(args, settings),
        lambda: [
            {"differs": _differs(run), "could_differ": could_differ(run), "pairs": run}
            for run in runs
        ],
    )


def _differs(pairs: Sequence[Pair]) -> bool:
    return any(pair.differs for pair in pairs)


def _recorded_settings(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Settings as the records have them."""
    return {
        **asdict(settings.experiment),
        "ep": args.ep,
        "option": [[str(value) for value in option] for option in args.option],
        "batch_sizes": list(settings.batch_sizes),
        "modes": list(settings.modes),
        "rounds": settings.repeats,
        "starts": args.starts,
        "threads": settings.threads,
        "require_agreement": args.require_agreement,
        "max_slowdown": args.max_slowdown,
    }


def _factor(text: str) -> float:
    return arguments.over_zero(text, "a factor")
