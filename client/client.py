"""Predict with a served model, from Python."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from client.arrays import Array, Rows, as_array
from client.batch import Batch, MessageLimit
from client.batch_stream import BatchAnswer, stream_batches
from client.connection import addresses
from client.connection.calls import Connection
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.control import ControlClient
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from client.served_model import ServedModel
from client.shared_memory import SharedArray
from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_response,
    encode_request,
)
from protos.errors import InvalidMessage, OutputMissing
from protos.tensors import Parameter, Tensor

# Large enough that a message's fixed cost is small, small enough that receiving, computing and
# answering overlap.
STREAM_MESSAGE_BYTES = 4 * 2**20
# How long instruments wait for a server that they started.
READY_TIMEOUT_S = 30.0
_HEADER_BYTES = 64 * 1024
# Rows that are converted at a time on their way into shared memory.
_SHARED_ROWS = 16
# After these the server may have another version of the model than the one that was asked about.
_OUTDATED = ("INVALID_ARGUMENT", "NOT_FOUND")


class Client(ControlClient):
    """Talks to one model of one server, or of several that serve the same.

    `address`: HOST:PORT or unix:/path; of several servers a sequence, or commas between. They take
    turns, and what one of them leaves unanswered another is asked. `deadline_s` bounds every call,
    None: not at all. `hedge_after_s`: whatever is not streamed and has no answer by then is asked
    of a second server too, and the first answer counts; None: never. `keepalive_s`: a connection
    that is silent for so long while calls wait is tested, and given up after as long again, which
    is how a stream gets away from a server that hangs or vanished; servers end connections that are
    tested too often, this one below 5 s, others below 5 min; None: never. `credentials`: TLS and a
    token; without them, neither. `output`: what `predict` and `stream` give; None: `label` where
    the model has it, else its only output. `takes`: what the model takes, for a server that does
    not tell. What the model takes is asked once, and again after a request that did not fit it.

    Safe to use from several threads. Every method raises RequestFailed when a server refuses:
    Unavailable after the attempts of `retry`, Unreachable of it when no connection comes about,
    which is known at once where nobody listens; DeadlineExceeded. UsageError when an address is
    none, when the client is closed, and as each method says.
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

        It takes as long as the retries do, a second by default; 10 s where nothing at all comes
        back, as through a firewall.
        """
        self._connection.check_reachable(self._deadline_s)

    def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """Wait for a server that is still starting; Unavailable, with the reason, at the timeout.

        What waiting does not mend, such as a certificate that is not trusted, ends it at once.
        """
        self._connection.wait_until_ready(timeout_s)

    def predict(
        self, x: Rows | Mapping[str, Rows], output: str | None = None, *, names: bool = False
    ) -> Array:
        """Labels, int64 `[n]`, of the rows of `x` `[n, features]`, or of one row `[features]`.

        `x` is whatever stands for an array: numpy's own in any order of memory, nested lists, data
        frames and series, tensors of other libraries. A model of several inputs takes them by name.
        Any number of rows: what exceeds the model's `max_batch_size` or a few MiB is cut into
        messages of a stream, unless the model's rows belong together (`max_batch_size` 0). Without
        rows the answer is empty. `output` names another output than that of the client. `names`:
        the classes' names instead, str, where the model has labels: of indices in their shape, of
        scores `[n, classes]` that of the best, `[n]`; UsageError where there are none.

        Numbers are rounded to the model's dtype; a model may take float16, or int8 in units of a
        scale that the server tells. UsageError, which names input and element, for what would
        overflow, for text where numbers are wanted, for sparse and masked arrays, for other shapes.
        """
        if names:
            classes = self._model.class_names(output or self._output)
            return classes.of(self._predicted(x, [classes.requested])[classes.output])
        name = output or self.default_output()
        return self.predict_outputs(x, [name])[name]

    def predict_outputs(
        self, x: Rows | Mapping[str, Rows], outputs: Iterable[str]
    ) -> dict[str, Array]:
        """As `predict`, of several outputs by name, each with a row for each row of `x`."""
        return self._predicted(x, _requested(outputs))

    def predict_in_one_request(self, x: Rows) -> Array:
        """As `predict`, of as many rows as one request may have; for servers without streams."""
        spec = self.input()
        name = self.default_output()
        return _output(self.infer({spec.name: spec.rows(x)}, (name,)), name)

    def stream(self, batches: Iterable[Rows | Mapping[str, Rows]]) -> Iterator[Array]:
        """Labels of each batch `[n, features]`, in order, while later ones are being sent.

        All batches share one stream; each may be of any size but 0, and anything that `predict`
        takes.
        """
        name = self.default_output()
        answers = self.stream_answers(batches)
        return (_joined(answer.responses, name) for answer in answers)

    def stream_answers(
        self, batches: Iterable[Rows | Mapping[str, Rows]], *, timings: bool = False
    ) -> Iterator[BatchAnswer]:
        """As `stream`, with everything that came back: instants, and with `timings` the stages."""
        self._connection.check_open()
        parameters: dict[str, Parameter] = {"timings": True} if timings else {}
        wanted = _requested([self.default_output()])
        return self._stream_batches((self._batch(x) for x in batches), wanted, parameters)

    def infer(
        self,
        inputs: Mapping[str, Rows],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> InferResponse:
        """Send arrays by input name as one request; none named in `outputs` means all of them.

        `response["scores"]` is an output's array. Inputs are converted as `predict` does, to what
        the model takes; whether names and shapes fit, the server says. UsageError for more rows
        than one request may have: `predict` cuts them.
        """
        specs = self._model.inputs()
        tensors = [
            Tensor.of(name, specs[name].of_any_shape(data))
            if name in specs
            else _tensor(name, data)
            for name, data in inputs.items()
        ]
        self._check_rows(tensors)
        return self._answer(tensors, _requested(outputs), parameters)

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
        """The output that `predict` gives: the client's own, `label`, or the model's only one.

        UsageError, which lists them, when the model has several and none of them is `label`.
        """
        return self._output or self._model.output()

    def input(self) -> ModelInput:
        """What `predict` sends; UsageError when the model has not exactly one input."""
        return self._model.only_input()

    @contextlib.contextmanager
    def shared(self, x: Rows) -> Iterator[SharedArray]:
        """A copy of rows, as the model takes them, in shared memory that the server has.

        It is registered until the block ends. Only for a server on this machine, with shared
        memory switched on.
        """
        if len(self._connection.addresses) > 1:
            raise UsageError("shared memory was asked for with several servers; wanted one")
        spec = self.input()
        given = spec.rows(x)
        with SharedArray(given.shape, spec.dtype) as copy:
            for start in range(0, len(given), _SHARED_ROWS):
                rows = slice(start, start + _SHARED_ROWS)
                copy.array[rows] = spec.cast(given[rows], start)
            with self._registered(copy):
                yield copy

    def _batch(self, x: Rows | Mapping[str, Rows]) -> Batch:
        if isinstance(x, Mapping):
            return Batch.of(self._model.inputs(), x)
        spec = self.input()
        return Batch.of({spec.name: spec}, {spec.name: x})

    def _limit(self) -> MessageLimit:
        """What one message of `predict` or a stream holds."""
        most_bytes = self._model.most_message_bytes() - _HEADER_BYTES
        return MessageLimit(min(STREAM_MESSAGE_BYTES, most_bytes), self._model.most_rows())

    def _predicted(
        self, x: Rows | Mapping[str, Rows], wanted: Sequence[RequestedOutput]
    ) -> dict[str, Array]:
        names = [output.name for output in wanted]
        batch = self._batch(x)
        parts = batch.parts(self._limit())
        if not parts:
            return {name: self._model.empty(name) for name in names}
        # What fits one message gains nothing from a stream, and can be retried whole.
        if len(parts) == 1:
            response = self._answer(batch.tensors(parts[0]), wanted, {})
            return {name: _output(response, name) for name in names}
        (answer,) = self._stream_batches(iter([batch]), wanted, {})
        return {name: _joined(answer.responses, name) for name in names}

    def _stream_batches(
        self,
        batches: Iterable[Batch],
        wanted: Sequence[RequestedOutput],
        parameters: Mapping[str, Parameter],
    ) -> Iterator[BatchAnswer]:
        def encode(batch: Batch, part: slice, request_id: str, more_follows: bool) -> bytes:
            extra: dict[str, Parameter] = {"more_follows": True} if more_follows else {}
            return encode_request(
                InferRequest(
                    self.model,
                    batch.tensors(part),
                    tuple(wanted),
                    self.version,
                    request_id,
                    dict(parameters) | extra,
                )
            )

        with self._forgetting():
            yield from stream_batches(
                self._connection, batches, encode, self._limit(), self._deadline_s
            )

    def _answer(
        self,
        tensors: Iterable[Tensor],
        wanted: Sequence[RequestedOutput],
        parameters: Mapping[str, Parameter] | None,
    ) -> InferResponse:
        request = InferRequest(
            self.model,
            tuple(tensors),
            tuple(wanted),
            self.version,
            parameters=parameters or {},
        )
        try:
            message = encode_request(request)
        except InvalidMessage as error:
            raise UsageError(str(error)) from None
        with self._forgetting():
            return decode_response(self._connection.infer(message, self._deadline_s))

    def _check_rows(self, tensors: Sequence[Tensor]) -> None:
        rows = max((tensor.shape[0] for tensor in tensors if tensor.shape), default=0)
        if rows > (self._model.most_rows() or rows):
            # Another version that takes more may have come since the server was asked.
            self._model.forget()
        most_rows = self._model.most_rows()
        if most_rows and rows > most_rows:
            raise UsageError(
                f"the request has {rows} rows; model {self.model!r} takes at most {most_rows} in "
                "one: predict(x), or predict({NAME: ARRAY}) for several inputs, cuts them"
            )

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Ask about the model again after an answer that another version of it may have given."""
        try:
            yield
        except RequestFailed as error:
            if error.code in _OUTDATED:
                self._model.forget()
            raise


def _tensor(name: str, data: Rows) -> Tensor:
    """An input about which the server says nothing."""
    array = as_array(data, f"input {name!r}")
    try:
        return Tensor.of(name, array)
    except TypeError as error:
        raise UsageError(f"input {name!r}: {error}") from None


def _requested(names: Iterable[str]) -> list[RequestedOutput]:
    return list(map(RequestedOutput, names))


def _output(response: InferResponse, name: str) -> Array:
    try:
        return response[name]
    except OutputMissing as error:
        raise RequestFailed("DATA_LOSS", str(error)) from None


def _joined(responses: Sequence[InferResponse], name: str) -> Array:
    parts = [_output(response, name) for response in responses]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
