"""Ask a server from a process of its own: in a closed loop, at a rate, or on many streams.

python -m bench.overload_load ADDRESS MODEL ROWS FEATURES DEADLINE_S takes commands as lines of JSON
and answers each with one.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from bench.processes import SOURCE
from command_line.parser import positionals
from protos.codec import (
    InferRequest,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    encode_request,
)
from protos.tensors import Tensor

_SERVICE = "/inference.GRPCInferenceService/"
_WINDOW = 2
_STOP_S = 30.0


@dataclass(slots=True)
class Outcome:
    """What became of the requests of one phase; the times are of those answered, or refused."""

    elapsed_s: float = 0.0
    offered: int = 0
    answered: int = 0
    refused: int = 0
    late: int = 0
    wrong: int = 0
    p99_ms: float = 0.0
    refusal_p99_ms: float = 0.0
    failed: list[str] = field(default_factory=list)

    @property
    def answered_per_s(self) -> float:
        """Requests answered in time, a second."""
        return self.answered / self.elapsed_s

    @property
    def offered_per_s(self) -> float:
        """Requests sent, a second."""
        return self.offered / self.elapsed_s


class Load:
    """A process that asks; each method is one phase, or begins or ends one."""

    def __init__(self, address: str, model: str, shape: tuple[int, int], deadline_s: float) -> None:
        """Start it; `shape` of one request's x is [rows, features]."""
        words = (address, model, *shape, deadline_s)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.overload_load", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SOURCE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def closed_loop(self, clients: int, seconds: float) -> Outcome:
        """So many at once, each sending the next request when the last is answered."""
        return Outcome(**self._tell("closed_loop", clients, seconds))

    def open_loop(self, per_s: float, seconds: float) -> Outcome:
        """Requests at a rate, whatever becomes of them."""
        return Outcome(**self._tell("open_loop", per_s, seconds))

    def start_streams(self, count: int) -> None:
        """Keep streams busy until `stop_streams`; returns once each was answered."""
        self._tell("start_streams", count)

    def stop_streams(self) -> Outcome:
        """End them; what they got since they were all answered."""
        return Outcome(**self._tell("stop_streams"))

    def _tell(self, phase: str, *arguments: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([phase, *arguments]), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Asker:
    """The inside of that process."""

    def __init__(self, address: str, model: str, shape: tuple[int, int], deadline_s: float) -> None:
        options = [("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options)
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        self._message = encode_request(
            InferRequest(
                model_name=model,
                inputs=(Tensor.of("x", x),),
                outputs=(RequestedOutput("label"),),
            )
        )
        self._deadline_s = deadline_s
        self._unary = self._channel.unary_unary(_SERVICE + "ModelInfer")
        self._stream = self._channel.stream_stream(_SERVICE + "ModelStreamInfer")
        # The same rows in the same model: every answer is this one.
        self._labels = self._read(self._unary(self._message, timeout=60))
        self._streams: list[_BusyStream] = []
        self._streaming_since = 0.0

    @staticmethod
    def _read(data: bytes) -> list[int]:
        labels: list[int] = decode_response(data).outputs[0].data.tolist()
        return labels

    def closed_loop(self, clients: int, seconds: float) -> Outcome:
        """Threads that ask one after the other."""
        tally = _Tally(self._labels)
        started = time.perf_counter()
        end = started + seconds

        def ask() -> None:
            while (at := time.perf_counter()) < end:
                tally.offered()
                try:
                    data = self._unary(self._message, timeout=self._deadline_s)
                except grpc.RpcError as error:
                    tally.failed(error, time.perf_counter() - at)
                else:
                    tally.answered(self._read(data), time.perf_counter() - at)

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return tally.outcome(time.perf_counter() - started)

    def open_loop(self, per_s: float, seconds: float) -> Outcome:
        """Requests at even distances, none of them waited for; what is open at the end counts not.

        The first third lets the queues fill and is not counted either.
        """
        began = time.perf_counter()
        tally = _Tally(self._labels)
        first, last = began + seconds / 2, began + 3 * seconds / 2
        calls = []
        number = 0
        while (at := began + number / per_s) < last:
            time.sleep(max(0.0, at - time.perf_counter()))
            number += 1
            call = self._unary.future(self._message, timeout=self._deadline_s)
            sent = time.perf_counter()
            if sent >= first:
                tally.offered()

            def done(call: Any, sent: float = sent) -> None:
                now = time.perf_counter()
                if first <= now < last:
                    error = call.exception()
                    if error is None:
                        tally.answered(self._read(call.result()), now - sent)
                    else:
                        tally.failed(error, now - sent)

            call.add_done_callback(done)
            calls.append(call)
        outcome = tally.outcome(time.perf_counter() - first)
        for call in calls:
            call.cancel()
        return outcome

    def start_streams(self, count: int) -> dict[str, Any]:
        """Open streams with a few messages under way on each."""
        self._streams = [_BusyStream(self._stream, self._message) for _ in range(count)]
        for stream in self._streams:
            stream.first.wait(60)
        self._streaming_since = time.perf_counter()
        for stream in self._streams:
            stream.answered = 0
        return {}

    def stop_streams(self) -> Outcome:
        """Let the streams end."""
        elapsed_s = time.perf_counter() - self._streaming_since
        answered = sum(stream.answered for stream in self._streams)
        # All at once: those that go on would keep the others waiting.
        for stream in self._streams:
            stream.stop()
        failed = [error for stream in self._streams if (error := stream.wait())]
        return Outcome(elapsed_s, offered=answered, answered=answered, failed=failed)


class _BusyStream:
    def __init__(self, stream: Any, message: bytes) -> None:
        self.answered = 0
        self.first = threading.Event()
        self._message = message
        self._room: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._error = ""
        for _ in range(_WINDOW):
            self._room.put(True)
        self._call = stream(self._messages())
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _messages(self) -> Iterator[bytes]:
        while self._room.get():
            yield self._message

    def _read(self) -> None:
        try:
            for data in self._call:
                text, _ = decode_stream_response(data)
                if text:
                    self._error = text
                self.answered += 1
                self.first.set()
                self._room.put(True)
        except grpc.RpcError as error:
            self._error = str(error.code())
        self.first.set()

    def stop(self) -> None:
        """Send no more."""
        self._room.put(False)

    def wait(self) -> str:
        """Wait for what is under way; what went wrong."""
        self._thread.join(_STOP_S)
        return self._error


class _Tally:
    """Counts, from whatever thread."""

    def __init__(self, labels: list[int]) -> None:
        self._labels = labels
        self._outcome = Outcome()
        self._answers_s: list[float] = []
        self._refusals_s: list[float] = []
        self._lock = threading.Lock()

    def offered(self) -> None:
        with self._lock:
            self._outcome.offered += 1

    def answered(self, labels: list[int], took_s: float) -> None:
        with self._lock:
            self._outcome.answered += 1
            self._outcome.wrong += labels != self._labels
            self._answers_s.append(took_s)

    def failed(self, error: Any, took_s: float) -> None:
        with self._lock:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._outcome.refused += 1
                self._refusals_s.append(took_s)
            elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._outcome.late += 1
            else:
                self._outcome.failed.append(f"{error.code()}: {error.details()}")

    def outcome(self, elapsed_s: float) -> Outcome:
        with self._lock:
            outcome = self._outcome
            outcome.elapsed_s = elapsed_s
            outcome.p99_ms = _p99_ms(self._answers_s)
            outcome.refusal_p99_ms = _p99_ms(self._refusals_s)
            return outcome


def _p99_ms(times_s: list[float]) -> float:
    return 1000 * float(np.quantile(times_s, 0.99)) if times_s else 0.0


def main(argv: list[str]) -> int:
    """Do what the lines on stdin say."""
    address, model, rows, features, deadline_s = argv
    asker = Asker(address, model, (int(rows), int(features)), float(deadline_s))
    for line in sys.stdin:
        phase, *arguments = json.loads(line)
        outcome = getattr(asker, phase)(*arguments)
        answer = asdict(outcome) if isinstance(outcome, Outcome) else outcome
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    names = ("address", "model", "rows", "features", "deadline_s")
    sys.exit(main(positionals("bench.overload_load", __doc__, *names)))
