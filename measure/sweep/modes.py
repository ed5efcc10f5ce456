"""The modes that a sweep compares: local, unary, stream, shared memory."""

import contextlib
import itertools
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from client.batch_stream import BatchAnswer
from client.client import Client
from client.connection.call_times import CallTimes
from client.errors import UsageError
from measure.core.stages import RequestTimes, Stages, stages_of
from measure.core.verification import one_a_row
from protos.codec import InferResponse
from protos.quantize import WIRE_DTYPES, to_wire, wire_scale
from server.errors import StartError
from server.onnx import execution_provider
from server.onnx.engine import Engine
from server.onnx.session_settings import SessionSettings

_USUAL = SessionSettings()


@dataclass(frozen=True, slots=True)
class Prediction:
    """Labels int64 `[n]`, and when the first and the last arrived (time.perf_counter_ns).

    `times` are those of a batch in one message.
    """

    labels: NDArray[Any]
    first_ns: int
    done_ns: int
    stages: Stages | None = None
    messages: int = 0
    times: RequestTimes | None = None


class Mode(Protocol):
    """A way to predict; an instance keeps its connections open between batches.

    `call` says to which server the last batch went, where that is known.
    """

    name: str
    call: CallTimes

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Predict rows `[n, features]`; raises RequestFailed."""

    def close(self) -> None:
        """Close what is open."""


class Local:
    """The server's own engine in this process: the baseline without a network."""

    name = "local"

    def __init__(
        self,
        graph: Path,
        threads: int,
        slice_rows: int,
        ep: str = "cpu",
        session: SessionSettings = _USUAL,
    ) -> None:
        """`ep`: execution provider, as the server's --ep; UsageError if it is not available."""
        self.call = CallTimes()
        try:
            chosen = execution_provider.parse(ep)
            self._engine = Engine(graph, threads, chosen, settings=session)
        except ValueError as error:
            raise UsageError(f"--ep got {ep!r}, expected {error}") from None
        except StartError as error:
            raise UsageError(str(error)) from None
        self._input = self._engine.inputs[0]
        text = self._engine.metadata.get("wire_scale")
        self._scale = wire_scale(text) if text else None
        self._slice_rows = slice_rows

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Run `x` in the slices that the server uses, each rounded to the graph's dtype."""
        labels: list[NDArray[Any]] = []
        first_ns = assemble_ns = compute_ns = 0
        for start in range(0, len(x), self._slice_rows):
            started_ns = time.perf_counter_ns()
            rows = x[start : start + self._slice_rows]
            if self._input.dtype.name in WIRE_DTYPES:
                rows = to_wire(rows, self._input.dtype, self._scale)
            assembled_ns = time.perf_counter_ns()
            labels += self._engine.run(["label"], {self._input.name: rows})
            done_ns = time.perf_counter_ns()
            first_ns = first_ns or done_ns
            assemble_ns += assembled_ns - started_ns
            compute_ns += done_ns - assembled_ns
        stages = Stages(
            decode_ns=0,
            queue_ns=0,
            assemble_ns=assemble_ns // len(labels),
            compute_ns=compute_ns // len(labels),
            batch_rows=len(x) / len(labels),
            execution_provider=self._engine.provider,
        )
        return Prediction(np.concatenate(labels), first_ns, time.perf_counter_ns(), stages)

    def close(self) -> None:
        """Do nothing."""


class Unary:
    """One ModelInfer request per batch; a batch larger than a message may be is streamed."""

    name = "unary"

    def __init__(self, client: Client) -> None:
        self._client = client
        self._input = client.input().name
        self._stream: Stream | None = None
        self.call = CallTimes()

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Send `x` in one message, if it fits."""
        if not self._client.fits_one_message(len(x)):
            self._stream = self._stream or Stream(self._client)
            prediction = self._stream.predict(x)
            self.call = self._stream.call
            return prediction
        times = RequestTimes()
        self.call = times.call
        response = self._client.infer(
            {self._input: x}, ("label",), {"timings": True}, times=times.call
        )
        now_ns = time.perf_counter_ns()
        times.received()
        return Prediction(_labels([response]), now_ns, now_ns, stages_of([response]), 1, times)

    def close(self) -> None:
        """Close the stream, if one was needed."""
        if self._stream is not None:
            self._stream.close()


class Stream:
    """One open stream for all batches, each split into small messages."""

    name = "stream"

    def __init__(self, client: Client, server: str = "") -> None:
        """`server`: the address of the server, if it is known."""
        self._client = client
        self.call = CallTimes(server=server)
        self._open()

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Send `x` and wait for its last answer; a broken stream is reopened by the next call."""
        self._batches.put(x)
        try:
            answer = next(self._answers)
        except Exception:
            self.close()
            self._open()
            raise
        self.call.server = answer.server
        return Prediction(
            _labels(answer.responses),
            answer.first_ns,
            answer.done_ns,
            stages_of(answer.responses),
            len(answer.responses),
        )

    def close(self) -> None:
        """Close the stream."""
        self._batches.put(None)
        for _ in self._answers:
            raise AssertionError("got an answer to a batch that is not awaited")

    def _open(self) -> None:
        self._batches: queue.SimpleQueue[NDArray[Any] | None] = queue.SimpleQueue()
        self._answers: Iterator[BatchAnswer] = self._client.stream_answers(
            _until_none(self._batches), timings=True, stable=True
        )


class StreamInTurn:
    """An open stream to each of several servers, which get batches in turn."""

    name = "stream"

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._turns = itertools.cycle(streams)
        self.call = CallTimes()

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Send `x` on the next stream; see Stream."""
        stream = next(self._turns)
        self.call = stream.call
        return stream.predict(x)

    def close(self) -> None:
        """Close the streams."""
        for stream in self._streams:
            stream.close()


class Shm:
    """Requests whose rows lie in shared memory, where the examples are stored once, in advance.

    They are stored in the model's dtype, so that rounding is not measured.
    """

    name = "shm"

    def __init__(self, client: Client, examples: NDArray[Any]) -> None:
        """`predict` takes slices of `examples` only."""
        self.call = CallTimes()
        self._client = client
        self._input = client.input().name
        self._examples = examples
        self._stack = contextlib.ExitStack()
        self._shared = self._stack.enter_context(client.shared(examples))

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Send the location of the rows of `x`."""
        offset = x.ctypes.data - self._examples.ctypes.data
        start = offset // self._examples.strides[0]
        tensor = self._shared.rows(self._input, start, start + len(x))
        response = self._client.infer_tensors([tensor], ("label",), {"timings": True})
        now_ns = time.perf_counter_ns()
        return Prediction(_labels([response]), now_ns, now_ns, stages_of([response]), 1)

    def close(self) -> None:
        """Unregister and remove the examples."""
        self._stack.close()


def _until_none(batches: "queue.SimpleQueue[NDArray[Any] | None]") -> Iterator[NDArray[Any]]:
    while (batch := batches.get()) is not None:
        yield batch


def _labels(responses: Sequence[InferResponse]) -> NDArray[Any]:
    return np.concatenate(
        [
            one_a_row(tensor.data)
            for response in responses
            for tensor in response.outputs
            if tensor.name == "label" and tensor.data is not None
        ]
    )
