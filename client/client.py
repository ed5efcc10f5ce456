"""Predict with a served model, from Python."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from client.batch_stream import BatchAnswer, stream_batches
from client.connection import MAX_MESSAGE_BYTES, Connection, RetryPolicy
from client.errors import RequestFailed, UsageError
from client.shared_memory import SharedArray
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_response,
    encode_request,
)
from protos.datatypes import DTYPES, datatype_of
from protos.parameters import Parameter
from protos.quantize import WIRE_DTYPES, to_wire, wire_scale
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


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The one input of a model with a batch axis: its name, numpy dtype, and a row's shape.

    `scale`: what an int8 counts, where the server tells it.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    scale: float | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; free dimensions count as 1."""
        return int(np.prod([max(size, 1) for size in self.row_shape])) * self.dtype.itemsize


class Client:
    """Talks to one model of one server.

    `address`: HOST:PORT or unix:/path. `deadline_s` bounds every call, None: not at all. Safe to
    use from several threads. Every method raises RequestFailed (Unavailable, DeadlineExceeded)
    when the server cannot be reached or refuses.
    """

    def __init__(
        self,
        address: str,
        model: str = "linear_argmax",
        version: str = "",
        *,
        deadline_s: float | None = None,
        retry: RetryPolicy | None = None,
        output: str = "label",
    ) -> None:
        self.model = model
        self.version = version
        self._deadline_s = deadline_s
        self._output = output
        self._connection = Connection(address, retry)
        self._told_inputs: Sequence[pb.ModelMetadataResponse.TensorMetadata] | None = None
        self._input: ModelInput | None = None
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
        response = self.infer({spec.name: self.model_rows(rows)}, (self._output,))
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
                    (Tensor.of(spec.name, self.model_rows(rows)),),
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
            told = self.config().parameters["max_message_bytes"].string_value
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
        with SharedArray(x.shape, self.input().dtype) as copy:
            for start in range(0, len(x), _SHARED_ROWS):
                rows = slice(start, start + _SHARED_ROWS)
                copy.array[rows] = self.model_rows(x[rows])
            self._connection.control(
                "SystemSharedMemoryRegister",
                pb.SystemSharedMemoryRegisterRequest(
                    name=copy.key, key=copy.key, byte_size=copy.byte_size
                ),
                pb.SystemSharedMemoryRegisterResponse,
                self._deadline_s,
            )
            try:
                yield copy
            finally:
                self._connection.control(
                    "SystemSharedMemoryUnregister",
                    pb.SystemSharedMemoryUnregisterRequest(name=copy.key),
                    pb.SystemSharedMemoryUnregisterResponse,
                    self._deadline_s,
                )

    def live(self) -> bool:
        """Whether the server process answers."""
        request, response = pb.ServerLiveRequest(), pb.ServerLiveResponse
        return self._connection.control("ServerLive", request, response, self._deadline_s).live

    def ready(self) -> bool:
        """Whether the model takes requests."""
        request = pb.ModelReadyRequest(name=self.model, version=self.version)
        try:
            answer = self._connection.control(
                "ModelReady", request, pb.ModelReadyResponse, self._deadline_s
            )
        except RequestFailed as error:
            if error.code in ("NOT_FOUND", "UNAVAILABLE"):
                return False
            raise
        return answer.ready

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        return self._connection.control(
            "ServerMetadata",
            pb.ServerMetadataRequest(),
            pb.ServerMetadataResponse,
            self._deadline_s,
        )

    def metadata(self) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes of the model's inputs and outputs."""
        request = pb.ModelMetadataRequest(name=self.model, version=self.version)
        return self._connection.control(
            "ModelMetadata", request, pb.ModelMetadataResponse, self._deadline_s
        )

    def config(self) -> config_pb.ModelConfig:
        """How the model is served."""
        request = pb.ModelConfigRequest(name=self.model, version=self.version)
        return self._connection.control(
            "ModelConfig", request, pb.ModelConfigResponse, self._deadline_s
        ).config

    def statistics(self) -> pb.ModelStatistics:
        """What the model did since it was loaded."""
        request = pb.ModelStatisticsRequest(name=self.model, version=self.version)
        answer = self._connection.control(
            "ModelStatistics", request, pb.ModelStatisticsResponse, self._deadline_s
        )
        # Without a version, those of all come; the highest is the one that answers.
        return max(answer.model_stats, key=lambda one: int(one.version))

    def model_rows(self, rows: Array) -> Array:
        """Rows in the model's dtype; UsageError when that loses more than precision."""
        spec = self.input()
        fits = rows.ndim == len(spec.row_shape) + 1 and all(
            want in (-1, got) for got, want in zip(rows.shape[1:], spec.row_shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"x has shape {list(rows.shape)}; the model takes [n, "
                + ", ".join(map(str, spec.row_shape))
                + "]"
            )
        if rows.dtype.kind == "f" and rows.dtype != spec.dtype and spec.dtype.name in WIRE_DTYPES:
            return _rounded(rows, spec)
        if not np.can_cast(rows.dtype, spec.dtype, "same_kind"):
            raise UsageError(f"x has dtype {rows.dtype}; the model takes {spec.dtype}")
        return rows.astype(spec.dtype, copy=False)

    def _narrowed(self, name: str, data: Array) -> Array:
        """What is sent for an input: `data`, or what the model's one input narrows it to."""
        if data.dtype.kind != "f":
            return data
        names = {only.name for only in self._inputs() if only.datatype in _NARROW and only.shape}
        if names != {name} or len(self._inputs()) != 1 or data.dtype == self.input().dtype:
            return data
        return _rounded(data, self.input())

    def _inputs(self) -> Sequence[pb.ModelMetadataResponse.TensorMetadata]:
        if self._told_inputs is None:
            self._told_inputs = self.metadata().inputs
        return self._told_inputs

    def _told_scale(self) -> float | None:
        told = self.config().parameters["wire_scale"].string_value
        try:
            return wire_scale(told) if told else None
        except ValueError as error:
            raise UsageError(f"the server tells a scale that is none: {error}") from None


def _rounded(data: Array, spec: ModelInput) -> Array:
    if spec.dtype == np.int8 and spec.scale is None:
        raise UsageError(
            f"{spec.name} has dtype {data.dtype}; the model takes int8, and the server tells no "
            "wire_scale to round by"
        )
    try:
        return to_wire(data, spec.dtype, spec.scale)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _output(response: InferResponse, name: str) -> Array:
    for tensor in response.outputs:
        if tensor.name == name and tensor.data is not None:
            return tensor.data
    raise RequestFailed("DATA_LOSS", f"the answer lacks output {name!r}")
