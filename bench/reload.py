"""Swap what a model computes while clients ask, and hold every answer against both contents.

python -m bench.reload [SWAPS [OPTION...]], options of the server: 0 when no request failed, and
each answer was wholly of a content that served between its sending and its arrival.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray

from bench.guarded import guarded
from bench.service import MIB
from client.arguments import positive
from client.channel import RetryPolicy
from client.client import Client
from client.server_process import running_server
from command_line.parser import Parser, exit_codes
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub

MODEL = "swapped"
SWAPS = 500
CLASSES, FEATURES = 64, 4096
# A batch takes 8 rows and a slice of one request 32, so that many requests take several of them.
OPTIONS = ("--model-control", "explicit", "--load-model", MODEL, "--group-rows", "8")
MOST_ROWS = 70
MESSAGES_PER_STREAM = 50
UNARY, STREAMS = 3, 3
_TIMEOUT_S = 60.0

Labels = NDArray[np.int64]


@dataclass(slots=True)
class Outcome:
    """What became of the requests; everything but `answered` ought to be 0."""

    answered: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    mixed: int = 0
    stale: int = 0
    resident_mib: list[float] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every request of both kinds got a right answer."""
        return not (self.errors or self.mixed or self.stale) and len(self.answered) == 2


class Swaps:
    """Two contents that agree on no example, and which of them may answer when."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        weights = from_seed(CLASSES, FEATURES, 0)
        # The same scores, each of another class: what was the largest is so one place further.
        self._contents = (weights, np.roll(weights, 1, axis=0))
        self.x = np.random.default_rng(1).standard_normal((MOST_ROWS, FEATURES), np.float32)
        labels = (self.x @ weights.astype(np.float32).T).argmax(axis=1)
        self._labels = (labels, (labels + 1) % CLASSES)
        self.begun = self.done = 0
        self.write(0)

    def write(self, number: int) -> None:
        """Put the content of a swap where the server finds it."""
        export(self._folder, MODEL, self._contents[number % 2], "float32")

    def swap(self, load: Callable[[], object]) -> None:
        """Let the other content serve; it does once `load` returns."""
        self.begun += 1
        self.write(self.begun)
        load()
        self.done = self.begun

    def judge(self, outcome: Outcome, done_when_sent: int, labels: Labels) -> None:
        """Count an answer that is of neither content, or of one that did not serve."""
        begun = self.begun
        of = [n for n in (0, 1) if np.array_equal(labels, self._labels[n][: len(labels)])]
        if not of:
            outcome.mixed += 1
        elif of[0] not in {n % 2 for n in range(done_when_sent, begun + 1)}:
            outcome.stale += 1


class Askers:
    """Clients that ask without a pause until the block ends."""

    def __init__(self, address: str, swaps: Swaps, outcome: Outcome) -> None:
        self._address = address
        self._swaps = swaps
        self._outcome = outcome
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask for the time of the block."""
        ways = [("unary", self._unary)] * UNARY + [("stream", self._stream)] * STREAMS
        threads = [
            threading.Thread(target=self._run, args=(name, ask, seed))
            for seed, (name, ask) in enumerate(ways)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(_TIMEOUT_S)

    def wait_for_more(self) -> None:
        """Return once each kind of client was answered anew."""
        with self._lock:
            before = self._outcome.answered.copy()
        end = time.monotonic() + _TIMEOUT_S
        while any(self._outcome.answered[name] <= before[name] for name in ("unary", "stream")):
            if self._outcome.errors or time.monotonic() > end:
                return
            time.sleep(0.001)

    def _run(self, name: str, ask: Callable[[Client, Iterator[int]], None], seed: int) -> None:
        sizes = np.random.default_rng(seed)
        rows = iter(lambda: int(sizes.integers(1, MOST_ROWS + 1)), None)
        with Client(
            self._address, MODEL, deadline_s=_TIMEOUT_S, retry=RetryPolicy(attempts=1)
        ) as client:
            while not self._stop.is_set():
                try:
                    ask(client, rows)
                except Exception as error:
                    with self._lock:
                        self._outcome.errors.append(f"{name}: {error!r}")

    def _unary(self, client: Client, rows: Iterator[int]) -> None:
        sent = self._swaps.done
        self._judge("unary", sent, client.predict(self._swaps.x[: next(rows)]))

    def _stream(self, client: Client, rows: Iterator[int]) -> None:
        sent: deque[int] = deque()

        def batches() -> Iterator[NDArray[np.float32]]:
            for _ in range(MESSAGES_PER_STREAM):
                if self._stop.is_set():
                    return
                sent.append(self._swaps.done)
                yield self._swaps.x[: next(rows)]

        for labels in client.stream(batches()):
            self._judge("stream", sent.popleft(), labels)

    def _judge(self, name: str, done_when_sent: int, labels: Labels) -> None:
        with self._lock:
            self._swaps.judge(self._outcome, done_when_sent, labels)
            self._outcome.answered[name] += 1


def run(folder: Path, count: int, options: Sequence[str] = ()) -> Outcome:
    """Swap `count` times, each once every kind of client was answered since the last."""
    outcome = Outcome()
    swaps = Swaps(folder)
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder, (*OPTIONS, *options)))
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        stub = GRPCInferenceServiceStub(channel)
        request = pb.RepositoryModelLoadRequest(model_name=MODEL)
        askers = Askers(server.address, swaps, outcome)
        stack.enter_context(askers.asking())
        process = psutil.Process(server.pid)
        for _ in range(count):
            askers.wait_for_more()
            swaps.swap(lambda: stub.RepositoryModelLoad(request, timeout=_TIMEOUT_S))
            outcome.resident_mib.append(process.memory_info().rss / MIB)
        askers.wait_for_more()
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench.reload", description=__doc__, epilog=exit_codes("a request failed or was mixed")
    )
    parser.add_argument("count", type=positive, nargs="?", default=SWAPS, help="%(default)s")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the server")
    args = parser.parse_args(argv)
    return guarded("bench.reload", partial(_measure, args.count, args.options))


def _measure(count: int, options: Sequence[str]) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), count, options)
    print(f"{count} swaps in {time.monotonic() - started:.0f} s, {dict(outcome.answered)} answered")
    print(f"errors {len(outcome.errors)}, mixed {outcome.mixed}, stale {outcome.stale}")
    for error in outcome.errors[:5]:
        print(" ", error)
    tenth = max(1, count // 10)
    first, last = outcome.resident_mib[:tenth], outcome.resident_mib[-tenth:]
    print(f"resident MiB, highest of the first tenth {max(first):.0f}, of the last {max(last):.0f}")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
