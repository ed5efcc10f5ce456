"""Compare this service with its limits and its peers: `python -m client side-by-side`."""

import argparse

from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import add_option, exit_codes
from measure.core import environment
from measure.core.arguments import positive, some_of
from measure.core.judged import guarded
from measure.core.options import add_out, add_seed, add_size, add_threads
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
    add_option(parser, "--rounds", positive, None, "N", "rounds (default: 10; quick: 4)")
    text = f"some of {','.join(NAMES)}, or none (default: all; quick: none)"
    add_option(parser, "--peers", _peers, None, "P,P", text)
    text = f"batch sizes, up to {EXAMPLES} (default: 1,4,16,64,256,1024)"
    add_option(parser, "--batch-sizes", _sizes, (1, 4, 16, 64, 256, 1024), "N,N", text)
    add_size(parser)
    add_seed(parser)
    add_threads(parser, "every system")
    text = "streams of the memory test (default: 100; quick: 10)"
    add_option(parser, "--memory-streams", positive, None, "N", text)
    add_out(parser, "results/bench")


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
