"""The command `load`: its options, what it prints and writes."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from client.errors import UsageError
from command_line import paths, terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.commands import verdicts
from measure.commands.load_options import add_common, settings_of, write
from measure.commands.self_test import Comparing, self_test
from measure.core import environment
from measure.core.arguments import concurrencies, modes, over_zero, positive, rates
from measure.core.comparison import LOAD_SCHEMA
from measure.core.options import add_aa
from measure.core.record import encoded
from measure.engine.schedule import Schedule
from measure.engine.windows import LoopKind
from measure.engine.worker_job import MODES
from measure.load import record as load_record
from measure.load import schedule_file
from measure.load import table as load_table
from measure.load.export.export import check, exporting
from measure.load.paired import Duel, duel, fewest_pairs
from measure.load.ramp import Ramp, ramp_of
from measure.load.runs import load, loading
from measure.load.schedule_file import COLUMNS
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
    _add_varying(parser)
    add_common(parser, "results/load")
    _add_recorded(parser)
    test = add_aa(parser, "load with itself, in RUNS runs of --pairs pairs")
    add_option(test, "--pairs", positive, 10, "N", "pairs of loads in a run of --aa")


def _add_varying(parser: argparse.ArgumentParser) -> None:
    form = "FROM:TO:SECONDS[:STEPS]"
    ramps = group(parser, "ramp")
    text = "open loop whose requests per second go from FROM to TO, evenly or in STEPS"
    add_option(ramps, "--ramp", _ramp("open"), None, form, text)
    text = "closed loop whose requests in flight do so, in steps"
    add_option(ramps, "--ramp-concurrency", _ramp("closed"), None, form, text)
    replay = group(parser, "replay")
    text = f"open loop of the requests in FILE, CSV or lines of JSON: {', '.join(COLUMNS)}"
    add_option(replay, "--schedule", paths.path, None, "FILE", text)
    text = "times of --schedule are divided by this: 2 is twice as fast"
    add_option(replay, "--speed", over_zero, 1.0, "X", text)


def _add_recorded(parser: argparse.ArgumentParser) -> None:
    recorded = group(parser, "also recorded")
    text = "goodput: requests answered within so many milliseconds"
    add_option(recorded, "--goodput-ms", over_zero, None, "MS", text)
    text = "URL of the server's metrics, for its processor time, memory and counters at each point"
    add_option(recorded, "--server-metrics", str, None, "URL", text)
    text = "file for a line of each request, .csv, or with the extra [parquet] .parquet"
    add_option(recorded, "--export", paths.path, None, "FILE", text)


def _ramp(loop: LoopKind) -> Callable[[str], Ramp]:
    def parse(text: str) -> Ramp:
        try:
            return ramp_of(text, loop)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _load(args: argparse.Namespace) -> int:
    _check_combination(args)
    settings = settings_of(args)
    ramp: Ramp | None = args.ramp or args.ramp_concurrency
    if ramp is not None and ramp.loop == "closed" and min(ramp.first, ramp.last) < args.processes:
        raise UsageError(
            f"--ramp-concurrency {ramp.text} begins or ends below --processes {args.processes}"
        )
    if args.export is not None:
        check(args.export)
    schedule = None
    if args.schedule is not None:
        described, schedule = schedule_file.read(args.schedule, args.model, args.rows, args.speed)
        settings = replace(settings, schedule=described)
    settings = replace(
        settings,
        ramp=ramp,
        goodput_ms=args.goodput_ms,
        server_metrics=args.server_metrics,
        export=args.export,
    )
    if args.aa is not None and args.pairs < fewest_pairs():
        raise UsageError(
            f"--aa could not fail: got --pairs {args.pairs}, expected at least "
            f"{fewest_pairs()}, as no difference is claimed of fewer"
        )
    with results_folder(settings.out):
        if args.aa is not None:
            return _calibrate(args, settings)
        return _measure(settings, schedule)


def _check_combination(args: argparse.Namespace) -> None:
    """UsageError unless the options describe loads that can be measured together."""
    alone = {
        "--ramp": args.ramp,
        "--ramp-concurrency": args.ramp_concurrency,
        "--schedule": args.schedule,
    }
    given = [name for name, value in alone.items() if value is not None]
    loops = {"--concurrency": args.concurrency, "--rate": args.rate, "--aa": args.aa}
    others = [name for name, value in loops.items() if value]
    if not given and not args.concurrency and not args.rate:
        raise UsageError(
            "got neither --concurrency nor --rate, expected one of them, or both; or "
            f"{', '.join(alone)}"
        )
    if given and len(given) + len(others) > 1:
        raise UsageError(f"got {' and '.join([*given, *others])}, expected {given[0]} alone")
    if args.aa is not None and (args.export or args.goodput_ms):
        raise UsageError("got --aa with --export or --goodput-ms, expected --aa without them")
    if args.schedule is None and args.speed != 1:
        raise UsageError("got --speed without --schedule, expected both")
    if args.server_metrics is not None and args.address is None:
        raise UsageError(
            "got --server-metrics without --address, expected both: a server that is started here "
            "is observed anyway"
        )


def _measure(settings: Settings, schedule: Schedule | None) -> int:
    start = environment.snapshot()
    points: list[LoadPoint] = []
    unchecked_because: str | None = None
    with (
        keeping() as kept,
        LoadProgress(terminal.progress()) as progress,
        target(_with_largest(settings, schedule), progress) as found,
        exporting(settings.export, settings.out) as export,
    ):
        unchecked_because = found.unchecked_because or _unknown_models(settings)
        load(settings, found, collecting(points, progress), schedule, export)
    planned = len(list(asked(settings)))
    marks = kept.because(len(points), f"{len(points)} of {planned} points")
    described = environment.describe(start, environment.snapshot())
    content = load_record.to_json(encoded(settings), described, points, unchecked_because)
    content |= marks
    written = write(settings.out, "load", content, points)
    console = terminal.results()
    for part in load_table.render(points, unchecked_because):
        console.print(part)
    verdicts.show_findings(console, disturbances(described), "read with care: ")
    if settings.export is not None:
        written.append(settings.export)
    verdicts.end(console, written, kept, settings.out)
    return WRONG if any(point.errors or point.wrong_labels for point in points) else DONE


def _with_largest(settings: Settings, schedule: Schedule | None) -> Settings:
    """Settings of a server that takes every request, with examples for the largest."""
    if schedule is None:
        return settings
    return replace(settings, rows=max(kind.rows for kind in schedule.kinds))


def _unknown_models(settings: Settings) -> str | None:
    """Why some labels of a schedule are unchecked; None if none are."""
    models = () if settings.schedule is None else settings.schedule.models
    others = [model for model in models if model != settings.model]
    return f"the schedule has other models: {', '.join(others)}" if others else None


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
