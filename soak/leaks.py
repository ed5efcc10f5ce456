"""Measure a server's memory, descriptors and threads under requests of one kind."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from measure.core.local_server import SERVER, running_server
from soak.growth import FEWEST, Slope, slope
from soak.request_kinds import OPTIONS, UNTRIED, Asker, prepare
from soak.tally import Tally

# Requests of each kind. The first third is a warm-up, so that 10,000 are measured: the buffers and
# allocator caches of each thread reach their size only after thousands of requests.
REQUESTS = 15_000
KINDS = ("unary", "streamed", "cancelled", "failed", "shared memory", "reload")
_SAMPLES = 60
_WARM_UP_SAMPLES = _SAMPLES // 3
# Smaller total growth comes from the allocator, and pools that fill late.
_LEAST_BYTES = 2**20
_LEAST_HELD = 8
# The time limit is checked in between.
_AT_ONCE = 10
_SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Watched:
    """Leaks of `requests` of one kind: bytes per request, descriptors and threads in total."""

    kind: str
    requests: int
    bytes_a_request: Slope
    descriptors: int
    threads: int

    @property
    def grown_bytes(self) -> float:
        """Total growth of the memory by the slope."""
        return self.bytes_a_request.per_step * self.requests

    @property
    def leaks(self) -> bool:
        """Whether memory grows with the requests, or descriptors or threads stay."""
        grows = self.bytes_a_request.grows and self.grown_bytes > _LEAST_BYTES
        return grows or max(self.descriptors, self.threads) > _LEAST_HELD


def run(tally: Tally, folder: Path) -> None:
    """Count requests without a leak, equally many of every kind."""
    prepare(folder)
    each = tally.target // len(KINDS)
    for number, kind in enumerate(KINDS):
        watched = watch(tally, folder, kind, each, tally.left_s / (len(KINDS) - number))
        if watched is None:
            continue
        tally.facts[kind] = {
            **asdict(watched),
            "interval_holds_zero": watched.bytes_a_request.holds_zero,
            "leaks": watched.leaks,
        }
        if watched.leaks:
            tally.fail(kind, watched)


def watch(
    tally: Tally,
    folder: Path,
    kind: str,
    requests: int,
    allowed_s: float,
    program: Sequence[str] = SERVER,
) -> Watched | None:
    """Send requests of one kind to a separate server; None if the time was too short.

    Each sample is taken after a part of the requests, or of the time, with no request in flight.
    """
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder, (*OPTIONS, *UNTRIED), program=program))
        asker = Asker(server.address)
        stack.callback(asker.close)
        asker.fill_pools()
        process = psutil.Process(server.process.pid)
        started_s = time.monotonic()
        sent: list[int] = []
        memory: list[int] = []
        at_rest = (0, 0)
        while count := _send(tally, asker, kind, requests, started_s, allowed_s, len(sent)):
            sent.append(count + (sent[-1] if sent else 0))
            memory.append(_own_bytes(process.pid))
            if len(sent) == _WARM_UP_SAMPLES:
                at_rest = _held(process)
        measured = slice(_WARM_UP_SAMPLES, None)
        if len(sent[measured]) < FEWEST:
            tally.give_up(sent[-1] if sent else 0)
            return None
        descriptors, threads = _settled(process, at_rest)
    tally.add(sent[-1])
    watched = sent[-1] - sent[_WARM_UP_SAMPLES - 1]
    return Watched(kind, watched, slope(sent[measured], memory[measured]), descriptors, threads)


def _send(
    tally: Tally,
    asker: Asker,
    kind: str,
    requests: int,
    started_s: float,
    allowed_s: float,
    samples: int,
) -> int:
    """Send the requests before the next sample; return their number, 0 at the end."""
    most = max(1, requests // _SAMPLES)
    until_s = started_s + allowed_s * (samples + 1) / _SAMPLES
    if samples >= _SAMPLES or time.monotonic() > started_s + allowed_s:
        return 0
    sent = 0
    while sent < most and (sent == 0 or time.monotonic() < until_s):
        count = tally.take(min(_AT_ONCE, most - sent))
        if not count:
            break
        asker.kinds[kind](count)
        sent += count
    return sent


def _own_bytes(pid: int) -> int:
    """Anonymous memory of a process: in use, free in its heap, swapped out or shared.

    Pages of files are not counted: code is loaded on first use, and sharing depends on other
    processes.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return 1024 * (kib["Anonymous"] + kib["Swap"] + kib["Pss_Shmem"])


def _held(process: psutil.Process) -> tuple[int, int]:
    """Descriptors and threads."""
    return process.num_fds(), process.num_threads()


def _settled(process: psutil.Process, at_rest: tuple[int, int]) -> tuple[int, int]:
    """The increase over the idle state, after all requests have ended."""
    end_s = time.monotonic() + _SETTLE_S
    while True:
        more = tuple(max(0, now - was) for now, was in zip(_held(process), at_rest, strict=True))
        if more == (0, 0) or time.monotonic() > end_s:
            return more[0], more[1]
        time.sleep(0.05)
