"""Test the promises of the service for a given time: `python -m soak`."""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from command_line import terminal
from command_line.interruption import keeping, results_folder
from command_line.parser import Parser, add_option, exit_codes
from measure.core import environment
from measure.core.arguments import over_zero, some_of
from measure.core.judged import guarded
from measure.core.options import add_out
from measure.core.record import write_record
from protos import malloc
from soak import record
from soak.promises import PARTS
from soak.show import show
from soak.tally import Tally


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write the record. 0: nothing failed; 1: something failed; 2: it could not run."""
    args = _parser().parse_args(argv)
    malloc.keep_in_process()
    return guarded("soak", partial(_run_in_folder, args))


def _run_in_folder(args: argparse.Namespace) -> int:
    for name in args.only:
        _ = PARTS[name].run  # a missing package must be an error before anything is measured
    with results_folder(args.out):
        return _soak(args)


def _soak(args: argparse.Namespace) -> int:
    notes = terminal.progress()
    start = environment.snapshot()
    parts: list[record.Done] = []
    path = args.out / "soak.json"

    def content() -> dict[str, Any]:
        described = environment.describe(start, environment.snapshot())
        return record.to_json(described, args.seconds / 60, args.seed, parts)

    with keeping() as kept:
        for done in _run(args.only, args.seconds, args.seed):
            parts.append(done)
            summary = f"{done.name}: {done.tally.done:,} done, {done.tally.failed} failed"
            notes.print(f"{summary}, {done.seconds:.0f} s", soft_wrap=True)
            # Written again after each part, so that results stay even if the next part fails.
            write_record(path, content())
    whole = content() | kept.because(len(parts), f"{len(parts)} of {len(args.only)} parts")
    write_record(path, whole)
    console = terminal.results()
    show(console, whole)
    console.print(str(path), soft_wrap=True)
    kept.end(args.out)
    return 1 if any(part.tally.failed for part in parts) else 0


def _run(names: Sequence[str], seconds: float, seed: int) -> Iterator[record.Done]:
    end_s = time.monotonic() + seconds
    shares_left = sum(PARTS[name].share for name in names)
    for name in names:
        part = PARTS[name]
        started_s = time.monotonic()
        allowed_s = max(0.0, end_s - started_s) * part.share / shares_left
        shares_left -= part.share
        tally = Tally(part.target, allowed_s, seed)
        with tempfile.TemporaryDirectory() as folder:
            try:
                part.run(tally, Path(folder))
            except Exception as error:
                tally.fail(f"the part {name!r} itself", repr(error))
        tally.close()
        yield record.Done(name, tally, time.monotonic() - started_s)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="soak", description=__doc__, epilog=exit_codes("a promise was broken", keeps=True)
    )
    text = "seconds for all parts together (default: %(default)g)"
    add_option(parser, "--seconds", over_zero, 1200.0, None, text)
    text = f"parts to run, of {','.join(PARTS)} (default: all)"
    parts = tuple(PARTS)
    add_option(parser, "--only", lambda given: some_of(given, PARTS), parts, "PART,PART", text)
    text = "seed of all random choices (default: random)"
    add_option(parser, "--seed", int, random.randrange(2**31), None, text)
    add_out(parser, "results/soak", "record")
    return parser
