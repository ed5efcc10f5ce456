"""Swap a model's content under load, and compare every answer with both contents.

python -m soak.hot_swap [SWAPS [OPTION...]], options of the server: exits with 0 if no request
failed, and each answer matches one content that served between its sending and its arrival.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import psutil

from command_line.parser import Parser, exit_codes
from measure.core.arguments import positive
from measure.core.judged import guarded
from measure.core.local_server import running_server
from measure.side_by_side.service import MIB
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.stub import InferenceStub
from soak.clients import Asking, Clients, Question
from soak.known_answers import Labels
from soak.tally import Tally

MODEL = "swapped"
SWAPS = 500
CLASSES, FEATURES = 64, 4096
# A batch has 8 rows and a slice of one request 32, so that many requests need several of them.
OPTIONS = ("--model-control", "explicit", "--load-model", MODEL, "--group-rows", "8")
MOST_ROWS = 70
MESSAGES_PER_STREAM = 50
UNARY, STREAMS = 3, 3
_TIMEOUT_S = 60.0
# Swaps per server; the time limit is checked in between.
_PER_SERVER = 25


@dataclass(slots=True)
class Outcome:
    """Counts of the requests' outcomes; all but `answered` should be 0."""

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
    """Two contents that agree on no example, and the times when each may answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        weights = from_seed(CLASSES, FEATURES, 0)
        # The same scores with classes rotated by one, so that every label changes.
        self._contents = (weights, np.roll(weights, 1, axis=0))
        self.x = np.random.default_rng(1).standard_normal((MOST_ROWS, FEATURES), np.float32)
        labels = (self.x @ weights.astype(np.float32).T).argmax(axis=1)
        self._labels = (labels, (labels + 1) % CLASSES)
        self.begun = self.done = 0
        self.write(0)

    def write(self, number: int) -> None:
        """Write the content of a swap into the repository."""
        export(self._folder, MODEL, self._contents[number % 2], "float32")

    def swap(self, load: Callable[[], object]) -> None:
        """Switch to the other content, which serves once `load` returns."""
        self.begun += 1
        self.write(self.begun)
        load()
        self.done = self.begun

    def judge(self, outcome: Outcome, done_when_sent: int, labels: Labels) -> None:
        """Count an answer that matches neither content, or one that did not serve."""
        begun = self.begun
        of = [n for n in (0, 1) if np.array_equal(labels, self._labels[n][: len(labels)])]
        if not of:
            outcome.mixed += 1
        elif of[0] not in {n % 2 for n in range(done_when_sent, begun + 1)}:
            outcome.stale += 1


def run(tally: Tally, folder: Path) -> None:
    """Count swaps during which no request failed and every answer was of a serving content."""
    while swaps := tally.take(_PER_SERVER):
        outcome = swap(folder / str(tally.done + tally.failed), swaps)
        for way, count in outcome.answered.items():
            tally.note(way, count)
        if outcome.good:
            tally.add(swaps)
            continue
        counts = f"mixed {outcome.mixed}, stale {outcome.stale}, errors {outcome.errors}"
        for _ in range(swaps):
            tally.fail(f"one of {swaps} swaps", counts)


def swap(folder: Path, count: int, options: Sequence[str] = ()) -> Outcome:
    """Swap `count` times; each swap waits until every client got an answer since the last one."""
    outcome = Outcome()
    swaps = Swaps(folder)
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder, (*OPTIONS, *options)))
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        stub = InferenceStub(channel)
        request = pb.RepositoryModelLoadRequest(model_name=MODEL)
        clients = stack.enter_context(_clients(server.address, swaps, outcome))
        process = psutil.Process(server.pid)
        for _ in range(count):
            clients.wait_until_answered(1, lambda: bool(outcome.errors))
            swaps.swap(lambda: stub.RepositoryModelLoad(request, timeout=_TIMEOUT_S))
            outcome.resident_mib.append(process.memory_info().rss / MIB)
        clients.wait_until_answered(1, lambda: bool(outcome.errors))
    return outcome


def _clients(address: str, swaps: Swaps, outcome: Outcome) -> Clients:
    """Clients that send without a pause, each with different request sizes."""
    sizes = [np.random.default_rng(client) for client in range(UNARY + STREAMS)]
    numbers = itertools.count()
    lock = threading.Lock()

    def draw(client: int) -> Question:
        rows = int(sizes[client].integers(1, MOST_ROWS + 1))
        return Question(next(numbers), swaps.x[:rows], swaps.done)

    def judge(client: int, question: Question, labels: Labels) -> None:
        with lock:
            swaps.judge(outcome, question.known, labels)
            outcome.answered["unary" if client < UNARY else "stream"] += 1

    return Asking(
        address,
        draw,
        judge,
        lambda what, error: outcome.errors.append(f"{what}: {error}"),
        unary=UNARY,
        streams=STREAMS,
        per_stream=MESSAGES_PER_STREAM,
        patience_s=_TIMEOUT_S,
        model=MODEL,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Swap the given number of times, and judge the answers."""
    parser = Parser(
        prog="soak.hot_swap",
        description=__doc__,
        epilog=exit_codes("a request failed or was mixed"),
    )
    parser.add_argument("count", type=positive, nargs="?", default=SWAPS, help="%(default)s")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the server")
    args = parser.parse_args(argv)
    return guarded("soak.hot_swap", partial(_measure, args.count, args.options))


def _measure(count: int, options: Sequence[str]) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = swap(Path(folder), count, options)
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
