"""Compare this service with its limits and its peers: `python -m client side-by-side`."""

import argparse
import os
from pathlib import Path

from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import exit_codes
from command_line.paths import path
from measure.core import environment
from measure.core.arguments import positive, some_of
from measure.core.judged import guarded
from measure.core.record import write_bytes_atomically, write_record
from measure.core.verification import Experiment
from measure.side_by_side import plot, record, show
from measure.side_by_side.compose import Results, run
from measure.side_by_side.contenders import NAMES
from measure.side_by_side.goals import all_goals
from measure.side_by_side.service import Settings
from protos import malloc

EXAMPLES = 1024
_FULL_ROUNDS, _QUICK_ROUNDS = 10, 4
_FULL_STREAMS, _QUICK_STREAMS = 100, 10


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = __doc__
    parser.epilog = exit_codes("wrong labels", keeps=True)
    parser.set_defaults(command=_run)
    parser.add_argument("--quick", action="store_true", help="few rounds, no peers: 5 minutes")
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help="rounds (default: 10; quick: 4)"
    )
    parser.add_argument(
        "--peers",
        type=_peers,
        metavar="P,P",
        help=f"some of {','.join(NAMES)}, or none (default: all; quick: none)",
    )
    parser.add_argument(
        "--batch-sizes",
        type=_sizes,
        default=(1, 4, 16, 64, 256, 1024),
        metavar="N,N",
        help=f"batch sizes, up to {EXAMPLES} (default: 1,4,16,64,256,1024)",
    )
    parser.add_argument(
        "--features", type=positive, default=262_144, help="columns of W (default: %(default)s)"
    )
    parser.add_argument(
        "--classes", type=positive, default=64, help="rows of W (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of W and X (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="threads per execution, in every system (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-streams",
        type=positive,
        metavar="N",
        help="streams of the memory test (default: 100; quick: 10)",
    )
    parser.add_argument(
        "--out",
        type=path,
        default=Path("results/bench"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )


def _run(args: argparse.Namespace) -> int:
    """Measure and write. 0: done, even with missed goals; 1: wrong labels; 2: cannot run."""
    settings = _settings(args)
    malloc.keep_in_process()
    return guarded("argmax-client side-by-side", lambda: _measure_in_folder(settings))


def _measure_in_folder(settings: Settings) -> int:
    with results_folder(settings.out):
        return _measure(settings)


def _measure(settings: Settings) -> int:
    notes = terminal.progress()
    start = environment.snapshot()
    results = Results()
    with keeping() as kept:
        run(settings, lambda text: notes.print(text, soft_wrap=True, markup=False), results)
    done = len({cell.batch_size for cell in results.cells})
    marks = kept.because(done, f"{done} of {len(settings.batch_sizes)} batch sizes")
    goals = all_goals(results.measured())
    described = environment.describe(start, environment.snapshot())
    content = record.to_json(settings, described, results, goals) | marks
    json_path, png_path = settings.out / "bench.json", settings.out / "throughput.png"
    write_record(json_path, content)
    write_bytes_atomically(png_path, plot.throughput_png(results.cells, results.kinds))
    console = terminal.results()
    show.show(console, settings, results, goals)
    for written in (json_path, png_path):
        console.print(str(written), soft_wrap=True)
    kept.end(settings.out)
    return 1 if any(cell.wrong_labels for cell in results.cells) else 0


def _settings(args: argparse.Namespace) -> Settings:
    quick = args.quick
    return Settings(
        experiment=Experiment(args.classes, args.features, "float32", args.seed, EXAMPLES),
        batch_sizes=args.batch_sizes,
        rounds=args.rounds or (_QUICK_ROUNDS if quick else _FULL_ROUNDS),
        threads=args.threads,
        peers=(() if quick else NAMES) if args.peers is None else args.peers,
        memory_streams=args.memory_streams or (_QUICK_STREAMS if quick else _FULL_STREAMS),
        out=args.out,
    )


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(sorted({positive(part) for part in text.split(",")}))
    if sizes[-1] > EXAMPLES:
        raise argparse.ArgumentTypeError(f"got {sizes[-1]}; there are {EXAMPLES} examples")
    return sizes


def _peers(text: str) -> tuple[str, ...]:
    return () if text == "none" else some_of(text, NAMES)
