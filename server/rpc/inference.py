"""Decode an inference message, queue it, and encode its answer."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from protos.codec import InferRequest, InferResponse
from protos.request_decoding import decode_request
from protos.tensors import Parameter, Tensor, encode_data
from server.batching.byte_budget import ByteBudget
from server.batching.request import Caller, Request, Result
from server.batching.shared_memory import Placement, Region, Regions
from server.errors import DeadlinePassed, InvalidInput, ServerStopping, ServingError, TooMany
from server.loaded_model.model import Model
from server.loaded_model.parts import Parts
from server.loaded_model.request_check import TIMINGS
from server.repository.repository import Repository
from server.rpc import classification, status
from server.rpc.accounting.pending import Pending
from server.rpc.accounting.request_ends import RequestEnds
from transport.status import Code, Status

_CANCELLED = Status(Code.CANCELLED, "the client cancelled the request")


def _nothing() -> None:
    """Nobody has to know."""


@dataclass(slots=True, eq=False)
class Answer:
    """An encoded answer, which was ready at `ready_ns`. `on_gone`: called once it is sent."""

    data: bytes
    ready_ns: int
    model: Model
    on_gone: Callable[[], None] = _nothing

    def sent(self, began_ns: int) -> None:
        """Count it: the kernel has its last byte, since a write that began then."""
        self.model.statistics.sent(began_ns - self.ready_ns)
        self.on_gone()


class Inference:
    """The part that ModelInfer and ModelStreamInfer share."""

    def __init__(
        self,
        repository: Repository,
        budget: ByteBudget,
        regions: Regions,
        ends: RequestEnds,
    ) -> None:
        """`ends` counts the requests."""
        self._repository = repository
        self.budget = budget
        self._regions = regions
        self.ends = ends

    def flush(self) -> None:
        """Run all that is queued without waiting for more: the budget is exhausted."""
        for model in self._repository.models():
            model.flush()

    def decode(self, data: bytes | memoryview, arrived_ns: int, caller: Caller) -> InferRequest:
        """The message that was complete at `arrived_ns`; InvalidMessage."""
        try:
            return decode_request(data)
        except Exception as error:
            self.ends.refuse(
                caller,
                status.described(error),
                arrived_ns,
                len(data),
                request_id=getattr(error, "request_id", ""),
            )
            raise

    def shared_bytes(self, message: InferRequest) -> int:
        """Memory that `prepare` takes for tensors of a message that lie in shared memory."""
        try:
            model = self._repository.get(message.model_name, message.model_version)
        except ServingError:
            return 0  # `prepare` says so
        return model.requests.read_bytes(message, self._regions)

    def prepare(
        self,
        message: InferRequest,
        arrived_ns: int,
        caller: Caller,
        receive_ns: int | None = None,
    ) -> Pending:
        """Make a request of a message that was complete, and undecoded, at `arrived_ns`.

        `receive_ns` is the time since its first byte, None where that was not seen. Raises a
        ServingError; then the message is counted.
        """
        try:
            model = self._repository.get(message.model_name, message.model_version)
        except Exception as error:
            self.ends.refuse(
                caller,
                status.described(error),
                arrived_ns,
                message.byte_size,
                model=message.model_name,
                version=message.model_version,
                request_id=message.id,
            )
            raise
        try:
            return self._check(model, message, arrived_ns, caller, receive_ns)
        except Exception as error:
            self.ends.rejected(message, model, caller, arrived_ns, error)
            raise

    def queue(
        self,
        pending: Pending,
        message: InferRequest,
        caller: Caller,
        give_back: Callable[[], object],
    ) -> Pending:
        """Queue what `prepare` made of a message; what is queued in the end.

        `give_back` is called once the message is needed no more. Raises as `prepare` does; then
        nothing is held, and nothing called.
        """
        while True:
            try:
                pending.model.submit(pending.request)
            except ServerStopping:
                pending = self._anew(pending, message, caller)
                continue
            except Exception as error:
                self.ends.rejected(
                    message, pending.model, caller, pending.request.arrived_ns, error
                )
                raise
            pending.request.released.add_done_callback(lambda _: give_back())
            return pending

    def begin(self, message: InferRequest, arrived_ns: int, caller: Caller) -> Pending:
        """Queue a message, once the budget has room for it; raises as `prepare` does."""
        pending = self.prepare(message, arrived_ns, caller)
        while True:
            try:
                self._wait_and_submit(pending.model, pending.request, caller)
                return pending
            except ServerStopping:
                pending = self._anew(pending, message, caller)
            except Exception as error:
                self.ends.rejected(message, pending.model, caller, arrived_ns, error)
                raise

    def _anew(self, pending: Pending, message: InferRequest, caller: Caller) -> Pending:
        """Only this version is closed: another one has replaced it. Look the model up again."""
        arrived_ns = pending.request.arrived_ns
        cover = pending.cover
        pending = self.prepare(message, arrived_ns, caller, pending.receive_ns)
        pending.cover = cover
        return pending

    def begin_arriving(
        self, message: InferRequest, arrived_ns: int, caller: Caller
    ) -> tuple[Pending, Parts] | None:
        """Check a message of which not all rows are there; nothing is queued yet.

        None unless it can be queued in parts. A message that is refused is None, too: `prepare`
        gives the reason once all of it is there.
        """
        try:
            model = self._repository.get(message.model_name, message.model_version)
            if not model.takes_parts:
                return None
            pending = self._check(model, message, arrived_ns, caller, None)
        except Exception:
            return None
        parts = model.parts(pending.request)
        return None if parts is None else (pending, parts)

    def _check(
        self,
        model: Model,
        message: InferRequest,
        arrived_ns: int,
        caller: Caller,
        receive_ns: int | None,
    ) -> Pending:
        """Make the request of a message, which is not queued yet; raises a ServingError."""
        shared_outputs: Mapping[str, tuple[Region, Placement]] = {}
        class_counts: Mapping[str, int] = {}
        if message.outputs:
            shared_outputs = self._shared_outputs(message)
        request = model.requests.check(message, self._regions, arrived_ns, caller)
        if message.outputs:
            class_counts = classification.counts(message.outputs, model.output_dtypes)
        wants_timings = bool(message.parameters.get(TIMINGS))
        return Pending(
            message.id,
            model,
            request,
            caller.method,
            caller.metadata,
            receive_ns,
            time.monotonic_ns() - arrived_ns,
            wants_timings,
            shared_outputs,
            class_counts,
        )

    def finish(
        self, pending: Pending, encode: Callable[[InferResponse], bytes], **parameters: Parameter
    ) -> Answer:
        """Wait up to the deadline for the result of a message that `begin` queued; encode it.

        `parameters` are set on the response. Raises a ServingError.
        """
        try:
            result = _wait(pending)
            computed_ns = time.monotonic_ns()
            data = encode(_response(pending, result, computed_ns, parameters))
            if not pending.cover(len(data)):
                raise TooMany(
                    f"the answer has {len(data)} bytes, for which there is no room: clients do not "
                    "read theirs"
                )
        except Exception as error:
            self.ends.failed(pending, status.described(error))
            raise
        done_ns = time.monotonic_ns()
        self.ends.answered(pending, result.timings, computed_ns, done_ns, len(data))
        return Answer(data, done_ns, pending.model)

    def abandon(self, pending: Pending, ended: Status = _CANCELLED) -> None:
        """Drop what `begin` queued: its call has `ended`, nobody waits for its answer any more."""
        pending.cancel()
        self.ends.failed(pending, ended)

    def _shared_outputs(self, message: InferRequest) -> dict[str, tuple[Region, Placement]]:
        shared = {}
        for output in message.outputs:
            placement = Placement.of(output.parameters)
            if placement is not None:
                region = self._regions.get(placement.region)
                region.check(placement.offset, placement.byte_size)
                shared[output.name] = (region, placement)
        return shared

    def _wait_and_submit(self, model: Model, request: Request, caller: Caller) -> None:
        size = request.size_bytes
        # The bytes may be held by requests in this same queue that wait for more rows.
        self.budget.acquire(size, caller, before_waiting=model.flush)
        try:
            model.submit(request)
        except ServingError:
            self.budget.release(size)
            raise
        request.released.add_done_callback(lambda _: self.budget.release(size))


def _wait(pending: Pending) -> Result:
    request = pending.request
    timeout_s = None
    if request.deadline_ns is not None:
        timeout_s = max(0.0, (request.deadline_ns - time.monotonic_ns()) / 1e9)
    try:
        return request.future.result(timeout_s)
    except FutureTimeout:
        pending.cancel()
        raise DeadlinePassed("the deadline passed before the answer was ready") from None


def _response(
    pending: Pending, result: Result, computed_ns: int, parameters: dict[str, Parameter]
) -> InferResponse:
    if pending.wants_timings:
        timings = result.timings
        if pending.receive_ns is not None:
            parameters["receive_ns"] = pending.receive_ns
        # The scheduler's queue begins with the message's arrival.
        known_ns = timings.queue_ns + timings.assemble_ns + timings.compute_ns
        parameters |= {
            "decode_ns": pending.decode_ns,
            "queue_ns": timings.queue_ns - pending.decode_ns,
            "assemble_ns": timings.assemble_ns,
            "compute_ns": timings.compute_ns,
            # 0 where batches of one request ran at the same time.
            "handover_ns": max(0, computed_ns - pending.request.arrived_ns - known_ns),
            "batch_rows": timings.batch_rows,
            "execution_provider": timings.execution_provider,
        }
        if pending.request.batch_dependent is not None:
            parameters["batch_dependent"] = pending.request.batch_dependent
    return InferResponse(
        model_name=pending.model.name,
        model_version=pending.model.version,
        id=pending.id,
        parameters=parameters,
        outputs=tuple([_output(pending, name, data) for name, data in result.outputs.items()]),
    )


def _output(pending: Pending, name: str, data: NDArray[Any]) -> Tensor:
    """An output for the response; an output in shared memory is written there here."""
    if name in pending.class_counts:
        model, count = pending.model, pending.class_counts[name]
        data = classification.strongest(
            f"output {name!r}",
            data,
            count,
            model.labels.get(name, ()),
            batched=model.max_batch_rows > 0,
        )
    tensor = Tensor.of(name, data)
    if name not in pending.shared_outputs:
        return tensor
    region, placement = pending.shared_outputs[name]
    encoded = encode_data(tensor.datatype, data, f"output {name!r}")
    if encoded.nbytes > placement.byte_size:
        raise InvalidInput(
            f"output {name!r} has {encoded.nbytes} bytes, expected at most the "
            f"{placement.byte_size} set aside for it in shared memory"
        )
    region.write(placement.offset, encoded)
    return Tensor(
        name,
        tensor.datatype,
        tensor.shape,
        None,
        {
            "shared_memory_region": placement.region,
            "shared_memory_offset": placement.offset,
            "shared_memory_byte_size": encoded.nbytes,
        },
    )
