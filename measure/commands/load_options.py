"""What the commands `load` and `slo` are told alike, and what both write."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from client.errors import UsageError
from measure.core.arguments import (
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
from measure.sweep.summary import disturbances


def add_common(parser: argparse.ArgumentParser, out: Path) -> None:
    """Declare what is loaded, how long, by what."""
    add_model(parser, out)

    def add(flag: str, kind: Any, default: Any, metavar: str, text: str) -> None:
        parser.add_argument(
            flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: %(default)s)"
        )

    parser.add_argument(
        "--address",
        type=address,
        metavar="A",
        help="load this server (default: one of its own)",
    )
    add_credentials(parser)
    add("--model", str, "linear_argmax", "M", "name of the model")
    parser.add_argument("--model-version", default="", metavar="V", help="default: the newest")
    add("--rows", positive, 1, "N", "rows of a request")
    parser.add_argument(
        "--arrivals",
        choices=ARRIVALS,
        default="poisson",
        help="of open loops: evenly, or as chance has it (default: %(default)s)",
    )
    add("--processes", positive, 1, "N", "processes that send")
    add("--warm-up", seconds, 1.0, "S", "seconds that do not count")
    add("--window", seconds, 1.0, "S", "seconds of a window, at least")
    parser.add_argument(
        "--window-requests",
        type=positive,
        default=0,
        metavar="N",
        help="requests of a window, at least (default: any)",
    )
    add("--max-windows", positive, 10, "N", "windows to end with even if three never agree")
    add("--timeout", seconds, 30.0, "S", "a request that takes longer failed")
    parser.add_argument(
        "--ep",
        default="cpu",
        metavar="NAME[:key=value,...]",
        help="execution provider of a server of its own, as the server's --ep (default: cpu)",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings that options make. UsageError."""
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
        windows=Windows(args.warm_up, args.window, args.window_requests, args.max_windows),
        timeout_s=args.timeout,
        classes=args.classes,
        features=args.features,
        dtype=args.dtype,
        seed=args.seed,
        threads=args.threads,
        ep=args.ep,
        out=args.out,
        credential_files=files,
    )


def show_disturbances(console: Console, around: Mapping[str, Any]) -> None:
    """Print what of the machine may have disturbed a measurement, as the page says it."""
    for finding in disturbances(around):
        console.print(Text(f"read with care: {finding.text}", style="yellow"))


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
