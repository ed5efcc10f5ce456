"""Predict with a served model, in coroutines: what the blocking and the asyncio client share."""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from numpy.typing import NDArray

from client.arrays import Rows
from client.batch import Batch
from client.batch_stream import BatchStream
from client.calls.control_calls import ControlCalls
from client.calls.model_stream import ModelStream, Once, joined, the_output
from client.calls.requests import encoded, undescribed
from client.connection import addresses
from client.connection.call_options import CallOptions, CallSettings
from client.connection.call_times import CallTimes
from client.connection.calls import Connection
from client.connection.channel import Balancing, RetryPolicy
from client.connection.credentials import Credentials
from client.connection.waiting import Series, Waiting
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
from protos.tensors import Parameter, Tensor
from transport.calling.resolving import Resolving
from transport.calling.servers import Policy

_HEADER_BYTES = 64 * 1024
# Rows that are converted at a time into shared memory.
_SHARED_ROWS = 16
# After these errors the server may have another version of the model than the cached one.
_OUTDATED = ("INVALID_ARGUMENT", "NOT_FOUND")

# Makes the batches of a stream, given how to make one of a caller's rows.
Draw = Callable[[Callable[[Rows | Mapping[str, Rows]], Awaitable[Batch]]], Series[Batch]]


class ModelCalls(ControlCalls):
    """All calls of one model; `Client` says what arguments mean and what its methods do.

    `waiting` says how the coroutines wait.
    """

    def __init__(
        self,
        waiting: Waiting,
        address: str | Sequence[str],
        model: str,
        version: str,
        *,
        deadline_s: float | None,
        retry: RetryPolicy | None,
        hedge_after_s: float | None,
        keepalive_s: float | None,
        balance: Policy,
        resolving: Resolving | None,
        credentials: Credentials | None,
        output: str | None,
        takes: ModelInput | None,
    ) -> None:
        connection = Connection(
            addresses.parse(address),
            retry,
            credentials,
            hedge_after_s=hedge_after_s,
            keepalive_s=keepalive_s,
            deadline_s=deadline_s,
            balancing=Balancing(balance, resolving or Resolving()),
            waiting=waiting,
        )
        super().__init__(connection, model, version)
        self._output = output
        self._model = ServedModel(
            model, self._read_metadata, self._read_config, waiting.turns(), takes
        )

    async def predict(
        self,
        x: Rows | Mapping[str, Rows],
        output: str | None = None,
        *,
        names: bool = False,
        **options: Unpack[CallOptions],
    ) -> NDArray[Any]:
        """See Client."""
        settings = self._settings(options)
        if names:
            classes = await self._model.class_names(output or self._output, settings)
            predicted = await self._predicted(x, [classes.requested], settings)
            return classes.of(predicted[classes.output])
        name = output or await self._default_output(settings)
        return (await self._predicted(x, _requested([name]), settings))[name]

    async def predict_outputs(
        self,
        x: Rows | Mapping[str, Rows],
        outputs: Iterable[str],
        **options: Unpack[CallOptions],
    ) -> dict[str, NDArray[Any]]:
        """See Client."""
        return await self._predicted(x, _requested(outputs), self._settings(options))

    async def predict_in_one_request(self, x: Rows, **options: Unpack[CallOptions]) -> NDArray[Any]:
        """See Client."""
        settings = self._settings(options)
        spec = await self._model.only_input(settings)
        name = await self._default_output(settings)
        inputs = {spec.name: spec.rows(x)}
        return the_output(await self._inferred(inputs, (name,), None, settings), name)

    async def infer(
        self,
        inputs: Mapping[str, Rows],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        *,
        times: CallTimes | None = None,
        **options: Unpack[CallOptions],
    ) -> InferResponse:
        """See Client."""
        settings = self._settings(options)
        return await self._inferred(inputs, outputs, parameters, settings, times)

    async def infer_tensors(
        self,
        tensors: Iterable[Tensor],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        **options: Unpack[CallOptions],
    ) -> InferResponse:
        """See Client."""
        settings = self._settings(options)
        return await self._answer(tensors, _requested(outputs), parameters, settings)

    async def fits_one_message(self, rows: int, **options: Unpack[CallOptions]) -> bool:
        """See Client."""
        settings = self._settings(options)
        most_rows = await self._model.most_rows(settings) or rows
        row_bytes = (await self._model.only_input(settings)).row_bytes
        most_bytes = await self._model.most_message_bytes(settings)
        return rows <= most_rows and rows * row_bytes + _HEADER_BYTES <= most_bytes

    async def default_output(self, **options: Unpack[CallOptions]) -> str:
        """See Client."""
        return await self._default_output(self._settings(options))

    async def input(self, **options: Unpack[CallOptions]) -> ModelInput:
        """See Client."""
        return await self._model.only_input(self._settings(options))

    async def _default_output(self, settings: CallSettings) -> str:
        return self._output or await self._model.output(settings)

    async def share(self, x: Rows, options: CallOptions) -> SharedArray:
        """Begin `Client.shared`; `release` ends it."""
        settings = self._settings(options)
        if addresses.several(self.connection.addresses):
            raise UsageError("got several servers for shared memory, expected one")
        spec = await self._model.only_input(settings)
        array = spec.rows(x)
        copy = await self._registered(array.shape, spec.dtype, settings)
        try:
            for start in range(0, len(array), _SHARED_ROWS):
                rows = slice(start, start + _SHARED_ROWS)
                copy.array[rows] = spec.cast(array[rows], start)
        except BaseException:
            await self.release(copy, options)
            raise
        return copy

    async def _batch(self, x: Rows | Mapping[str, Rows], settings: CallSettings) -> Batch:
        if isinstance(x, Mapping):
            return Batch.of(await self._model.inputs(settings), x)
        spec = await self._model.only_input(settings)
        return Batch.of({spec.name: spec}, {spec.name: x})

    async def _limit(self, settings: CallSettings) -> MessageLimit:
        """Limits of one message of `predict` or a stream."""
        model = self._model
        most_bytes = await model.most_message_bytes(settings) - _HEADER_BYTES
        most_rows = await model.most_rows(settings)
        return MessageLimit(most_bytes, most_rows, await model.gathered_rows(settings))

    async def _predicted(
        self,
        x: Rows | Mapping[str, Rows],
        requested: Sequence[RequestedOutput],
        settings: CallSettings,
    ) -> dict[str, NDArray[Any]]:
        names = [output.name for output in requested]
        batch = await self._batch(x, settings)
        if not len(batch):
            return {name: await self._model.empty(name, settings) for name in names}
        limit = await self._limit(settings)
        first = MessageSize(limit).next_rows(batch, 0)
        # A single message gains nothing from a stream, and can be retried whole.
        if first.stop == len(batch):
            response = await self._answer(batch.tensors(first), requested, {}, settings)
            return {name: the_output(response, name) for name in names}
        stream = self._stream(Once(batch), requested, {}, limit, settings, stable=True)
        try:
            answer = await stream.next()
        finally:
            await stream.close()
        assert answer is not None
        return {name: joined(answer.responses, name) for name in names}

    async def open_stream(
        self, draw: Draw, options: CallOptions, *, timings: bool, stable: bool
    ) -> ModelStream:
        """Answers to the batches that `draw` makes, none of which is drawn before the first."""
        self.connection.check_open()
        settings = self._settings(options)
        name = await self._default_output(settings)
        limit = await self._limit(settings)
        parameters: dict[str, Parameter] = {"timings": True} if timings else {}
        batches = draw(lambda x: self._batch(x, settings))
        return self._stream(batches, _requested([name]), parameters, limit, settings, stable=stable)

    def _stream(
        self,
        batches: Series[Batch],
        requested: Sequence[RequestedOutput],
        parameters: Mapping[str, Parameter],
        limit: MessageLimit,
        settings: CallSettings,
        *,
        stable: bool,
    ) -> ModelStream:
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

        stream = BatchStream(self.connection, batches, encode, limit, settings, stable=stable)
        return ModelStream(stream, requested[0].name, self._forgetting)

    async def _inferred(
        self,
        inputs: Mapping[str, Rows],
        outputs: Iterable[str],
        parameters: Mapping[str, Parameter] | None,
        settings: CallSettings,
        times: CallTimes | None = None,
    ) -> InferResponse:
        specs = await self._model.inputs(settings)
        tensors = [
            Tensor.of(name, specs[name].of_any_shape(data))
            if name in specs
            else undescribed(name, data)
            for name, data in inputs.items()
        ]
        await self._check_rows(tensors, settings)
        return await self._answer(tensors, _requested(outputs), parameters, settings, times)

    async def _answer(
        self,
        tensors: Iterable[Tensor],
        requested: Sequence[RequestedOutput],
        parameters: Mapping[str, Parameter] | None,
        settings: CallSettings,
        times: CallTimes | None = None,
    ) -> InferResponse:
        message = encoded(
            InferRequest(
                self.model,
                tuple(tensors),
                tuple(requested),
                self.version,
                parameters=parameters or {},
            )
        )
        with self._forgetting():
            return decode_response(await self.connection.infer(message, settings, times))

    async def _check_rows(self, tensors: Sequence[Tensor], settings: CallSettings) -> None:
        rows = max((tensor.shape[0] for tensor in tensors if tensor.shape), default=0)
        if rows > (await self._model.most_rows(settings) or rows):
            # A version that takes more may have been loaded since the metadata were read.
            self._model.forget()
        most_rows = await self._model.most_rows(settings)
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


def _requested(names: Iterable[str]) -> list[RequestedOutput]:
    return list(map(RequestedOutput, names))
