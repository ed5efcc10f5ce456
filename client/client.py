"""Predict with a served model, from Python."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from client import addresses
from client.batch_stream import BatchAnswer, stream_batches
from client.channel import MAX_MESSAGE_BYTES, RetryPolicy
from client.connection import Connection
from client.control import ControlClient
from client.credentials import Credentials
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from client.shared_memory import SharedArray
from protos import inference_pb2 as pb
from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_response,
    encode_request,
)
from protos.datatypes import DTYPES, datatype_of
from protos.parameters import Parameter
from protos.quantize import WIRE_DTYPES, wire_scale
from protos.tensors import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

# Large enough that a message's fixed cost is small, small enough that receiving, computing and
# answering overlap.
STREAM_MESSAGE_BYTES = 4 * 2**20
# How long whoever measures waits for a server to come up.
READY_TIMEOUT_S = 30.0
_HEADER_BYTES = 64 * 1024
_NARROW = {datatype_of(np.dtype(name)) for name in WIRE_DTYPES}
# Rows that are converted at a time on their way into shared memory.
_SHARED_ROWS = 16


class Client(ControlClient):
    """Talks to one model of one server, or of several that serve the same.

    `address`: HOST:PORT or unix:/path; of several servers a sequence, or commas between. They take
    turns, and what one of them leaves unanswered another is asked. `deadline_s` bounds every call,
    None: not at all. `hedge_after_s`: whatever is not streamed and has no answer by then is asked
    of a second server too, and the first answer counts; None: never. `keepalive_s`: a connection
    that is silent for so long while calls wait is tested, and given up after as long again, which
    is how a stream gets away from a server that hangs or vanished; servers end connections that are
    tested too often, this one below 5 s, others below 5 min; None: never. `credentials`: TLS and a
    token; without them, neither. `takes`: what the model takes, for a server that does not tell.

    Safe to use from several threads. Every method raises RequestFailed (Unavailable,
    DeadlineExceeded) when no server can be reached or one refuses; UsageError when the addresses
    are none.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        model: str = "linear_argmax",
        version: str = "",
        *,
        deadline_s: float | None = None,
        retry: RetryPolicy | None = None,
        hedge_after_s: float | None = None,
        keepalive_s: float | None = None,
        credentials: Credentials | None = None,
        output: str = "label",
        takes: ModelInput | None = None,
    ) -> None:
        connection = Connection(
            addresses.parse(address),
            retry,
            credentials,
            hedge_after_s=hedge_after_s,
            keepalive_s=keepalive_s,
        )
        super().__init__(connection, model, version, deadline_s)
        self._output = output
        self._told_inputs: Sequence[pb.ModelMetadataResponse.TensorMetadata] | None = None
        self._input = takes
        self._max_message_bytes: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """Wait for the server to be reachable; Unavailable when it is not by then."""
        self._connection.wait_until_ready(timeout_s)

    def predict(self, x: Array) -> Array:
        """Labels, int64 `[n]`, of the rows of `x` `[n, features]`, or of one row `[features]`.

        An input over a few MiB is split into messages of a stream. A model may take float16, or
        int8 in units of a scale that the server tells: floats are rounded to it, message by
        message. UsageError when `x` does not fit the model.
        """
        spec = self.input()
        rows = np.asarray(x)
        if rows.ndim == len(spec.row_shape):
            rows = rows[np.newaxis]
        # What fits one message gains nothing from a stream, and can be retried whole.
        if rows.size * spec.dtype.itemsize > self._message_bytes():
            (labels,) = self.stream([rows])
            return labels
        return self.predict_in_one_request(rows)

    def predict_in_one_request(self, x: Array) -> Array:
        """As `predict`, of rows `[n, features]`, however large; for servers without streams."""
        spec = self.input()
        response = self.infer({spec.name: spec.fit(x)}, (self._output,))
        return _output(response, self._output)

    def stream(self, batches: Iterable[Array]) -> Iterator[Array]:
        """Labels of each batch `[n, features]`, in order, while later ones are being sent.

        All batches share one stream; each may be of any size.
        """
        for answer in self.stream_answers(batches):
            yield np.concatenate([_output(part, self._output) for part in answer.responses])

    def stream_answers(
        self, batches: Iterable[Array], *, timings: bool = False
    ) -> Iterator[BatchAnswer]:
        """As `stream`, with everything that came back: instants, and with `timings` the stages."""
        spec = self.input()
        wanted = (RequestedOutput(self._output),)
        parameters: dict[str, Parameter] = {"timings": True} if timings else {}

        def encode(rows: Array, request_id: str, more_follows: bool) -> bytes:
            extra: dict[str, Parameter] = {"more_follows": True} if more_follows else {}
            return encode_request(
                InferRequest(
                    self.model,
                    (Tensor.of(spec.name, spec.fit(rows)),),
                    wanted,
                    self.version,
                    request_id,
                    parameters | extra,
                )
            )

        return stream_batches(
            self._connection, batches, encode, self._message_rows(), self._deadline_s
        )

    def infer(
        self,
        inputs: Mapping[str, Array],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> InferResponse:
        """Send arrays by input name as one request; none named in `outputs` means all of them.

        Floats for the one input of a model that takes float16 or int8 are rounded to it as
        `predict` does; anything else is sent as it is.
        """
        if len(inputs) == 1:
            ((name, data),) = inputs.items()
            inputs = {name: self._narrowed(name, data)}
        tensors = [Tensor.of(name, data) for name, data in inputs.items()]
        return self.infer_tensors(tensors, outputs, parameters)

    def infer_tensors(
        self,
        tensors: Iterable[Tensor],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> InferResponse:
        """As `infer`, with tensors that may lie in shared memory."""
        request = InferRequest(
            self.model,
            tuple(tensors),
            tuple(RequestedOutput(name) for name in outputs),
            self.version,
            parameters=parameters or {},
        )
        return decode_response(self._connection.infer(encode_request(request), self._deadline_s))

    def fits_one_message(self, rows: int) -> bool:
        """Whether the server takes a request of that many rows."""
        return rows * self.input().row_bytes + _HEADER_BYTES <= self._most_message_bytes()

    def _message_rows(self) -> int:
        """Rows of one message of a stream."""
        return max(1, self._message_bytes() // self.input().row_bytes)

    def _message_bytes(self) -> int:
        """Bytes of tensor that one message carries, as long as a row fits."""
        return min(STREAM_MESSAGE_BYTES, self._most_message_bytes() - _HEADER_BYTES)

    def _most_message_bytes(self) -> int:
        if self._max_message_bytes is None:
            told = self.told("max_message_bytes")
            self._max_message_bytes = int(told) if told else MAX_MESSAGE_BYTES
        return self._max_message_bytes

    def input(self) -> ModelInput:
        """What `predict` sends; UsageError when the model has not exactly one input."""
        if self._input is None:
            inputs = self._inputs()
            if len(inputs) != 1 or len(inputs[0].shape) < 1:
                raise UsageError(
                    f"model {self.model!r} has inputs {[i.name for i in inputs]}; "
                    "predict needs exactly one, with a batch axis: use infer"
                )
            (only,) = inputs
            dtype = DTYPES[only.datatype]
            scale = self._told_scale() if dtype == np.int8 else None
            self._input = ModelInput(only.name, dtype, tuple(only.shape[1:]), scale)
        return self._input

    @contextlib.contextmanager
    def shared(self, x: Array) -> Iterator[SharedArray]:
        """A copy of rows, as the model takes them, in shared memory that the server has.

        It is registered until the block ends. Only for a server on this machine, with shared
        memory switched on.
        """
        if len(self._connection.addresses) > 1:
            raise UsageError("shared memory was asked for with several servers; wanted one")
        spec = self.input()
        with SharedArray(x.shape, spec.dtype) as copy:
            for start in range(0, len(x), _SHARED_ROWS):
                rows = slice(start, start + _SHARED_ROWS)
                copy.array[rows] = spec.fit(x[rows])
            with self._registered(copy):
                yield copy

    def _narrowed(self, name: str, data: Array) -> Array:
        """What is sent for an input: `data`, or what the model's one input narrows it to."""
        if data.dtype.kind != "f":
            return data
        names = {only.name for only in self._inputs() if only.datatype in _NARROW and only.shape}
        if names != {name} or len(self._inputs()) != 1 or data.dtype == self.input().dtype:
            return data
        return self.input().rounded(data)

    def _inputs(self) -> Sequence[pb.ModelMetadataResponse.TensorMetadata]:
        if self._told_inputs is None:
            self._told_inputs = self.metadata().inputs
        return self._told_inputs

    def _told_scale(self) -> float | None:
        told = self.told("wire_scale")
        try:
            return wire_scale(told) if told else None
        except ValueError as error:
            raise UsageError(f"the server tells a scale that is none: {error}") from None


def _output(response: InferResponse, name: str) -> Array:
    for tensor in response.outputs:
        if tensor.name == name and tensor.data is not None:
            return tensor.data
    raise RequestFailed("DATA_LOSS", f"the answer lacks output {name!r}")
