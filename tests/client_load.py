"""A load of single requests and of streams, whose every answer is judged."""

import contextlib
import threading
from collections import Counter

import numpy as np

UNARY, STREAMED = "unary", "streamed"


def answered(caller, model="linear_argmax"):
    """How many requests a server has answered."""
    return caller.statistics(model).inference_stats.success.count


class Load:
    """Threads that ask one client, with a pause if there is one; what they saw.

    An answer is right if it is that of one of `contents` as a whole: labels of all of `x`. Each
    stream has `batches` messages.
    """

    def __init__(self, client, x, *contents, batches=100, pause_s=0.0):
        self._client, self._x, self._contents = client, x, contents
        self._batches, self._pause_s = batches, pause_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.asked, self.right, self.wrong = Counter(), Counter(), Counter()
        self.errors = []

    @contextlib.contextmanager
    def running(self):
        kinds = [(self._unary, UNARY)] * 4 + [(self._streamed, STREAMED)] * 2
        threads = [
            threading.Thread(target=self._run, args=(seed, *kind))
            for seed, kind in enumerate(kinds)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def goes_on(self, eventually):
        """Wait for more answers of each kind."""
        before = self.right.copy()
        eventually(
            lambda: self.errors or all(self.right[k] > before[k] + 5 for k in (UNARY, STREAMED)),
            "both kinds are answered",
        )

    def _run(self, seed, ask, kind):
        draw = np.random.default_rng(seed)
        while not self._stop.wait(self._pause_s):
            try:
                ask(draw, kind)
            except Exception as error:
                with self._lock:
                    self.errors.append(f"{kind}: {error!r}")
                return

    def _unary(self, draw, kind):
        rows = self._draw(draw, kind)
        self._judge(kind, rows, self._client.predict(self._x[rows]))

    def _streamed(self, draw, kind):
        sent = []

        def batches():
            for _ in range(self._batches):
                if self._stop.wait(self._pause_s):
                    return
                sent.append(self._draw(draw, kind))
                yield self._x[sent[-1]]

        for at, labels in enumerate(self._client.stream(batches())):
            self._judge(kind, sent[at], labels)

    def _draw(self, draw, kind):
        with self._lock:
            self.asked[kind] += 1
        return draw.integers(0, len(self._x), draw.integers(1, 8))

    def _judge(self, kind, rows, labels):
        right = any(np.array_equal(labels, content[rows]) for content in self._contents)
        outcome = self.right if right else self.wrong
        with self._lock:
            outcome[kind] += 1

    def lost_nothing(self):
        """Hold every request to a right answer."""
        assert self.errors == []
        assert not self.wrong
        assert self.right == self.asked
