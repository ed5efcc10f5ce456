"""The requests of a load process: their rows, and what their answers must be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.client import Client
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from client.shared_memory import SharedArray
from measure.core.stages import Stages, stages_of
from measure.core.verification import Truth, check, one_a_row, truth
from measure.engine.schedule import Kind
from measure.engine.senders import requests_of
from measure.engine.slice import Slice
from measure.engine.worker_job import Job
from protos.codec import InferRequest, InferResponse, request_pieces
from protos.tensors import Parameter, Tensor

# Of each kind: rows rotate, so that no request finds all of the previous one in a cache.
_MOST_OF_A_KIND = 16


class Examples:
    """Rows for one model, in its dtype, and their right labels where those are known."""

    def __init__(self, client: Client, job: Job, rows: int) -> None:
        """`rows`: of the largest request, which there are examples for."""
        self.client = client
        self.spec = client.input()
        outputs = [output.name for output in client.metadata().outputs]
        self.output = "label" if "label" in outputs else None
        # A server without the parameters extension might reject unknown parameters.
        has_timings = job.timings and "parameters" in client.server_metadata().extensions
        self.parameters: dict[str, Parameter] = {"timings": True} if has_timings else {}
        self.truth: Truth | None = None
        known = job.experiment if client.model == job.model else None
        if known is not None:
            self.truth = truth(replace(known, examples=max(known.examples, rows)))
            self.x = self.spec.fit(self.truth.x)
        else:
            self.x = _drawn(self.spec, max(job.examples, rows), job.seed)


@dataclass(frozen=True, slots=True)
class _OfAKind:
    """The requests of one kind, which follow each other from the index `first` on."""

    kind: Kind
    examples: Examples
    starts: range
    first: int


class Requests:
    """Every request that is sent, by index; `pick` gives the index for a number.

    Negative numbers are those of requests before the load: -1 is the first kind's, -2 the second's.
    """

    def __init__(
        self,
        job: Job,
        examples: Mapping[str, Examples],
        shared: Mapping[str, SharedArray],
    ) -> None:
        """`examples` and, in mode shm, `shared` memory with them, by model."""
        schedule = job.schedule
        self.kinds = [Kind(job.model, job.rows)] if schedule is None else schedule.kinds
        self._kind_of = None if schedule is None else schedule.kind_of
        self.requests: list[InferRequest] = []
        self._of: list[_OfAKind] = []
        for kind in self.kinds:
            own = examples[kind.model]
            last = len(own.x) - kind.rows
            starts = range(0, last + 1, kind.rows)[:_MOST_OF_A_KIND]
            self._of.append(_OfAKind(kind, own, starts, len(self.requests)))
            tensors = [
                Tensor.of(own.spec.name, own.x[start : start + kind.rows])
                if kind.model not in shared
                else shared[kind.model].rows(own.spec.name, start, start + kind.rows)
                for start in starts
            ]
            version = job.version if kind.model == job.model else ""
            self.requests += requests_of(kind.model, version, tensors, own.output, own.parameters)
        self.most_bytes = max(
            max(each.examples.spec.row_bytes, 1) * each.kind.rows for each in self._of
        )

    def kind_of(self, number: int) -> int:
        """The index of a request's kind."""
        if number < 0:
            return -number - 1
        return 0 if self._kind_of is None else self._kind_of[number]

    def pick(self, number: int) -> int:
        """The index of the request to send as `number`."""
        of_kind = self._of[self.kind_of(number)]
        return of_kind.first + max(number, 0) % len(of_kind.starts)

    def sizes(self) -> list[int]:
        """Bytes of each encoded request, by index."""
        return [
            sum(memoryview(piece).nbytes for piece in request_pieces(request))
            for request in self.requests
        ]

    def judge(
        self, found: Slice, number: int, response: InferResponse, latency_ns: int, trip_ns: int
    ) -> Stages | RequestFailed | None:
        """Count an answer with its labels and timings; see `loop.Judge`."""
        of_kind = self._of[self.kind_of(number)]
        right, rows = of_kind.examples.truth, of_kind.kind.rows
        if right is not None:
            try:
                labels = _labels(response, of_kind.examples.output, rows)
            except RequestFailed as error:
                found.fail(error, latency_ns)
                return error
            seen = check(right, of_kind.starts[number % len(of_kind.starts)], labels)
            found.wrong_labels += seen.wrong_labels
            found.near_ties += seen.near_ties
        found.answer(latency_ns, trip_ns, rows)
        stages = stages_of([response])
        if stages is not None:
            found.split(stages)
        return stages


def models_of(job: Job) -> dict[str, int]:
    """The models that a job sends to, each with the rows of its largest request."""
    kinds: Sequence[Kind] = [Kind(job.model, job.rows)]
    if job.schedule is not None:
        kinds = job.schedule.kinds
    most: dict[str, int] = {}
    for kind in kinds:
        most[kind.model] = max(most.get(kind.model, 0), kind.rows)
    return most


def _labels(response: InferResponse, output: str | None, rows: int) -> NDArray[Any]:
    for tensor in response.outputs:
        if tensor.name == output and tensor.data is not None:
            labels = one_a_row(tensor.data)
            if len(labels) == rows:
                return labels
    raise RequestFailed("DATA_LOSS", f"the answer lacks labels of {rows} rows")


def _drawn(spec: ModelInput, rows: int, seed: int) -> NDArray[Any]:
    """Random rows for a model without a known experiment; free dimensions are 1."""
    shape = (rows, *(max(size, 1) for size in spec.row_shape))
    random = np.random.default_rng(seed)
    if spec.dtype.kind == "f":
        return random.standard_normal(shape, np.float32).astype(spec.dtype)
    if spec.dtype.kind in "iub":
        return random.integers(0, 2, shape).astype(spec.dtype)
    raise UsageError(f"the model takes {spec.dtype}; load can be generated for numeric inputs only")
