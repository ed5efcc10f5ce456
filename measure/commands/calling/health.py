"""The command `health`: whether servers or a model accept requests, for exec probes."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.errors import RequestFailed, UsageError
from command_line.parser import DONE, WRONG, add_option, exit_codes, group
from measure.core import options
from measure.core.arguments import seconds
from measure.servers.replicas import Replica, connected, replicas_of

# Probes are repeated by their caller.
_ONCE = RetryPolicy(attempts=1)
_LEAST_S = 0.001
_MOST_AT_ONCE = 32


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("a server is not ready, with the reason on stdout")
    parser.set_defaults(command=_health)
    server = group(parser, options.SERVER)
    options.add_address(parser, "server to probe, of several each", required=True)
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
    credentials = options.credential_files(args).read()
    replicas = replicas_of(",".join(args.address))
    if len(replicas) == 1:
        holds, text = _probed(replicas[0], args, credentials)
        print(text)
        return DONE if holds else WRONG
    with ThreadPoolExecutor(min(len(replicas), _MOST_AT_ONCE)) as pool:
        found = list(pool.map(lambda replica: _probed(replica, args, credentials), replicas))
    for replica, (_, text) in zip(replicas, found, strict=True):
        print(f"{replica.address}: {text}")
    return DONE if all(holds for holds, _ in found) else WRONG


def _probed(
    replica: Replica, args: argparse.Namespace, credentials: Credentials
) -> tuple[bool, str]:
    """Whether a server is as it should be, in words too."""
    end_s = time.monotonic() + args.timeout_s
    what = "live" if args.live else "ready"
    with connected(replica, args.model or "", args.version, credentials, retry=_ONCE) as client:
        try:
            # First, for the reason why a server cannot be reached.
            holds = client.live(timeout_s=args.timeout_s)
            left_s = max(end_s - time.monotonic(), _LEAST_S)
            if args.model is not None:
                holds = client.ready(timeout_s=left_s)
            elif not args.live:
                holds = client.server_ready(timeout_s=left_s)
        except RequestFailed as error:
            return False, f"not ready: {error}"
    return holds, what if holds else f"not {what}"
