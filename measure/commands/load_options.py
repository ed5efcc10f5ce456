"""The options and results that the commands `load` and `slo` share."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.errors import UsageError
from command_line.parser import add_renamed, group
from measure.core.arguments import (
    EP_HELP,
    EXECUTION,
    SERVER,
    add_credentials,
    add_model,
    address,
    credential_files,
    positive,
    seconds,
)
from measure.core.record import write_bytes_atomically, write_record
from measure.engine.arrivals import ARRIVALS
from measure.load import plots as load_plots
from measure.load import record as load_record
from measure.load.settings import Settings, Windows
from measure.load.summary import LoadPoint


def add_common(parser: argparse.ArgumentParser, out: Path) -> None:
    """Declare the shared options: server, request, windows, execution, output."""

    server = group(parser, SERVER)
    server.add_argument(
        "--address",
        type=address,
        metavar="A",
        help="server to load: HOST:PORT or unix:/path (default: start one)",
    )
    add_credentials(parser)
    server.add_argument(
        "--model",
        default="linear_argmax",
        metavar="M",
        help="name of the model (default: %(default)s)",
    )
    server.add_argument(
        "--model-version",
        default="",
        metavar="V",
        help="version of the model (default: the highest)",
    )

    load = group(parser, "requests")
    load.add_argument(
        "--rows",
        type=positive,
        default=1,
        metavar="N",
        help="rows of a request (default: %(default)s)",
    )
    load.add_argument(
        "--arrivals",
        choices=ARRIVALS,
        default="poisson",
        help="gaps between the requests of open loops: random or equal (default: %(default)s)",
    )
    load.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="sending processes (default: %(default)s)",
    )
    add_renamed(
        load,
        "--timeout-s",
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="seconds after which a request has failed (default: %(default)s)",
    )

    windows = group(parser, "windows")
    add_renamed(
        windows,
        "--warm-up-s",
        "--warm-up",
        type=seconds,
        default=1.0,
        metavar="S",
        help="seconds before the first window, which are not counted (default: %(default)s)",
    )
    add_renamed(
        windows,
        "--window-s",
        "--window",
        type=seconds,
        default=1.0,
        metavar="S",
        help="least seconds of a window (default: %(default)s)",
    )
    windows.add_argument(
        "--window-requests",
        type=positive,
        default=0,
        metavar="N",
        help="least requests of a window (default: 0)",
    )
    windows.add_argument(
        "--max-windows",
        type=positive,
        default=10,
        metavar="N",
        help="most windows, if three never agree (default: %(default)s)",
    )
    group(parser, EXECUTION).add_argument(
        "--ep",
        default="cpu",
        metavar="NAME[:key=value,...]",
        help=f"{EP_HELP} (default: %(default)s)",
    )
    add_model(parser, out)


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of the options; UsageError if they contradict each other."""
    if args.processes > 1 and args.concurrency and min(args.concurrency) < args.processes:
        raise UsageError(
            f"--concurrency {min(args.concurrency)} is less than --processes {args.processes}"
        )
    files = credential_files(args)
    return Settings(
        address=args.address,
        model=args.model,
        version=args.model_version,
        modes=args.modes,
        rows=args.rows,
        concurrencies=args.concurrency,
        rates_per_s=args.rate,
        arrivals=args.arrivals,
        processes=args.processes,
        windows=Windows(args.warm_up_s, args.window_s, args.window_requests, args.max_windows),
        timeout_s=args.timeout_s,
        classes=args.classes,
        features=args.features,
        dtype=args.dtype,
        seed=args.seed,
        threads=args.threads,
        ep=args.ep,
        out=args.out,
        credential_files=files,
    )


def write(
    folder: Path, name: str, content: Mapping[str, Any], points: Sequence[LoadPoint]
) -> list[Path]:
    """Write the record, then the views of it; their paths."""
    paths = [folder / f"{name}.json", folder / f"{name}.csv"]
    write_record(paths[0], content)
    load_record.write_csv(paths[1], points)
    for loop in dict.fromkeys(point.asked.loop for point in points):
        paths.append(folder / f"{name}-{loop}-loop.png")
        write_bytes_atomically(paths[-1], load_plots.latency_png(points, loop))
    return paths
