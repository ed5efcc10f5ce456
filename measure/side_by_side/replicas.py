"""Measure the throughput of several servers against that of one on the same cores.

python -m measure.side_by_side.replicas [ROUNDS] [--replicas 2,3] [--threads N] [--out FILE]

One server has --threads threads per execution; the replicas divide these, at least one each. All
run on the same machine, unpinned, and take turns (ABBA): in a turn the same clients, a closed loop
of requests of one example, send to the one server or to all replicas, balanced by the client. It
prints the ratio of replicas to the one server, the median of the rounds with a 95% bootstrap
interval: of requests per second, and of requests per second of the servers' processor time, which
is the throughput per core that is busy.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from client.errors import UsageError
from command_line.parser import Parser, add_option, exit_codes
from command_line.paths import path
from command_line.resources import cores
from measure.core import environment, local_server
from measure.core.arguments import positive, seconds, sizes
from measure.core.comparison import interleaved, ratio
from measure.core.judged import guarded
from measure.core.local_server import ServerProcess
from measure.core.record import recorded, write_record
from measure.core.verification import Experiment
from measure.engine.pace import Pace
from measure.engine.processes import LoadProcesses, load_processes
from measure.engine.worker_job import Job
from measure.servers.server_use import ServerProcess as ProcessUse
from measure.side_by_side.service import Settings, serving

SCHEMA = "argmax-serving/replicas/1"
PROGRAM = "measure.side_by_side.replicas"
_ROUNDS = 20
_MODEL = "linear_argmax"
_TIMEOUT_S = 30.0
# Rows rotate, so that no request finds all of the previous one in a cache.
_EXAMPLES = 16


@dataclass(slots=True)
class Side:
    """The turns of one side, a value for each round: requests per second, and per core-second."""

    servers: int
    threads: int
    requests_per_s: list[float] = field(default_factory=list)
    requests_per_core_s: list[float] = field(default_factory=list)
    failed: int = 0
    wrong_labels: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each number of replicas."""
    parser = Parser(
        prog=PROGRAM,
        description=(__doc__ or "").partition("\n")[0],
        epilog=exit_codes("requests failed, or labels are wrong"),
    )
    parser.add_argument("rounds", type=positive, nargs="?", default=_ROUNDS, help="%(default)s")
    add_option(parser, "--replicas", sizes, (2, 3), "N,N", "numbers of replicas (default: 2,3)")
    text = "threads per execution of the one server; the replicas divide them"
    add_option(parser, "--threads", positive, cores(), "N", text)
    add_option(parser, "--concurrency", positive, 12, "N", "requests in flight, of all servers")
    add_option(parser, "--seconds", seconds, 2.0, "S", "seconds of a turn, after half of that")
    add_option(parser, "--features", positive, 262_144, None, "columns of W")
    add_option(parser, "--out", path, None, "FILE", "where to write the record")
    args = parser.parse_args(argv)
    return guarded(PROGRAM, partial(_measure, **vars(args)))


def _measure(
    rounds: int,
    replicas: tuple[int, ...],
    threads: int,
    concurrency: int,
    seconds: float,
    features: int,
    out: Path | None,
) -> int:
    if min(replicas) < 2 or concurrency < max(replicas):
        raise UsageError(
            f"got --replicas {','.join(map(str, replicas))} and --concurrency {concurrency}, "
            "expected at least 2 replicas and a request in flight for each"
        )
    start = environment.snapshot()
    experiment = Experiment(64, features, "float32", 0, _EXAMPLES)
    sides: list[Side] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        local_server.export(experiment, _MODEL, folder)
        runs = []
        for servers in (1, *replicas):
            side = Side(servers, max(threads // servers, 1))
            sides.append(side)
            pace = Pace(concurrency)
            runs.append(_side(stack, folder, experiment, side, pace, seconds))
        interleaved(runs, rounds)
    for side in sides[1:]:
        _print(side, sides[0], concurrency)
    if out is not None:
        described = environment.describe(start, environment.snapshot())
        settings = {"concurrency": concurrency, "seconds": seconds, "features": features}
        write_record(out, recorded(SCHEMA, environment=described, settings=settings, sides=sides))
    return int(any(side.failed or side.wrong_labels for side in sides))


def _side(
    stack: ExitStack, models: Path, experiment: Experiment, side: Side, pace: Pace, seconds: float
) -> Callable[[], float]:
    """Start the servers of a side and its clients; a function that takes a turn."""
    settings = Settings(experiment, (1,), 0, side.threads, (), 0, models)
    servers = [stack.enter_context(serving(models, settings)) for _ in range(side.servers)]
    job = Job(
        ",".join(server.address for server in servers),
        _MODEL,
        version="",
        mode="unary",
        rows=1,
        examples=experiment.examples,
        seed=experiment.seed,
        timeout_s=_TIMEOUT_S,
        experiment=experiment,
        timings=False,
        servers=side.servers,
    )
    clients = stack.enter_context(load_processes(job))
    return partial(_turn, clients, servers, side, pace, seconds)


def _turn(
    clients: LoadProcesses,
    servers: Sequence[ServerProcess],
    side: Side,
    pace: Pace,
    seconds: float,
) -> float:
    load = clients.start(pace, seconds / 2, seconds)
    load.slice()
    before_s = _processor_s(servers)
    seen = load.slice()
    used_s = _processor_s(servers) - before_s
    last = load.stop()
    side.failed += seen.errors.total() + last.errors.total()
    side.wrong_labels += seen.wrong_labels + last.wrong_labels
    side.requests_per_s.append(seen.rate_per_s)
    side.requests_per_core_s.append(seen.answered / used_s)
    return seen.rate_per_s


def _processor_s(servers: Sequence[ServerProcess]) -> float:
    """Processor time of all servers so far."""
    readings = [ProcessUse(server.pid).read() for server in servers]
    times_s = [one.cpu_s for one in readings if one is not None and one.cpu_s is not None]
    if len(times_s) < len(servers):
        raise UsageError("a server ended during the measurement")
    return sum(times_s)


def _print(side: Side, one: Side, concurrency: int) -> None:
    whole = ratio(side.requests_per_s, one.requests_per_s)
    each = ratio(side.requests_per_core_s, one.requests_per_core_s)
    print(
        f"{side.servers} replicas with {side.threads} threads each to one server with "
        f"{one.threads}, {concurrency} requests in flight, {whole.pairs} rounds: "
        f"requests/s {whole:.2f}, requests per busy core and second {each:.2f}; "
        f"{side.failed + one.failed} failed, {side.wrong_labels + one.wrong_labels} wrong labels",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
