"""Send requests to one server, unary and streamed, until the time is over; check every answer."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from client.client import Client
from client.connection.channel import RetryPolicy
from measure.core.local_server import running_server
from measure.core.verification import Experiment
from soak.known_answers import MODEL, Labels, Questions, put_model
from soak.tally import Tally

UNARY, STREAMS = 2, 2
_PER_STREAM = 1000
_DEADLINE_S = 120.0
# An error is the answer that is looked for here: none may be tried away.
ONCE = RetryPolicy(attempts=1)


def run(tally: Tally, folder: Path, experiment: Experiment, most_rows: int) -> None:
    """Count requests that were answered with the right labels."""
    put_model(folder, experiment)
    with running_server(folder) as server:
        ask(tally, server.address, Questions(experiment, most_rows))


def ask(tally: Tally, address: str, questions: Questions) -> None:
    """Ask in several ways at once until the tally is over."""
    ways: list[Callable[[], None]] = [
        *[partial(_unary, tally, address, questions, seed) for seed in range(UNARY)],
        *[partial(_streams, tally, address, questions, seed) for seed in range(STREAMS)],
    ]
    threads = [threading.Thread(target=_guarded, args=(tally, way)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def judge(tally: Tally, what: str, labels: Labels, wanted: Labels) -> None:
    """Count one answer as done or as wrong."""
    if np.array_equal(labels, wanted):
        tally.add()
    else:
        tally.fail(what, f"labels {labels.tolist()}; right were {wanted.tolist()}")


def _guarded(tally: Tally, way: Callable[[], None]) -> None:
    try:
        way()
    except Exception as error:
        tally.fail(f"client thread {way}", repr(error))


def _unary(tally: Tally, address: str, questions: Questions, seed: int) -> None:
    with Client(address, MODEL, deadline_s=_DEADLINE_S, retry=ONCE) as client:
        number = seed
        while tally.take():
            x, wanted = questions[number]
            try:
                labels = client.predict(x)
            except Exception as error:
                tally.fail(f"unary request {number}", repr(error))
            else:
                judge(tally, f"unary request {number}", labels, wanted)
                tally.note("unary")
            number += UNARY


def _streams(tally: Tally, address: str, questions: Questions, seed: int) -> None:
    with Client(address, MODEL, deadline_s=_DEADLINE_S, retry=ONCE) as client:
        number = seed
        while tally.more:
            number = _stream(tally, client, questions, number)


def _stream(tally: Tally, client: Client, questions: Questions, first: int) -> int:
    """One stream of many requests; the number of the next question."""
    sent: deque[tuple[int, Labels]] = deque()

    def batches() -> Iterator[Labels]:
        for number in range(first, first + _PER_STREAM):
            if not tally.take():
                return
            x, wanted = questions[number]
            sent.append((number, wanted))
            yield x

    try:
        for labels in client.stream(batches()):
            number, wanted = sent.popleft()
            judge(tally, f"streamed request {number}", labels, wanted)
            tally.note("streamed")
    except Exception as error:
        # All that were sent and not answered fail with it.
        for number, _ in sent:
            tally.fail(f"streamed request {number}", repr(error))
    return first + _PER_STREAM
