"""Concurrent clients of different kinds, with every answer judged."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from client.client import Client
from client.connection.channel import RetryPolicy
from soak.known_answers import MODEL, Labels, Questions

# Errors are what is tested here: a retry would hide them.
ONCE = RetryPolicy(attempts=1)
_POLL_S = 0.002

# Called with the failed request and its outcome.
Fail = Callable[[str, str], None]


def at_once(runs: Sequence[Callable[[], object]]) -> None:
    """Run all, each in a thread; raise an exception of one after all have ended."""
    with ThreadPoolExecutor(len(runs)) as pool:
        for run in [pool.submit(run) for run in runs]:
            run.result()


class Clients:
    """Threads that each run a client, called with its number, until the block ends.

    `answered` counts the answers of each client. A client that does not end within `patience_s` has
    failed.
    """

    def __init__(
        self, ways: Sequence[Callable[[int], None]], fail: Fail, patience_s: float
    ) -> None:
        self.answered = [0] * len(ways)
        self._fail = fail
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(way, number))
            for number, way in enumerate(ways)
        ]

    def run(self) -> None:
        """Run until every client has ended by itself."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait until every client has ended by itself; those that take too long have failed."""
        for thread in self._threads:
            thread.join(self._patience_s)
            if thread.is_alive():
                self._fail("client", f"still running after {self._patience_s:g} s")

    def wait_until_answered(self, times: int, or_else: Callable[[], bool] = lambda: False) -> None:
        """Return when each client has got so many new answers, or `or_else` returns true."""
        before = list(self.answered)
        end = time.monotonic() + self._patience_s
        while min(now - was for now, was in zip(self.answered, before, strict=True)) < times:
            if or_else():
                return
            if time.monotonic() > end:
                self._fail("clients", f"{before} answers, then {self.answered}")
                return
            time.sleep(_POLL_S)

    def _run(self, way: Callable[[int], None], client: int) -> None:
        try:
            way(client)
        except Exception as error:
            self._fail(f"client {client}", repr(error))


@dataclass(frozen=True, slots=True)
class Question:
    """Rows of a request, and the data to judge the answer by."""

    number: int
    x: NDArray[Any]
    known: Any


class Asking(Clients):
    """Clients of this project's library, some unary, some with streams of `per_stream` questions.

    `draw` returns a client's next question, None at the end; `judge` takes the client's number, its
    question and the labels, and returns the error, if any.
    """

    def __init__(
        self,
        address: str,
        draw: Callable[[int], Question | None],
        judge: Callable[[int, Question, Labels], str | None],
        fail: Fail,
        *,
        unary: int,
        streams: int,
        per_stream: int,
        patience_s: float,
        model: str = MODEL,
        retry: RetryPolicy = ONCE,
    ) -> None:
        super().__init__([self._unary] * unary + [self._streams] * streams, fail, patience_s)
        self._unary_clients = unary
        self._draw = draw
        self._judge = judge
        self._per_stream = per_stream
        self._open = partial(Client, address, model, deadline_s=patience_s, retry=retry)

    def kind(self, client: int) -> str:
        """The kind of a client: unary or streamed."""
        return "unary" if client < self._unary_clients else "streamed"

    def _next(self, client: int) -> Question | None:
        return None if self._stop.is_set() else self._draw(client)

    def _unary(self, client: int) -> None:
        with self._open() as connection:
            while (question := self._next(client)) is not None:
                try:
                    labels = connection.predict(question.x)
                except Exception as error:
                    self._lost(client, question, repr(error))
                else:
                    self._count(client, question, labels)

    def _streams(self, client: int) -> None:
        with self._open() as connection:
            while self._stream(connection, client):
                pass

    def _stream(self, connection: Client, client: int) -> bool:
        """Send questions on one stream; return whether there are more."""
        sent: deque[Question] = deque()
        more = True

        def batches() -> Iterator[NDArray[Any]]:
            nonlocal more
            for _ in range(self._per_stream):
                question = self._next(client)
                if question is None:
                    more = False
                    return
                sent.append(question)
                yield question.x

        outcome = "no answer"
        try:
            for labels in connection.stream(batches()):
                self._count(client, sent.popleft(), labels)
        except Exception as error:
            outcome = repr(error)
        # All requests without an answer fail with the stream.
        for question in sent:
            self._lost(client, question, outcome)
        return more

    def _count(self, client: int, question: Question, labels: Labels) -> None:
        wrong = self._judge(client, question, labels)
        if wrong is not None:
            self._lost(client, question, wrong)
        self.answered[client] += 1

    def _lost(self, client: int, question: Question, outcome: str) -> None:
        self._fail(f"{self.kind(client)} client {client}, request {question.number}", outcome)


def known(questions: Questions, number: int) -> Question:
    """Make a question with known labels."""
    return Question(number, *questions[number])


def wrong(labels: Labels | None, right: Labels) -> str | None:
    """Describe how labels are wrong; None if they are right."""
    if labels is not None and np.array_equal(labels, right):
        return None
    return f"labels {None if labels is None else labels.tolist()}, expected {right.tolist()}"
