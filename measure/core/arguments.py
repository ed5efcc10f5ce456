"""Parse the options that several commands share."""

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from client.connection import addresses
from client.connection.credentials import CredentialFiles
from client.errors import UsageError
from command_line import paths
from command_line.parser import group

# Groups of options in --help.
MEASUREMENT, SERVER, MODEL = "measurement", "server", "model"
EXECUTION, OUTPUT = "execution", "output"
EP_HELP = "execution provider of a server that this command starts, as for the server's --ep"


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer of at least 1")
    return value


def milliseconds(text: str) -> float:
    """Return a time over 0, in seconds."""
    return over_zero(text, "milliseconds") / 1000


def over_zero(text: str, what: str = "a number") -> float:
    """Return a finite number over 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {what} over 0")
    return value


def seconds(text: str) -> float:
    """Return a time over 0."""
    return over_zero(text, "seconds")


def sizes(text: str) -> tuple[int, ...]:
    """Return batch sizes separated by commas."""
    return tuple(positive(part) for part in text.split(","))


def concurrencies(text: str) -> tuple[int, ...]:
    """Return numbers of requests in flight: `1,4,16`, or 1, 2, 4, 8, 16 for `1:16`."""
    first, colon, last = text.partition(":")
    if not colon:
        return sizes(text)
    start, stop = positive(first), positive(last)
    if start > stop:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected FIRST:LAST, rising")
    values = []
    while start < stop:
        values.append(start)
        start *= 2
    return (*values, stop)


def rates(text: str) -> tuple[float, ...]:
    """Return rates per second: `50,80.5`, or START:STOP:STEP with both ends."""
    if ":" not in text:
        return tuple(over_zero(part) for part in text.split(","))
    parts = [over_zero(part) for part in text.split(":")]
    if len(parts) != 3 or parts[0] > parts[1]:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected START:STOP:STEP, rising")
    start, stop, step = parts
    # A step that is not a binary fraction must not lose the last rate.
    return tuple(start + number * step for number in range(int((stop - start) / step + 1e-9) + 1))


def modes(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of a comma-separated list of modes from `known`, each at most once."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if not set(names) <= set(known) or len(set(names)) != len(names):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(known)}")
        return names

    return parse


def some_of(text: str, known: Collection[str]) -> tuple[str, ...]:
    """Split a comma-separated list of names from `known`, each at most once."""
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(known)}")
    return names


def address(text: str) -> str:
    """Return server addresses unchanged; reject invalid ones."""
    try:
        addresses.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_address(parser: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
    """Declare the option for the servers' addresses."""
    group(parser, SERVER).add_argument(
        "--address",
        action="append",
        type=address,
        required=required,
        metavar="A",
        help=f"{text}: HOST:PORT or unix:/path; several: comma-separated, or repeated",
    )


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Declare the options for TLS and tokens, which `credential_files` reads."""
    for flag, unit, text in (
        ("--tls-ca", "PEM", "use TLS; accept servers whose certificate is signed by one of these"),
        ("--tls-cert", "PEM", "certificate of the client"),
        ("--tls-key", "PEM", "its key, without a passphrase"),
        ("--token-file", "FILE", "send the token in this file with every call"),
    ):
        # The sending processes run in another working directory.
        group(parser, SERVER).add_argument(
            flag, type=lambda text: str(paths.path(text).absolute()), metavar=unit, help=text
        )


def credential_files(args: argparse.Namespace) -> CredentialFiles:
    """Return the named files; UsageError if there is no --address."""
    files = CredentialFiles(
        ca=args.tls_ca, certificate=args.tls_cert, key=args.tls_key, token=args.token_file
    )
    if args.address is None and files != CredentialFiles():
        raise UsageError("got --tls-* or --token-file without --address, expected both")
    return files


def add_model(parser: argparse.ArgumentParser, results: Path) -> None:
    """Declare the options that all measurements of the linear model share."""
    group(parser, OUTPUT).add_argument(
        "--out",
        type=paths.path,
        default=results,
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    model = group(parser, MODEL)
    model.add_argument(
        "--classes", type=positive, default=64, help="rows of W (default: %(default)s)"
    )
    model.add_argument(
        "--features", type=positive, default=262_144, help="columns of W (default: %(default)s)"
    )
    model.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="dtype of W and X (default: %(default)s)",
    )
    model.add_argument("--seed", type=int, default=0, help="seed of W and X (default: %(default)s)")
    group(parser, EXECUTION).add_argument(
        "--threads",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="threads per execution, in process and in a server that this command starts "
        "(default: %(default)s)",
    )


def add_experiment(parser: argparse.ArgumentParser, results: Path) -> None:
    """Declare the options that all measurements over batch sizes share: sizes, model, examples."""
    group(parser, MEASUREMENT).add_argument(
        "--batch-sizes",
        type=sizes,
        default=tuple(2**k for k in range(11)),
        metavar="N,N",
        help="rows per batch (default: 1,2,4,...,1024)",
    )
    add_model(parser, results)
    group(parser, MODEL).add_argument(
        "--examples",
        type=positive,
        metavar="N",
        help="rows of X (default: 1024, or the largest batch size if larger)",
    )


def examples(args: argparse.Namespace) -> int:
    """Return the number of rows of X; UsageError if a batch size exceeds it."""
    count: int = args.examples or max(1024, *args.batch_sizes)
    if max(args.batch_sizes) > count:
        raise UsageError(f"batch size {max(args.batch_sizes)} is over --examples {count}")
    return count
