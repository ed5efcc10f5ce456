"""The command `load`: its options, what it prints and writes."""

import argparse
import contextlib
from collections.abc import Callable, Iterator

from client.errors import UsageError
from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.commands import verdicts
from measure.commands.load_options import add_common, settings_of, write
from measure.commands.self_test import Comparing, self_test
from measure.core import environment
from measure.core.arguments import concurrencies, modes, positive, rates
from measure.core.comparison import LOAD_SCHEMA
from measure.core.options import add_aa
from measure.core.record import encoded
from measure.engine.worker_job import MODES
from measure.load import record as load_record
from measure.load import table as load_table
from measure.load.paired import Duel, duel, fewest_pairs
from measure.load.runs import load, loading
from measure.load.settings import Progress, Settings, asked, collecting
from measure.load.summary import LoadPoint
from measure.load.target import target
from measure.load.terminal import LoadProgress
from measure.slo.slo import for_p99
from measure.sweep.summary import disturbances


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command `load`."""
    parser.epilog = exit_codes("wrong labels or failed requests", keeps=True)
    parser.set_defaults(command=_load)
    loops = group(parser, "loops")
    text = "requests in flight of the closed loops; A:B: A, 2A, 4A, ... B"
    add_option(loops, "--concurrency", concurrencies, (), "N,N|A:B", text)
    text = "requests per second of the open loops; A:B:STEP: A, A+STEP, ... B"
    add_option(loops, "--rate", rates, (), "R,R|A:B:STEP", text)
    text = f"some of {','.join(MODES)} (default: unary)"
    add_option(loops, "--modes", modes(MODES), ("unary",), "M,M", text)
    add_common(parser, "results/load")
    test = add_aa(parser, "load with itself, in RUNS runs of --pairs pairs")
    add_option(test, "--pairs", positive, 10, "N", "pairs of loads in a run of --aa")


def _load(args: argparse.Namespace) -> int:
    if not args.concurrency and not args.rate:
        raise UsageError("got neither --concurrency nor --rate, expected one of them, or both")
    settings = settings_of(args)
    if args.aa is not None and args.pairs < fewest_pairs():
        raise UsageError(
            f"--aa could not fail: got --pairs {args.pairs}, expected at least "
            f"{fewest_pairs()}, as no difference is claimed of fewer"
        )
    with results_folder(settings.out):
        return _measure(settings) if args.aa is None else _calibrate(args, settings)


def _measure(settings: Settings) -> int:
    start = environment.snapshot()
    points: list[LoadPoint] = []
    unchecked_because: str | None = None
    with (
        keeping() as kept,
        LoadProgress(terminal.progress()) as progress,
        target(settings, progress) as found,
    ):
        unchecked_because = found.unchecked_because
        load(settings, found, collecting(points, progress))
    planned = len(list(asked(settings)))
    marks = kept.because(len(points), f"{len(points)} of {planned} points")
    described = environment.describe(start, environment.snapshot())
    content = load_record.to_json(encoded(settings), described, points, unchecked_because)
    content |= marks
    paths = write(settings.out, "load", content, points)
    console = terminal.results()
    for part in load_table.render(points, unchecked_because):
        console.print(part)
    verdicts.show_findings(console, disturbances(described), "read with care: ")
    verdicts.end(console, paths, kept, settings.out)
    return WRONG if any(point.errors or point.wrong_labels for point in points) else DONE


def _calibrate(args: argparse.Namespace, settings: Settings) -> int:
    """Hold the first point that was asked for against itself, on the same server."""
    settings = for_p99(settings)
    one, mode = next(asked(settings)), settings.modes[0]
    duels: list[Duel] = []

    def comparing(stack: contextlib.ExitStack) -> Comparing:
        progress = stack.enter_context(LoadProgress(terminal.progress()))
        where = stack.enter_context(target(settings, progress))

        @contextlib.contextmanager
        def side() -> Iterator[Callable[[], LoadPoint]]:
            with loading(settings, where, mode) as one_mode:
                yield lambda: one_mode.measure(one, lambda step: None)

        def claims() -> bool | None:
            duels.append(duel((side, side), args.pairs))
            return duels[-1].differs if duels[-1].could_differ else None

        return claims, lambda text: progress(Progress(text))

    return self_test(
        settings.out / "load-aa.json",
        LOAD_SCHEMA,
        args.aa,
        comparing,
        encoded(settings) | {"pairs": args.pairs},
        lambda: [run.to_json() for run in duels],
        asked=one,
    )
