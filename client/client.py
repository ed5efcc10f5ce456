"""Predict with a served model, from Python."""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import NDArray

from client.arrays import Rows
from client.batch import Batch
from client.batch_stream import BatchAnswer
from client.calls.model_calls import ModelCalls
from client.calls.model_stream import ModelStream, joined
from client.connection.blocking import Blocking
from client.connection.call_options import CallOptions
from client.connection.call_times import CallTimes
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.connection.waiting import each, run
from client.model_input import ModelInput
from client.shared_memory import SharedArray
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.codec import InferResponse
from protos.tensors import Parameter, Tensor
from transport.calling.resolving import Resolving
from transport.calling.servers import Policy

# How long instruments wait for a server that they started.
READY_TIMEOUT_S = 30.0


class Client:
    """Talks to one model of one server, or of several that serve the same.

    `address`: HOST:PORT or unix:/path; several servers as a sequence, or separated by commas, or
    one name with an address for each. Requests that one leaves unanswered go to another. `balance`:
    a request goes to the server with the fewest requests of this client, `least_requests`, or to
    all in turn, `round_robin`. `resolving`: how names are looked up, and how often; None: by the
    system, every 5 s. `deadline_s` limits
    every call; None: no limit. `hedge_after_s`: a request, unless streamed, without an answer after
    this time goes to a second server too, and the first answer counts; None: never. `keepalive_s`:
    a connection that is silent for this long while calls wait is pinged, and closed after the same
    time again, so that a stream leaves a server that hangs or vanished; servers close connections
    that ping too often, this server below 5 s, others below 5 min; None: never. `credentials`: TLS
    and a token; None: neither. `output`: the output that `predict` and `stream` return; None:
    `label` if the model has it, else its only output. `takes`: the model's input, for a server
    without metadata. The metadata are read once, and again after a request that did not fit them.

    Safe to use from several threads. Methods with `options` take the keyword arguments of
    CallOptions, which hold for that call. If the program has imported OpenTelemetry's API, the
    trace of the current span is sent along. Every method raises RequestFailed for an error of a
    server: Unavailable after the attempts of `retry`; its subclass Unreachable if no connection can
    be made, at once if nobody listens; DeadlineExceeded. UsageError for an invalid address or
    option, for a closed client, and as each method says.
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
        balance: Policy = "least_requests",
        resolving: Resolving | None = None,
        credentials: Credentials | None = None,
        output: str | None = None,
        takes: ModelInput | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self._calls = ModelCalls(
            Blocking(),
            address,
            model,
            version,
            deadline_s=deadline_s,
            retry=retry,
            hedge_after_s=hedge_after_s,
            keepalive_s=keepalive_s,
            balance=balance,
            resolving=resolving,
            credentials=credentials,
            output=output,
            takes=takes,
        )
        self._connection = self._calls.connection

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

    # --- predictions

    def predict(
        self,
        x: Rows | Mapping[str, Rows],
        output: str | None = None,
        *,
        names: bool = False,
        **options: Unpack[CallOptions],
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
        return run(self._calls.predict(x, output, names=names, **options))

    def predict_outputs(
        self,
        x: Rows | Mapping[str, Rows],
        outputs: Iterable[str],
        **options: Unpack[CallOptions],
    ) -> dict[str, NDArray[Any]]:
        """As `predict`, for several outputs by name, each with one row per row of `x`."""
        return run(self._calls.predict_outputs(x, outputs, **options))

    def predict_in_one_request(self, x: Rows, **options: Unpack[CallOptions]) -> NDArray[Any]:
        """As `predict`, for at most the rows of one request; for servers without streams."""
        return run(self._calls.predict_in_one_request(x, **options))

    def stream(
        self,
        batches: Iterable[Rows | Mapping[str, Rows]],
        *,
        stable: bool = False,
        **options: Unpack[CallOptions],
    ) -> Iterator[NDArray[Any]]:
        """Labels of each batch `[n, features]`, in order, while later ones are being sent.

        All batches share one stream; each may have any size but 0, and any form that `predict`
        takes. Another thread draws them. An iterator may use the memory of a batch again when the
        next one is drawn; to allow that, messages without an answer are copied before. `stable`
        saves the copy: the caller leaves arrays as they are until they are answered. Batches in a
        list or a tuple are stable.
        """
        stream = self._opened(batches, options, timings=False, stable=stable)
        return (joined(answer.responses, stream.output) for answer in _each(stream))

    def stream_answers(
        self,
        batches: Iterable[Rows | Mapping[str, Rows]],
        *,
        timings: bool = False,
        stable: bool = False,
        **options: Unpack[CallOptions],
    ) -> Iterator[BatchAnswer]:
        """As `stream`, with the whole answers: instants, and with `timings` the stages."""
        return _each(self._opened(batches, options, timings=timings, stable=stable))

    def infer(
        self,
        inputs: Mapping[str, Rows],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        *,
        times: CallTimes | None = None,
        **options: Unpack[CallOptions],
    ) -> InferResponse:
        """Send arrays by input name as one request; none named in `outputs` means all of them.

        `response["scores"]` is an output's array. Inputs are converted to the model's dtypes as by
        `predict`; the server checks names and shapes. UsageError for more rows than one request may
        have, which `predict` would cut. `times` is filled in, except with hedging.
        """
        return run(self._calls.infer(inputs, outputs, parameters, times=times, **options))

    def infer_tensors(
        self,
        tensors: Iterable[Tensor],
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        **options: Unpack[CallOptions],
    ) -> InferResponse:
        """As `infer`, with tensors that may lie in shared memory, sent as they are."""
        return run(self._calls.infer_tensors(tensors, outputs, parameters, **options))

    @contextlib.contextmanager
    def shared(self, x: Rows, **options: Unpack[CallOptions]) -> Iterator[SharedArray]:
        """A copy of rows, in the model's dtype, in shared memory registered with the server.

        It is registered until the block ends, or with the server until it stops if the client is
        closed before. Only for a server on this machine with shared memory on.
        """
        copy = run(self._calls.share(x, options))
        try:
            yield copy
        finally:
            run(self._calls.release(copy, options))

    def _opened(
        self,
        batches: Iterable[Rows | Mapping[str, Rows]],
        options: CallOptions,
        *,
        timings: bool,
        stable: bool,
    ) -> ModelStream:
        stable = stable or isinstance(batches, list | tuple)
        draw = partial(_Drawn, iter(batches))
        return run(self._calls.open_stream(draw, options, timings=timings, stable=stable))

    # --- the model

    def fits_one_message(self, rows: int, **options: Unpack[CallOptions]) -> bool:
        """Whether the server takes a request of that many rows."""
        return run(self._calls.fits_one_message(rows, **options))

    def default_output(self, **options: Unpack[CallOptions]) -> str:
        """The output that `predict` returns: the client's own, `label`, or the model's only one.

        UsageError, which lists them, if the model has several and none of them is `label`.
        """
        return run(self._calls.default_output(**options))

    def input(self, **options: Unpack[CallOptions]) -> ModelInput:
        """The input that `predict` sends; UsageError unless the model has exactly one."""
        return run(self._calls.input(**options))

    def metadata(self, **options: Unpack[CallOptions]) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes of the model's inputs and outputs."""
        return run(self._calls.metadata(**options))

    def config(self, **options: Unpack[CallOptions]) -> config_pb.ModelConfig:
        """Configuration of the model."""
        return run(self._calls.config(**options))

    def told(self, name: str, **options: Unpack[CallOptions]) -> str:
        """A parameter of the model's configuration; empty if the server has none of that name."""
        return run(self._calls.told(name, **options))

    def statistics(self, **options: Unpack[CallOptions]) -> pb.ModelStatistics:
        """Statistics of the model since it was loaded."""
        return run(self._calls.statistics(**options))

    # --- the server

    def live(self, **options: Unpack[CallOptions]) -> bool:
        """Whether the server process answers."""
        return run(self._calls.live(**options))

    def server_ready(self, **options: Unpack[CallOptions]) -> bool:
        """Whether the server accepts requests."""
        return run(self._calls.server_ready(**options))

    def ready(self, **options: Unpack[CallOptions]) -> bool:
        """Whether the model accepts requests."""
        return run(self._calls.ready(**options))

    def server_metadata(self, **options: Unpack[CallOptions]) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        return run(self._calls.server_metadata(**options))

    def check_reachable(self, **options: Unpack[CallOptions]) -> None:
        """Raise Unreachable, with the reason, unless a server answers.

        It takes as long as the retries, a second by default; 10 s without any response, as behind a
        firewall.
        """
        run(self._calls.check_reachable(**options))

    def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """Wait for a server that is starting; Unavailable, with the reason, at the timeout.

        An error that waiting cannot fix, such as an untrusted certificate, is raised at once.
        """
        run(self._calls.wait_until_ready(timeout_s))


class _Drawn:
    """Batches of an iterator, as a Series."""

    def __init__(
        self,
        batches: Iterator[Rows | Mapping[str, Rows]],
        batch_of: Callable[[Rows | Mapping[str, Rows]], Awaitable[Batch]],
    ) -> None:
        self._batches = batches
        self._batch_of = batch_of

    async def next(self) -> Batch | None:
        for x in self._batches:
            return await self._batch_of(x)
        return None


def _each(stream: ModelStream) -> Iterator[BatchAnswer]:
    try:
        yield from each(stream)
    finally:
        run(stream.close())
