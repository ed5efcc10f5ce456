"""Generate load in a separate process, on commands from its parent in lines of JSON."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.client import READY_TIMEOUT_S, Client
from client.connection import addresses
from client.connection.calls import Connection
from client.connection.channel import Balancing, RetryPolicy
from client.errors import ClientError, RequestFailed, UsageError
from client.model_input import ModelInput
from command_line.parser import positionals
from measure.core import record
from measure.core.child_process import Parent
from measure.core.stages import stages_of
from measure.core.verification import Truth, check, one_a_row, truth
from measure.engine.loop import Inbox, Stop, Traffic
from measure.engine.senders import Outcome, Sender, StreamSender, UnarySender, decoded, requests_of
from measure.engine.slice import Slice
from measure.engine.worker_job import Job, Load
from protos.codec import InferResponse
from protos.tensors import Parameter, Tensor
from transport.calling.resolving import Resolving

# Memory that answers and calls in flight may use, at the client and at a server on this machine.
_UNDER_WAY_BYTES = 512 * 2**20
_FEWEST_UNDER_WAY, _MOST_UNDER_WAY = 32, 4096
_ONCE = RetryPolicy(attempts=1)
# A waiting thread gets the interpreter lock this soon: sends must not wait for answers.
_SWITCH_INTERVAL_S = 0.0002


def main() -> None:
    """Read a job, then a load and a stop for each point, until the parent closes stdin."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    parent = Parent()
    lines = iter(parent)
    job = record.decoded(next(lines), Job)
    with contextlib.ExitStack() as stack:
        try:
            credentials = job.credential_files.read()
            balancing = Balancing(job.balance, Resolving(job.resolve_s))
            client = stack.enter_context(
                Client(
                    job.address,
                    job.model,
                    job.version,
                    deadline_s=job.timeout_s,
                    retry=_ONCE,
                    credentials=credentials,
                    balance=balancing.policy,
                    resolving=balancing.resolving,
                )
            )
            client.wait_until_ready(READY_TIMEOUT_S)
            data = _Data(client, job)
            connection = Connection(
                addresses.parse(job.address), _ONCE, credentials, balancing=balancing
            )
            stack.callback(connection.close)
            sender = stack.enter_context(_sender(client, connection, data, job))
            _first_request(sender, job.timeout_s)
        except (ClientError, OSError, MemoryError) as error:
            parent.fail(error)
            return
        parent.say(ready=True)
        _obey(parent, lines, sender, data, job)


class _Data:
    """Rows to send, in the model's dtype, and the check of their answers."""

    def __init__(self, client: Client, job: Job) -> None:
        self.spec = client.input()
        outputs = [output.name for output in client.metadata().outputs]
        self.output = "label" if "label" in outputs else None
        # A server without the parameters extension might reject unknown parameters.
        has_timings = job.timings and "parameters" in client.server_metadata().extensions
        self.parameters: dict[str, Parameter] = {"timings": True} if has_timings else {}
        self.rows = job.rows
        self._truth: Truth | None = None
        if job.experiment is not None:
            self._truth = truth(job.experiment)
            self.x = self.spec.fit(self._truth.x)
        else:
            self.x = _drawn(self.spec, job.examples, job.seed)
        self.starts = range(0, len(self.x) - job.rows + 1, job.rows)

    def judge(
        self, found: Slice, number: int, response: InferResponse, latency_ns: int, trip_ns: int
    ) -> None:
        """Count an answer with its labels and timings."""
        if self._truth is not None:
            try:
                labels = self._labels(response)
            except RequestFailed as error:
                found.fail(error, latency_ns)
                return
            seen = check(self._truth, self.starts[number % len(self.starts)], labels)
            found.wrong_labels += seen.wrong_labels
            found.near_ties += seen.near_ties
        found.answer(latency_ns, trip_ns, self.rows)
        stages = stages_of([response])
        if stages is not None:
            found.split(stages)

    def _labels(self, response: InferResponse) -> NDArray[Any]:
        for tensor in response.outputs:
            if tensor.name == self.output and tensor.data is not None:
                labels = one_a_row(tensor.data)
                if len(labels) == self.rows:
                    return labels
        raise RequestFailed("DATA_LOSS", f"the answer lacks labels of {self.rows} rows")


@contextlib.contextmanager
def _sender(client: Client, connection: Connection, data: _Data, job: Job) -> Iterator[Sender]:
    def requests(tensors: Sequence[Tensor]) -> Any:
        return requests_of(job.model, job.version, tensors, data.output, data.parameters)

    with contextlib.ExitStack() as stack:
        slices = [(start, start + data.rows) for start in data.starts]
        tensors = [Tensor.of(data.spec.name, data.x[a:b]) for a, b in slices]
        sender: Sender
        if job.mode == "shm":
            shared = stack.enter_context(client.shared(data.x))
            tensors = [shared.rows(data.spec.name, a, b) for a, b in slices]
        if job.mode == "stream":
            sender = StreamSender(connection, requests(tensors), job.streams)
        else:
            sender = UnarySender(connection, requests(tensors), job.timeout_s)
        stack.callback(sender.close)
        yield sender


def _first_request(sender: Sender, timeout_s: float) -> None:
    """Send one request; RequestFailed if it fails.

    It pays the first request's set-up cost, and verifies that the model accepts such requests.
    """
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    sender.send(0, lambda outcome, done_ns, times=None: outcomes.put(outcome))
    try:
        answer = decoded(outcomes.get(timeout=timeout_s + 1))
    except Empty:
        raise RequestFailed("DEADLINE_EXCEEDED", "the first request was not answered") from None
    if isinstance(answer, RequestFailed):
        raise answer


def _obey(parent: Parent, lines: Iterator[Any], sender: Sender, data: _Data, job: Job) -> None:
    loads: SimpleQueue[Load | None] = SimpleQueue()
    inbox: Inbox = SimpleQueue()
    threading.Thread(target=_listen, args=(lines, loads, inbox), daemon=True).start()
    row_bytes = max(data.spec.row_bytes, 1)
    most = _UNDER_WAY_BYTES // (row_bytes * job.rows)
    most = min(max(most, _FEWEST_UNDER_WAY), _MOST_UNDER_WAY)
    run = 0
    while (load := loads.get()) is not None:
        run += 1
        limit = most if load.pace.concurrency is None else load.pace.concurrency
        traffic = Traffic(sender, data.judge, inbox, run, load.pace, limit)
        for found in traffic.slices(load.times, job.timeout_s + 1):
            parent.say(slice=record.encoded(found), last=traffic.ended)


def _listen(lines: Iterator[Any], loads: "SimpleQueue[Load | None]", inbox: Inbox) -> None:
    for line in lines:
        if line is None:
            inbox.put(Stop())
        else:
            loads.put(record.decoded(line, Load))
    inbox.put(Stop())
    loads.put(None)


def _drawn(spec: ModelInput, rows: int, seed: int) -> NDArray[Any]:
    """Random rows for a model without a known experiment; free dimensions are 1."""
    shape = (rows, *(max(size, 1) for size in spec.row_shape))
    random = np.random.default_rng(seed)
    if spec.dtype.kind == "f":
        return random.standard_normal(shape, np.float32).astype(spec.dtype)
    if spec.dtype.kind in "iub":
        return random.integers(0, 2, shape).astype(spec.dtype)
    raise UsageError(f"the model takes {spec.dtype}; load can be generated for numeric inputs only")


if __name__ == "__main__":
    positionals("measure.engine.worker", __doc__)
    main()
    # A thread that still waits for a server must not delay the end.
    os._exit(0)
