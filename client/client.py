"""Predict with a served model, from Python."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from client.arrays import Rows, as_array
from client.batch import Batch
from client.batch_stream import BatchAnswer, stream_batches
from client.connection import addresses
from client.connection.call_times import CallTimes
from client.connection.calls import Connection
from client.connection.channel import MAX_MESSAGE_BYTES, RetryPolicy
from client.connection.credentials import Credentials
from client.control import ControlClient
from client.errors import RequestFailed, UsageError
from client.message_size import MessageLimit, MessageSize
from client.model_input import ModelInput
from client.served_model import ServedModel
from client.shared_memory import SharedArray
from protos.codec import (
    InferRequest,
    InferResponse,
    Pieces,
    RequestedOutput,
    decode_response,
    request_pieces,
)
from protos.errors import InvalidMessage, OutputMissing
from protos.tensors import Parameter, Tensor

# How long instruments wait for a server that they started.
READY_TIMEOUT_S = 30.0
_HEADER_BYTES = 64 * 1024
# Rows that are converted at a time into shared memory.
_SHARED_ROWS = 16
# After these errors the server may have another version of the model than the cached one.
_OUTDATED = ("INVALID_ARGUMENT", "NOT_FOUND")


class Client(ControlClient):
    """Talks to one model of one server, or of several that serve the same.

    `address`: HOST:PORT or unix:/path; several servers as a sequence, or separated by commas. They
    are used in turn, and requests that one leaves unanswered go to another. `deadline_s` limits
    every call; None: no limit. `hedge_after_s`: a request, unless streamed, without an answer after
    this time goes to a second server too, and the first answer counts; None: never. `keepalive_s`:
    a connection that is silent for this long while calls wait is pinged, and closed after the same
    time again, so that a stream leaves a server that hangs or vanished; servers close connections
    that ping too often, this server below 5 s, others below 5 min; None: never. `credentials`: TLS
    and a token; None: neither. `output`: the output that `predict` and `stream` return; None:
    `label` if the model has it, else its only output. `takes`: the model's input, for a server
    without metadata. The metadata are read once, and again after a request that did not fit them.

    Safe to use from several threads. Every method raises RequestFailed for an error of a server:
    Unavailable after the attempts of `retry`; its subclass Unreachable if no connection can be
    made, at once if nobody listens; DeadlineExceeded. UsageError for an invalid address, for a
    closed client, and as each method says.
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
        output: str | None = None,
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
        self._model = ServedModel(self, takes)

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

    def check_reachable(self) -> None:
        """Raise Unreachable, with the reason, unless a server answers.

        It takes as long as the retries, a second by default; 10 s without any response, as behind a
        firewall.
        """
        self._connection.check_reachable(self._deadline_s)

    def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """Wait for a server that is starting; Unavailable, with the reason, at the timeout.

        An error that waiting cannot fix, such as an untrusted certificate, is raised at once.
        """
        self._connection.wait_until_ready(timeout_s)

    def predict(
        self, x: Rows | Mapping[str, Rows], output: str | None = None, *, names: bool = False
    ) -> NDArray[Any]:
        """Labels, int64 `[n]`, of the rows of `x` `[n, features]`, or of one row `[features]`.

        `x`: a numpy array in any memory order, nested lists, a data frame or series, a tensor of
        another library. A model with several inputs takes them by name. Any number of rows: rows
        over the model's `max_batch_size` or a few MiB are cut into messages of a stream, unless the
        model's rows belong together (`max_batch_size` 0). Without rows the answer is empty.
        `output` names another output than the client's. `names`: return the classes' names, str, if
        the model has labels: for indices in their shape, for scores `[n, classes]` the best one's,
        `[n]`; UsageError without labels.

        Numbers are rounded to the model's dtype; a model may take float16, or int8 in units of a
        scale in its metadata. UsageError, which names input and element, for numbers that would
        overflow, for text in place of numbers, for sparse and masked arrays, for other shapes.
        """
        if names:
            classes = self._model.class_names(output or self._output)
            return classes.of(self._predicted(x, [classes.requested])[classes.output])
        name = output or self.default_output()
        return self.predict_outputs(x, [name])[name]

    def predict_outputs(
        self, x: Rows | Mapping[str, Rows], outputs: Iterable[str]
    ) -> dict[str, NDArray[Any]]:
        """As `predict`, for several outputs by name, each with one row per row of `x`."""
        return self._predicted(x, _requested(outputs))

    def predict_in_one_request(self, x: Rows) -> NDArray[Any]:
        """As `predict`, for at most the rows of one request; for servers without streams."""
        spec = self.input()
        name = self.default_output()
        return _output(self.infer({spec.name: spec.rows(x)}, (name,)), name)

    def stream(
        self, batches: Iterable[Rows | Mapping[str, Rows]], *, stable: bool = False
    ) -> Iterator[NDArray[Any]]:
        """Labels of each batch `[n, features]`, in order, while later ones are being sent.

        All batches share one stream; each may have any size but 0, and any form that `predict`
        takes. Another thread draws them. An iterator may use the memory of a batch again when the
        next one is drawn; to allow that, messages without an answer are copied before. `stable`
        saves the copy: the caller leaves arrays as they are until they are answered. Batches in a
        list or a tuple are stable.
        """
        name = self.default_output()
        answers = self.stream_answers(batches, stable=stable)
        return (_joined(answer.responses, name) for answer in answers)

    def stream_answers(
        self,
        batches: Iterable[Rows | Mapping[str, Rows]],
        *,
        timings: bool = False,
        stable: bool = False,
    ) -> Iterator[BatchAnswer]:
        """As `stream`, with the whole answers: instants, and with `timings` the stages."""
        self._connection.check_open()
        parameters: dict[str, Parameter] = {"timings": True} if timings else {}
        requested = _requested([self.default_output()])
        stable = stable or isinstance(batches, list | tuple)
        drawn = (self._batch(x) for x in batches)
        return self._stream_batches(drawn, requested, parameters, stable=stable)

    def infer(
        self,
        inputs: Mapping[str, Rows],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        *,
        times: CallTimes | None = None,
    ) -> InferResponse:
        """Send arrays by input name as one request; none named in `outputs` means all of them.

        `response["scores"]` is an output's array. Inputs are converted to the model's dtypes as by
        `predict`; the server checks names and shapes. UsageError for more rows than one request may
        have, which `predict` would cut. `times` is filled in, except with hedging.
        """
        specs = self._model.inputs()
        tensors = [
            Tensor.of(name, specs[name].of_any_shape(data))
            if name in specs
            else _tensor(name, data)
            for name, data in inputs.items()
        ]
        self._check_rows(tensors)
        return self._answer(tensors, _requested(outputs), parameters, times)

    def infer_tensors(
        self,
        tensors: Iterable[Tensor],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> InferResponse:
        """As `infer`, with tensors that may lie in shared memory, sent as they are."""
        return self._answer(tensors, _requested(outputs), parameters)

    def fits_one_message(self, rows: int) -> bool:
        """Whether the server takes a request of that many rows."""
        most_rows = self._model.most_rows() or rows
        size = rows * self.input().row_bytes + _HEADER_BYTES
        return rows <= most_rows and size <= self._model.most_message_bytes()

    def default_output(self) -> str:
        """The output that `predict` returns: the client's own, `label`, or the model's only one.

        UsageError, which lists them, if the model has several and none of them is `label`.
        """
        return self._output or self._model.output()

    def input(self) -> ModelInput:
        """The input that `predict` sends; UsageError unless the model has exactly one."""
        return self._model.only_input()

    @contextlib.contextmanager
    def shared(self, x: Rows) -> Iterator[SharedArray]:
        """A copy of rows, in the model's dtype, in shared memory registered with the server.

        It is registered until the block ends, or with the server until it stops if the client is
        closed before. Only for a server on this machine with shared memory on.
        """
        if len(self._connection.addresses) > 1:
            raise UsageError("got several servers for shared memory, expected one")
        spec = self.input()
        array = spec.rows(x)
        with self._registered(array.shape, spec.dtype) as copy:
            for start in range(0, len(array), _SHARED_ROWS):
                rows = slice(start, start + _SHARED_ROWS)
                copy.array[rows] = spec.cast(array[rows], start)
            yield copy

    def _batch(self, x: Rows | Mapping[str, Rows]) -> Batch:
        if isinstance(x, Mapping):
            return Batch.of(self._model.inputs(), x)
        spec = self.input()
        return Batch.of({spec.name: spec}, {spec.name: x})

    def _limit(self) -> MessageLimit:
        """Limits of one message of `predict` or a stream."""
        model = self._model
        most_bytes = model.most_message_bytes() - _HEADER_BYTES
        return MessageLimit(most_bytes, model.most_rows(), model.gathered_rows())

    def _predicted(
        self, x: Rows | Mapping[str, Rows], requested: Sequence[RequestedOutput]
    ) -> dict[str, NDArray[Any]]:
        names = [output.name for output in requested]
        batch = self._batch(x)
        if not len(batch):
            return {name: self._model.empty(name) for name in names}
        first = MessageSize(self._limit()).next_rows(batch, 0)
        # A single message gains nothing from a stream, and can be retried whole.
        if first.stop == len(batch):
            response = self._answer(batch.tensors(first), requested, {})
            return {name: _output(response, name) for name in names}
        (answer,) = self._stream_batches([batch], requested, {}, stable=True)
        return {name: _joined(answer.responses, name) for name in names}

    def _stream_batches(
        self,
        batches: Iterable[Batch],
        requested: Sequence[RequestedOutput],
        parameters: Mapping[str, Parameter],
        *,
        stable: bool,
    ) -> Iterator[BatchAnswer]:
        def encode(batch: Batch, part: slice, request_id: str, more_follows: bool) -> Pieces:
            extra: dict[str, Parameter] = {"more_follows": True} if more_follows else {}
            return request_pieces(
                InferRequest(
                    self.model,
                    batch.tensors(part),
                    tuple(requested),
                    self.version,
                    request_id,
                    dict(parameters) | extra,
                )
            )

        with self._forgetting():
            yield from stream_batches(
                self._connection,
                batches,
                encode,
                self._limit(),
                self._deadline_s,
                stable=stable,
            )

    def _answer(
        self,
        tensors: Iterable[Tensor],
        requested: Sequence[RequestedOutput],
        parameters: Mapping[str, Parameter] | None,
        times: CallTimes | None = None,
    ) -> InferResponse:
        request = InferRequest(
            self.model,
            tuple(tensors),
            tuple(requested),
            self.version,
            parameters=parameters or {},
        )
        try:
            message = request_pieces(request)
        except InvalidMessage as error:
            raise UsageError(str(error)) from None
        size = sum(map(len, message))
        if size > MAX_MESSAGE_BYTES:
            raise UsageError(
                f"got a request of {size} bytes; a message has at most {MAX_MESSAGE_BYTES}"
            )
        with self._forgetting():
            return decode_response(self._connection.infer(message, self._deadline_s, times))

    def _check_rows(self, tensors: Sequence[Tensor]) -> None:
        rows = max((tensor.shape[0] for tensor in tensors if tensor.shape), default=0)
        if rows > (self._model.most_rows() or rows):
            # A version that takes more may have been loaded since the metadata were read.
            self._model.forget()
        most_rows = self._model.most_rows()
        if most_rows and rows > most_rows:
            raise UsageError(
                f"got {rows} rows in one request; model {self.model!r} takes at most {most_rows}: "
                "predict(x), or predict({NAME: ARRAY}) for several inputs, cuts them"
            )

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Read the metadata again after an answer that may be from another version."""
        try:
            yield
        except RequestFailed as error:
            if error.code in _OUTDATED:
                self._model.forget()
            raise


def _tensor(name: str, data: Rows) -> Tensor:
    """An input without metadata."""
    array = as_array(data, f"input {name!r}")
    try:
        return Tensor.of(name, array)
    except TypeError as error:
        raise UsageError(f"input {name!r}: {error}") from None


def _requested(names: Iterable[str]) -> list[RequestedOutput]:
    return list(map(RequestedOutput, names))


def _output(response: InferResponse, name: str) -> NDArray[Any]:
    try:
        return response[name]
    except OutputMissing as error:
        raise RequestFailed("DATA_LOSS", str(error)) from None


def _joined(responses: Sequence[InferResponse], name: str) -> NDArray[Any]:
    parts = [_output(response, name) for response in responses]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
