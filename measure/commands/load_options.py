"""The options and results that the commands `load` and `slo` share."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.errors import UsageError
from command_line.parser import add_option, group
from measure.core.arguments import positive, seconds
from measure.core.options import (
    add_ep,
    add_model,
    add_rows,
    add_server,
    add_timeout,
    add_version,
    addresses,
    credential_files,
)
from measure.core.record import write_bytes_atomically, write_record
from measure.engine.arrivals import ARRIVALS
from measure.load import over_time
from measure.load import plots as load_plots
from measure.load import record as load_record
from measure.load.settings import Settings, Windows
from measure.load.summary import LoadPoint
from measure.sweep.sweep import MODEL


def add_common(parser: argparse.ArgumentParser, out: str) -> None:
    """Declare the shared options: server, request, windows, execution, output."""
    add_server(parser, "load", MODEL)
    add_version(parser)
    load = group(parser, "requests")
    add_rows(load)
    load.add_argument(
        "--arrivals",
        choices=ARRIVALS,
        default="poisson",
        help="gaps between the requests of open loops: random or equal (default: %(default)s)",
    )
    add_option(load, "--processes", positive, 1, "N", "sending processes")
    add_timeout(load)
    windows = group(parser, "windows")
    text = "seconds before the first window, which are not counted"
    add_option(windows, "--warm-up-s", seconds, 1.0, "S", text, former="--warm-up")
    text = "least seconds of a window"
    add_option(windows, "--window-s", seconds, 1.0, "S", text, former="--window")
    add_option(windows, "--window-requests", positive, 0, "N", "least requests of a window")
    add_option(windows, "--max-windows", positive, 10, "N", "most windows, if three never agree")
    add_ep(parser)
    add_model(parser, out)


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of the options; UsageError if they contradict each other."""
    if args.processes > 1 and args.concurrency and min(args.concurrency) < args.processes:
        raise UsageError(
            f"--concurrency {min(args.concurrency)} is less than --processes {args.processes}"
        )
    files = credential_files(args)
    return Settings(
        address=addresses(args),
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
        balance=args.balance,
        resolve_s=args.resolve_s,
    )


def write(
    folder: Path, name: str, content: Mapping[str, Any], points: Sequence[LoadPoint]
) -> list[Path]:
    """Write the record, then the views of it; their paths."""
    paths = [folder / f"{name}.json", folder / f"{name}.csv"]
    write_record(paths[0], content)
    load_record.write_csv(paths[1], points)
    over_load = [point for point in points if point.asked.schedule is None]
    for loop in dict.fromkeys(point.asked.loop for point in over_load):
        paths.append(folder / f"{name}-{loop}-loop.png")
        write_bytes_atomically(paths[-1], load_plots.latency_png(over_load, loop))
    if replayed := over_time.replayed(points):
        paths.append(folder / f"{name}-schedule.png")
        write_bytes_atomically(paths[-1], over_time.over_time_png(replayed))
    return paths
