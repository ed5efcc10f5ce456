"""tritonclient when servers go: under load, and call by call; the codes of the errors it sees."""

import contextlib
import queue
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from client_load import STREAMED, UNARY
from conftest import PATIENCE_S, wait_until
from tritonclient.utils import InferenceServerException

MODEL = "linear_argmax"
# Repeating what failed is up to its users, who wait before they do.
_PAUSE_S = 0.02
_SOME_BYTES = 2**14
_ESTABLISHED = "01"


def code(error):
    """Name of an error's status code; the text of an error that has none."""
    status = error.status()
    return error.message() if status is None else status.removeprefix("StatusCode.")


def tensors(x):
    """Arguments of a request for the labels of `x`."""
    tensor = triton.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    return {"inputs": [tensor], "outputs": [triton.InferRequestedOutput("label")]}


@contextlib.contextmanager
def connected(address):
    """A client of its own connection."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    client = triton.InferenceServerClient(address, channel_args=options)
    try:
        yield client
    finally:
        client.stop_stream(cancel_requests=True)
        client.close()


def ask(client, x):
    """Labels of `x`, by a request of its own."""
    return client.infer(MODEL, **tensors(x), client_timeout=PATIENCE_S).as_numpy("label")


class Stream:
    """The stream of a client; a context, whose end cancels what it still does."""

    def __init__(self, client):
        self._client = client
        self._outcomes = queue.SimpleQueue()

    def __enter__(self):
        self._client.start_stream(
            lambda result, error: self._outcomes.put((result, error)), stream_timeout=PATIENCE_S
        )
        return self

    def __exit__(self, *_):
        self._client.stop_stream(cancel_requests=True)

    def send(self, x):
        """Send a message; what ended the stream before is raised."""
        try:
            self._client.async_stream_infer(MODEL, **tensors(x))
        except InferenceServerException:
            # It says only that the stream has ended; the reason comes as an answer.
            self.take()
            raise

    def take(self):
        """The labels of the next answer; what it has in their place is raised."""
        result, error = self._outcomes.get(timeout=PATIENCE_S)
        if error is not None:
            raise error
        return result.as_numpy("label")


class TritonLoad:
    """Threads that ask by tritonclient without a pause; what they saw.

    A request that failed is counted, and not repeated; after a stream, of `batches` messages, comes
    another one, also if it failed.
    """

    def __init__(self, address, x, labels, batches=50):
        self._address, self._x, self._labels = address, x, labels
        self._batches = batches
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.right, self.wrong = Counter(), Counter()
        self.errors = {UNARY: Counter(), STREAMED: Counter()}
        self.broken = []

    @contextlib.contextmanager
    def running(self):
        kinds = [(self._unary, UNARY)] * 2 + [(self._streamed, STREAMED)] * 2
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
            lambda: self.broken or all(self.right[k] > before[k] + 5 for k in (UNARY, STREAMED)),
            "both kinds are answered",
        )

    def codes(self):
        """The codes of errors so far, by kind."""
        with self._lock:
            return {kind: set(counts) for kind, counts in self.errors.items()}

    def _run(self, seed, ask_some, kind):
        draw = np.random.default_rng(seed)
        try:
            with connected(self._address) as client:
                while not self._stop.is_set():
                    try:
                        ask_some(client, draw)
                    except InferenceServerException as error:
                        with self._lock:
                            self.errors[kind][code(error)] += 1
                        self._stop.wait(_PAUSE_S)
        except Exception as error:
            self.broken.append(f"{kind}: {error!r}")

    def _unary(self, client, draw):
        rows = self._draw(draw)
        self._judge(UNARY, rows, ask(client, self._x[rows]))

    def _streamed(self, client, draw):
        with Stream(client) as stream:
            for _ in range(self._batches):
                if self._stop.is_set():
                    return
                rows = self._draw(draw)
                stream.send(self._x[rows])
                self._judge(STREAMED, rows, stream.take())

    def _draw(self, draw):
        return draw.integers(0, len(self._x), draw.integers(1, 8))

    def _judge(self, kind, rows, labels):
        outcome = self.right if np.array_equal(labels, self._labels[rows]) else self.wrong
        with self._lock:
            outcome[kind] += 1


def outcome(of):
    """Return "OK", or the code of the error that `of` raises."""
    try:
        of()
    except InferenceServerException as error:
        return code(error)
    return "OK"


def seen_of_a_kill(server, address, x):
    """What becomes of a request and of a stream that a server has when it is killed, and after.

    `address` leads to the server alone; `x` has some 100 KiB or more.
    """
    with ThreadPoolExecutor(1) as pool, connected(address) as client:
        # A proxy then has connections to the server: over new ones it would send nothing yet.
        for _ in range(6):
            ask(client, x)
        with Stream(client) as stream:
            stream.send(x)
            stream.take()
            server.freeze()
            had = pool.submit(outcome, lambda: ask(client, x))
            wait_until(lambda: _unread(server) >= _SOME_BYTES, "the server has the request")
            stream.send(x)
            server.stop(signal.SIGKILL)
            seen = {"request": had.result(), "stream": outcome(stream.take)}
        seen["later request"] = outcome(lambda: ask(client, x))
        with Stream(client) as stream:
            seen["later stream"] = outcome(lambda: (stream.send(x), stream.take()))
    return seen


def _unread(server):
    """Bytes that a server's connections have received and it has not read."""
    port = f":{int(server.address.rpartition(':')[2]):04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        int(row[4].partition(":")[2], 16)
        for row in rows
        if row[1].endswith(port) and row[3] == _ESTABLISHED
    )
