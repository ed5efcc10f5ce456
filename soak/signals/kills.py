"""Kill a supervised server under load: clients that retry see no failure and no wrong answer."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from client.client import Client
from client.connection.channel import RetryPolicy
from measure.core.processes import free_port
from soak.known_answers import MODEL, SMALL, Labels, Questions, put_model
from soak.servers import STOP_TIMEOUT_S, Supervisor
from soak.tally import Tally

UNARY, STREAMS = 2, 2
# A server is back within about two seconds on a busy machine; these waits add up to twelve.
PATIENT = RetryPolicy(attempts=5, initial_backoff_s=1.0, max_backoff_s=5.0)
_PER_STREAM = 200
_ANSWERS_BETWEEN = 5


def run(tally: Tally, folder: Path) -> None:
    """Count kills after which every client was answered again, none of them having failed."""
    put_model(folder, SMALL)
    address = f"127.0.0.1:{free_port()}"
    with Supervisor(folder, (), address) as supervisor:
        supervisor.wait_for_start(1)
        with _Clients(tally, address) as clients:
            clients.wait_until_answered()
            while tally.take():
                _kill_once(tally, supervisor, clients)
        tally.facts["requests"] = sum(clients.answered)
        tally.facts["starts"] = supervisor.starts


def _kill_once(tally: Tally, supervisor: Supervisor, clients: "_Clients") -> None:
    before, starts = tally.failed, supervisor.starts
    code = supervisor.wait_for_start(starts).signal(signal.SIGKILL)
    killed_s = time.monotonic()
    if code != -signal.SIGKILL:
        tally.fail(f"kill {starts}", f"the server had ended by itself, with {code}")
    supervisor.wait_for_start(starts + 1)
    clients.wait_until_answered()
    away_s = round(time.monotonic() - killed_s, 2)
    tally.facts["longest_until_all_answered_s"] = max(
        away_s, tally.facts.get("longest_until_all_answered_s", 0.0)
    )
    if tally.failed == before:
        tally.add()


class _Clients:
    """Clients that ask without a pause, and retry, until the block ends."""

    def __init__(self, tally: Tally, address: str) -> None:
        self._tally = tally
        self._address = address
        self._questions = Questions(SMALL)
        self.answered = [0] * (UNARY + STREAMS)
        self._stop = threading.Event()
        ways = [self._unary] * UNARY + [self._stream] * STREAMS
        self._threads = [
            threading.Thread(target=self._run, args=(way, number))
            for number, way in enumerate(ways)
        ]

    def __enter__(self) -> "_Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)
            if thread.is_alive():
                self._tally.fail("client", f"still waits after {STOP_TIMEOUT_S:g} s")

    def wait_until_answered(self) -> None:
        """Return once each client was answered anew, a few times."""
        before = list(self.answered)
        end = time.monotonic() + STOP_TIMEOUT_S
        while min(now - was for now, was in zip(self.answered, before, strict=True)) < (
            _ANSWERS_BETWEEN
        ):
            if time.monotonic() > end:
                self._tally.fail("clients", f"{before} answers, then {self.answered}")
                return
            time.sleep(0.002)

    def _run(self, way: Callable[[Client, int, int], int], client: int) -> None:
        with Client(self._address, MODEL, deadline_s=STOP_TIMEOUT_S, retry=PATIENT) as connection:
            number = client
            while not self._stop.is_set():
                try:
                    number = way(connection, client, number)
                except Exception as error:
                    self._tally.fail(f"client {client}, at request {number}", repr(error))

    def _unary(self, connection: Client, client: int, number: int) -> int:
        x, wanted = self._questions[number]
        self._judge(client, number, connection.predict(x), wanted)
        return number + 1

    def _stream(self, connection: Client, client: int, first: int) -> int:
        sent: deque[tuple[int, Labels]] = deque()

        def batches() -> Iterator[Labels]:
            for number in range(first, first + _PER_STREAM):
                if self._stop.is_set():
                    return
                x, wanted = self._questions[number]
                sent.append((number, wanted))
                yield x

        for labels in connection.stream(batches()):
            number, wanted = sent.popleft()
            self._judge(client, number, labels, wanted)
        for number, _ in sent:
            self._tally.fail(f"client {client}, message {number}", "no answer")
        return first + _PER_STREAM

    def _judge(self, client: int, number: int, labels: Labels, wanted: Labels) -> None:
        if not np.array_equal(labels, wanted):
            self._tally.fail(
                f"client {client}, request {number}",
                f"labels {labels.tolist()}; right were {wanted.tolist()}",
            )
        self.answered[client] += 1
