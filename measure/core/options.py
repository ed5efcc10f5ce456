"""Declare the options that several commands share."""

import argparse
from pathlib import Path

from client.connection.channel import Balancing
from client.connection.credentials import CredentialFiles
from client.errors import UsageError
from command_line import paths
from command_line.parser import add_option, group
from command_line.resources import cores
from measure.core.arguments import address, over_zero, positive, seconds, sizes
from transport.calling.resolving import Resolving
from transport.calling.servers import POLICIES

# Groups of options in --help.
MEASUREMENT, SERVER, MODEL = "measurement", "server", "model"
EXECUTION, OUTPUT = "execution", "output"

Options = argparse._ActionsContainer


def add_address(parser: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
    """Declare the option for the servers' addresses, which `addresses` joins."""
    group(parser, SERVER).add_argument(
        "--address",
        action="append",
        type=address,
        required=required,
        metavar="A",
        help=f"{text}: HOST:PORT or unix:/path; several: comma-separated, or repeated, or a name "
        "that has several; a list of servers: file:PATH, or ray://HOST:PORT[/APPLICATION]",
    )


def addresses(args: argparse.Namespace) -> str | None:
    """The servers' addresses, separated by commas; None if none are given."""
    return None if args.address is None else ",".join(args.address)


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


def add_balancing(parser: argparse.ArgumentParser) -> None:
    """Declare the options for several servers, which `balancing` reads."""
    server = group(parser, SERVER)
    server.add_argument(
        "--balance",
        choices=POLICIES,
        default=POLICIES[0],
        help="of several servers, send a request to the one with the fewest of this client, or to "
        "all in turn (default: %(default)s)",
    )
    text = "seconds after which names and lists of servers are looked up again"
    add_option(server, "--resolve-s", seconds, Resolving().every_s, "S", text)


def balancing(args: argparse.Namespace) -> Balancing:
    """How calls are spread over several servers."""
    return Balancing(args.balance, Resolving(args.resolve_s))


def credential_files(args: argparse.Namespace) -> CredentialFiles:
    """Return the named files; UsageError if there is no --address."""
    files = CredentialFiles(
        ca=args.tls_ca, certificate=args.tls_cert, key=args.tls_key, token=args.token_file
    )
    if args.address is None and files != CredentialFiles():
        raise UsageError("got --tls-* or --token-file without --address, expected both")
    return files


def add_server(parser: argparse.ArgumentParser, use: str, model: str) -> None:
    """Declare the options for servers and their model; `use`: what the command does with them."""
    add_address(parser, f"server to {use} (default: start one)")
    add_credentials(parser)
    add_balancing(parser)
    add_option(group(parser, SERVER), "--model", str, model, "M", "name of the model")


def add_version(parser: argparse.ArgumentParser) -> None:
    """Declare the option for the version of the model."""
    text = "version of the model (default: the highest)"
    add_option(group(parser, SERVER), "--model-version", str, "", "V", text)


def add_ep(
    parser: argparse.ArgumentParser,
    text: str = "execution provider of a server that this command starts, as for the server's --ep",
) -> None:
    """Declare the option for the execution provider."""
    add_option(group(parser, EXECUTION), "--ep", str, "cpu", "NAME[:key=value,...]", text)


def add_rows(options: Options) -> None:
    """Declare the option for the size of a request."""
    add_option(options, "--rows", positive, 1, "N", "rows of a request")


def add_timeout(options: Options, text: str = "after which a request has failed") -> None:
    """Declare the option for a time limit."""
    add_option(options, "--timeout-s", seconds, 30.0, "S", f"seconds {text}", former="--timeout")


def add_p99(options: Options) -> None:
    """Declare the bound of p99, which must be given."""
    text = "bound of p99, in milliseconds"
    options.add_argument("--p99-ms", type=over_zero, required=True, metavar="MS", help=text)


def add_aa(parser: argparse.ArgumentParser, what: str) -> Options:
    """Declare the option for an A/A test of `what`, and return its group."""
    test = group(parser, "A/A test")
    text = (
        f"A/A test: compare the first {what}; exit code 1 if more than a tenth of the runs report "
        "a difference"
    )
    add_option(test, "--aa", positive, None, "RUNS", text)
    return test


def add_out(options: Options, results: str, what: str = "results") -> None:
    """Declare the option for the folder of the results."""
    add_option(options, "--out", paths.path, Path(results), "DIR", f"folder for the {what}")


def add_size(options: Options) -> None:
    """Declare the options for the size of the linear model."""
    add_option(options, "--classes", positive, 64, None, "rows of W")
    add_option(options, "--features", positive, 262_144, None, "columns of W")


def add_seed(options: Options) -> None:
    """Declare the option for the seed of model and examples."""
    add_option(options, "--seed", int, 0, None, "seed of W and X")


def add_threads(options: Options, where: str) -> None:
    """Declare the option for the threads of one execution."""
    add_option(options, "--threads", positive, cores(), "N", f"threads per execution, in {where}")


def add_model(parser: argparse.ArgumentParser, results: str) -> None:
    """Declare the options that all measurements of the linear model share."""
    add_out(group(parser, OUTPUT), results)
    model = group(parser, MODEL)
    add_size(model)
    model.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="dtype of W and X (default: %(default)s)",
    )
    add_seed(model)
    execution = group(parser, EXECUTION)
    add_threads(execution, "process and in a server that this command starts")


def add_experiment(parser: argparse.ArgumentParser, results: str) -> None:
    """Declare the options that all measurements over batch sizes share: sizes, model, examples."""
    powers = tuple(2**k for k in range(11))
    text = "rows per batch (default: 1,2,4,...,1024)"
    add_option(group(parser, MEASUREMENT), "--batch-sizes", sizes, powers, "N,N", text)
    add_model(parser, results)
    text = "rows of X (default: 1024, or the largest batch size if larger)"
    add_option(group(parser, MODEL), "--examples", positive, None, "N", text)


def examples(args: argparse.Namespace) -> int:
    """Return the number of rows of X; UsageError if a batch size exceeds it."""
    count: int = args.examples or max(1024, *args.batch_sizes)
    if max(args.batch_sizes) > count:
        raise UsageError(f"batch size {max(args.batch_sizes)} is over --examples {count}")
    return count
