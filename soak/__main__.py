"""Hold the service to its promises for as long as there is time: `python -m soak`."""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from client import environment
from client.errors import UsageError
from client.record import dumps, write_text_atomically
from protos import buffers
from soak import record
from soak.parts import PARTS
from soak.show import show
from soak.tally import Tally
from text_tables import new_console


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write. 0: nothing failed, however far it came; 1: something did; 2: it could not."""
    buffers.keep_in_process()
    # Ending by SIGTERM must end what was started, too.
    signal.signal(signal.SIGTERM, _interrupt)
    args = _parser().parse_args(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        return _soak(args)
    except (UsageError, OSError) as error:
        print(f"soak: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("soak: error: interrupted", file=sys.stderr)
        return 2


def _soak(args: argparse.Namespace) -> int:
    console = new_console(highlight=False)
    start = environment.snapshot()
    parts = []
    for done in _run(args.only, args.seconds, args.seed):
        parts.append(done)
        told = f"{done.name}: {done.tally.done:,} done, {done.tally.failed} failed"
        console.print(f"{told}, {done.seconds:.0f} s", soft_wrap=True)
        # Written anew after each part: what was found stays, whatever becomes of the next.
        described = environment.describe(start, environment.snapshot())
        content = record.to_json(described, args.seconds / 60, args.seed, parts)
        write_text_atomically(args.out / "soak.json", dumps(content))
    show(console, content)
    console.print(str(args.out / "soak.json"), soft_wrap=True)
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
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=_positive, default=1200.0, help="for all parts (default: %(default)g)"
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=tuple(PARTS),
        metavar="PART,PART",
        help=f"of {','.join(PARTS)} (default: all)",
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(2**31), help="of what is drawn by chance"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/soak"), metavar="DIR", help="%(default)s"
    )
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a number over 0")
    return value


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted some of {','.join(PARTS)}")
    return names


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
