"""The commands `load` and `slo`: their options, what they print and write."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from client import environment, load_plots, load_record, load_table, record, slo_table
from client.arguments import add_model, concurrencies, modes, over_zero, positive, rates, seconds
from client.arrivals import ARRIVALS
from client.errors import UsageError
from client.load import Settings, Windows, load, target
from client.load_job import MODES
from client.load_summary import LoadPoint
from client.load_terminal import LoadProgress
from client.slo import slo

DONE, WRONG = 0, 1
_PLAIN_WIDTH = 120


def add_load(commands: Any) -> None:
    """Add the command `load`."""
    parser = commands.add_parser("load", help="latency under load, in closed or open loops")
    parser.set_defaults(command=_load)
    parser.add_argument(
        "--concurrency",
        type=concurrencies,
        default=(),
        metavar="N,N|A:B",
        help="closed loops with so many requests under way; A:B: A, 2A, 4A, ... B",
    )
    parser.add_argument(
        "--rate",
        type=rates,
        default=(),
        metavar="R,R|A:B:STEP",
        help="open loops with so many requests a second",
    )
    parser.add_argument(
        "--modes",
        type=modes(MODES),
        default=("unary",),
        metavar="M,M",
        help=f"of {','.join(MODES)} (default: unary)",
    )
    _add_common(parser, Path("results/load"))


def add_slo(commands: Any) -> None:
    """Add the command `slo`."""
    parser = commands.add_parser("slo", help="highest rate whose p99 stays within a bound")
    parser.set_defaults(command=_slo, concurrency=(), rate=())
    parser.add_argument(
        "--p99-ms", type=over_zero, required=True, metavar="MS", help="the bound, in milliseconds"
    )
    parser.add_argument(
        "--start",
        type=over_zero,
        default=20.0,
        metavar="R",
        help="first rate that is tried, in requests a second (default: %(default)s)",
    )
    parser.add_argument(
        "--most",
        type=over_zero,
        default=100_000.0,
        metavar="R",
        help="highest rate that is tried (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        type=over_zero,
        default=0.05,
        metavar="SHARE",
        help="how near the lowest rate that misses must be (default: %(default)s)",
    )
    parser.add_argument(
        "--mode",
        dest="modes",
        type=_mode,
        default=("unary",),
        metavar="M",
        help=f"one of {','.join(MODES)} (default: unary)",
    )
    _add_common(parser, Path("results/slo"))


def _add_common(parser: argparse.ArgumentParser, out: Path) -> None:
    add_model(parser, out)

    def add(flag: str, kind: Any, default: Any, metavar: str, text: str) -> None:
        parser.add_argument(
            flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: %(default)s)"
        )

    parser.add_argument("--address", metavar="A", help="load this server (default: one of its own)")
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


def _settings(args: argparse.Namespace) -> Settings:
    if args.processes > 1 and args.concurrency and min(args.concurrency) < args.processes:
        raise UsageError(
            f"--concurrency {min(args.concurrency)} is less than --processes {args.processes}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
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
    )


def _load(args: argparse.Namespace) -> int:
    if not args.concurrency and not args.rate:
        raise UsageError("neither --concurrency nor --rate came; wanted one of them, or both")
    settings = _settings(args)
    console = _console()
    start = environment.snapshot()
    with LoadProgress(console) as progress, target(settings, progress) as found:
        points = load(settings, found, progress)
    described = environment.describe(start, environment.snapshot())
    content = load_record.to_json(asdict(settings), described, points, found.unchecked_because)
    paths = _write(settings.out, "load", content, points)
    for part in load_table.render(points, found.unchecked_because):
        console.print(part)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    return WRONG if any(point.errors or point.wrong_labels for point in points) else DONE


def _slo(args: argparse.Namespace) -> int:
    settings = _settings(args)
    console = _console()
    start = environment.snapshot()
    p99_ns = round(args.p99_ms * 1e6)
    with LoadProgress(console) as progress, target(settings, progress) as where:
        found, trials = slo(
            settings, where, p99_ns, args.start, args.precision, args.most, progress
        )
    described = environment.describe(start, environment.snapshot())
    points = [trial.point for trial in trials]
    searched = {
        "p99_ms": args.p99_ms,
        "start": args.start,
        "most": args.most,
        "precision": args.precision,
    }
    content = load_record.to_json(
        asdict(settings) | searched, described, points, where.unchecked_because
    )
    content["found"] = asdict(found)
    content["answer"] = slo_table.answer(found, args.p99_ms)
    content["trials"] = [{"met": trial.met, "because": trial.because} for trial in trials]
    paths = _write(settings.out, "slo", content, points)
    for part in slo_table.render(found, trials, args.p99_ms, where.unchecked_because):
        console.print(part)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    wrong = any(point.wrong_labels for point in points)
    return WRONG if wrong or found.met is None or found.untold is not None else DONE


def _console() -> Console:
    """Wide enough for the tables, where nobody says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _write(
    folder: Path, name: str, content: Mapping[str, Any], points: Sequence[LoadPoint]
) -> list[Path]:
    """Write the record, then the views of it; their paths."""
    paths = [folder / f"{name}.json", folder / f"{name}.csv"]
    record.write_text_atomically(paths[0], record.dumps(content))
    load_record.write_csv(paths[1], points)
    for loop in dict.fromkeys(point.asked.loop for point in points):
        paths.append(folder / f"{name}-{loop}-loop.png")
        record.write_bytes_atomically(paths[-1], load_plots.latency_png(points, loop))
    return paths


def _mode(text: str) -> tuple[str, ...]:
    chosen = modes(MODES)(text)
    if len(chosen) != 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted one of {','.join(MODES)}")
    return chosen
