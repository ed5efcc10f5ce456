"""The command `slo`: its options, what it prints and writes."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from client.errors import UsageError
from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.commands import verdicts
from measure.commands.load_options import add_common, settings_of, write
from measure.compare import axes
from measure.core import environment
from measure.core.arguments import modes, over_zero, positive
from measure.core.options import add_p99
from measure.core.record import encoded
from measure.engine.bisection import Found
from measure.engine.worker_job import MODES
from measure.load import record as load_record
from measure.load.settings import Settings
from measure.load.target import target
from measure.load.terminal import LoadProgress
from measure.slo import table as slo_table
from measure.slo import tune_table
from measure.slo.slo import Trial, found_so_far, slo
from measure.slo.tune import DEFAULTS, Candidate, Search, Tuning, trials_to_json, tune
from measure.sweep.summary import disturbances


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command `slo`."""
    parser.epilog = exit_codes("no rate is known to meet the bound, or wrong labels", keeps=True)
    parser.set_defaults(command=_slo, concurrency=(), rate=())
    search = group(parser, "search")
    add_p99(search)
    text = "first rate, in requests per second"
    add_option(search, "--start", over_zero, 20.0, "R", text)
    text = "highest rate, in requests per second"
    add_option(search, "--most", over_zero, 100_000.0, "R", text)
    text = (
        "largest gap between the highest rate that meets the bound and the lowest that misses it, "
        "as a share"
    )
    add_option(search, "--precision", over_zero, 0.05, "SHARE", text)
    search.add_argument(
        "--mode",
        dest="modes",
        type=_mode,
        default=("unary",),
        metavar="M",
        help=f"one of {','.join(MODES)} (default: unary)",
    )
    _add_tuning(parser)
    add_common(parser, "results/slo")


def _add_tuning(parser: argparse.ArgumentParser) -> None:
    tuning = group(parser, "tuning")
    tuning.add_argument(
        "--tune",
        action="store_true",
        help="then search for server options that meet the bound at a higher rate",
    )
    text = "values of --group-rows to try (default: auto,8,64)"
    add_option(tuning, "--tune-group-rows", _group_rows, ("auto", "8", "64"), "N,N", text)
    text = "values of --queue-delay-us to try (default: 0,1000,5000)"
    add_option(tuning, "--tune-queue-delays-us", _delays, (0, 1000, 5000), "US,US", text)
    tuning.add_argument(
        "--tune-option",
        action="append",
        type=axes.axis,
        default=[],
        metavar=axes.FORM,
        help="another server option with the values to try, such as instances=1,2; may be repeated",
    )
    add_option(tuning, "--tune-trials", positive, 60, "N", "most loads of the search")
    text = "pairs of loads that compare the best candidate with the defaults"
    add_option(tuning, "--tune-pairs", positive, 10, "N", text)


def _slo(args: argparse.Namespace) -> int:
    if args.tune:
        _check(args)
    settings = replace(settings_of(args), goodput_ms=args.p99_ms)
    with results_folder(settings.out):
        return _measure(args, settings)


def _measure(args: argparse.Namespace, settings: Settings) -> int:
    start = environment.snapshot()
    p99_ns = round(args.p99_ms * 1e6)
    trials: list[Trial] = []
    tuned: list[tuple[Candidate, Trial]] = []
    found: Found | None = None
    tuning: Tuning | None = None
    unchecked_because: str | None = None
    with keeping() as kept, LoadProgress(terminal.progress()) as progress:
        with target(settings, progress) as where:
            unchecked_because = where.unchecked_because
            found = slo(
                settings, where, p99_ns, args.start, args.precision, args.most, progress, trials
            )
        if args.tune and where.experiment is not None:
            search = _search(args, found)
            tuning = tune(settings, where.experiment, p99_ns, search, progress, tuned)
    marks = kept.because(len(trials), _how_far(trials, tuned))
    answered = found or found_so_far(trials)
    answer = slo_table.answer(answered, args.p99_ms)
    described = environment.describe(start, environment.snapshot())
    points = [trial.point for trial in trials]
    searched = {
        "p99_ms": args.p99_ms,
        "start": args.start,
        "most": args.most,
        "precision": args.precision,
    }
    content = load_record.to_json(
        encoded(settings) | searched, described, points, unchecked_because
    )
    content["found"] = encoded(answered)
    content["answer"] = answer if found else f"so far, {answer}"
    content["trials"] = [{"met": trial.met, "because": trial.because} for trial in trials]
    if tuning is not None:
        answer = tune_table.answer(tuning, args.p99_ms)
        content["tuning"] = encoded(tuning.to_json() | {"answer": answer})
    elif tuned:
        content["tuning"] = encoded({"trials": trials_to_json(tuned)})
    paths = write(settings.out, "slo", content | marks, points)
    console = terminal.results()
    for part in slo_table.render(answered, trials, args.p99_ms, unchecked_because):
        console.print(part)
    if tuning is not None:
        for part in tune_table.render(tuning, args.p99_ms):
            console.print(part)
    verdicts.show_findings(console, disturbances(described), "read with care: ")
    verdicts.end(console, paths, kept, settings.out)
    wrong = any(point.wrong_labels for point in [*points, *(t.point for _, t in tuned)])
    return WRONG if wrong or answered.met is None or answered.untold is not None else DONE


def _how_far(trials: Sequence[Trial], tuned: Sequence[tuple[Candidate, Trial]]) -> str:
    text = f"{len(trials)} trials"
    return f"{text} and {len(tuned)} of the tuning" if tuned else text


def _search(args: argparse.Namespace, found: Found) -> Search:
    return Search(
        candidates=_candidates(args),
        start=found.met or found.missed or found.untold or args.start,
        factor=1 + 2 * args.precision,
        most=args.most,
        trials=args.tune_trials,
        pairs=args.tune_pairs,
    )


def _candidates(args: argparse.Namespace) -> tuple[Candidate, ...]:
    more = [
        tuple(word for value in values if not value.is_default for word in value.flags)
        for values in axes.combinations(args.tune_option)
    ]
    tried = [
        Candidate(rows, delay_us, options)
        for rows in args.tune_group_rows
        for delay_us in args.tune_queue_delays_us
        for options in more
    ]
    return tuple(dict.fromkeys([DEFAULTS, *tried]))


def _check(args: argparse.Namespace) -> None:
    """UsageError for a search that cannot be made."""
    if args.address is not None:
        raise UsageError(
            "got --tune with --address, expected --tune alone: it starts its own servers"
        )
    candidates = len(_candidates(args))
    if args.tune_trials < 2 * candidates:
        raise UsageError(
            f"--tune-trials {args.tune_trials} is too few for {candidates} candidates, "
            f"expected at least {2 * candidates}"
        )


def _group_rows(text: str) -> tuple[str, ...]:
    return tuple(part if part == "auto" else str(positive(part)) for part in text.split(","))


def _delays(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected microseconds, 0 or more")
    return tuple(map(int, parts))


def _mode(text: str) -> tuple[str, ...]:
    chosen = modes(MODES)(text)
    if len(chosen) != 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected one of {','.join(MODES)}")
    return chosen
