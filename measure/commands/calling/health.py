"""The command `health`: whether a server or a model accepts requests, for exec probes."""

import argparse
import time

from client.client import Client
from client.connection import addresses
from client.connection.channel import RetryPolicy
from client.errors import RequestFailed, UsageError
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.core import options
from measure.core.arguments import seconds

# Probes are repeated by their caller.
_ONCE = RetryPolicy(attempts=1)
_LEAST_S = 0.001


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("not ready, with the reason on stdout")
    parser.set_defaults(command=_health)
    server = group(parser, options.SERVER)
    options.add_address(parser, "server to probe", required=True)
    options.add_credentials(parser)
    text = "whether this model accepts requests (default: whether the server does)"
    add_option(server, "--model", str, None, "M", text)
    add_option(server, "--version", str, "", "V", "version of the model (default: the highest)")
    server.add_argument(
        "--live", action="store_true", help="only whether the server answers, ready or not"
    )
    add_option(server, "--timeout-s", seconds, 5.0, "S", "seconds, connecting included")


def _health(args: argparse.Namespace) -> int:
    if args.live and (args.model is not None or args.version):
        raise UsageError("got --live with --model or --version, expected one of them")
    if args.version and args.model is None:
        raise UsageError("got --version without --model, expected both")
    probed = addresses.parse(args.address)
    if addresses.several(probed):
        named = f"{len(probed)} servers" if len(probed) > 1 else "a list of servers"
        raise UsageError(f"--address names {named}, expected one")
    credentials = options.credential_files(args).read()
    end_s = time.monotonic() + args.timeout_s
    with Client(
        probed, args.model or "", args.version, retry=_ONCE, credentials=credentials
    ) as client:
        try:
            # First, for the reason why a server cannot be reached.
            live = client.live(timeout_s=args.timeout_s)
            if args.live:
                return _said("live", holds=live)
            left_s = max(end_s - time.monotonic(), _LEAST_S)
            if args.model is None:
                return _said("ready", holds=client.server_ready(timeout_s=left_s))
            return _said("ready", holds=client.ready(timeout_s=left_s))
        except RequestFailed as error:
            print(f"not ready: {error}")
            return WRONG


def _said(what: str, *, holds: bool) -> int:
    print(what if holds else f"not {what}")
    return DONE if holds else WRONG
