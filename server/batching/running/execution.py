"""The result of one execution, and how its rows become answers of requests."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.batching.policy import Batch, Piece
from server.batching.request import Request, Timings
from server.errors import ServingError


@dataclass(frozen=True, slots=True)
class Execution:
    """The outputs of a batch, in the order in which its requests name them.

    `near`: whether another batch may give a row another label, bool [rows]. Requests in
    `unreadable` have had no rows to run, and get that error.
    """

    batch: Batch[Request]
    outputs: list[NDArray[Any]]
    near: NDArray[np.bool_]
    unreadable: Mapping[Request, ServingError]
    started_ns: int
    spent: Timings

    def hand_out(self, clients: Collection[str] | None) -> None:
        """Give the requests of clients (None: all) their rows; the last ones complete an answer."""
        alone = len(self.batch.pieces) == 1
        for piece, start, stop in places(self.batch):
            request = piece.request
            if clients is not None and request.client not in clients:
                continue
            error = self.unreadable.get(request)
            if error is not None:
                request.fail(error)
                continue
            if request.judged:
                before = bool(request.batch_dependent)
                request.batch_dependent = before or bool(self.near[start:stop].any())
            rows = self.outputs if alone else [each[start:stop] for each in self.outputs]
            _hand_out(piece, rows, self.started_ns, self.spent)


@dataclass(frozen=True, slots=True)
class Failure:
    """A batch that failed, and why."""

    batch: Batch[Request]
    error: Exception

    def hand_out(self, clients: Collection[str] | None) -> None:
        """Fail the requests of clients, None: all."""
        for piece in self.batch.pieces:
            if clients is None or piece.request.client in clients:
                piece.request.fail(self.error)


def places(batch: Batch[Request]) -> Iterator[tuple[Piece[Request], int, int]]:
    """Each piece with its rows of the batch."""
    start = 0
    for piece in batch.pieces:
        yield piece, start, start + piece.rows
        start += piece.rows


def _hand_out(
    piece: Piece[Request], outputs: list[NDArray[Any]], started_ns: int, spent: Timings
) -> None:
    request = piece.request
    before = request.timings
    request.timings = Timings(
        # Time between the batches of one request is not spent in the queue.
        queue_ns=before.queue_ns or started_ns - request.arrived_ns,
        assemble_ns=before.assemble_ns + spent.assemble_ns,
        compute_ns=before.compute_ns + spent.compute_ns,
        batch_rows=max(before.batch_rows, spent.batch_rows),
        closed=spent.closed,
        execution_provider=spent.execution_provider,
    )
    request.pieces.append(outputs)
    # A request of which a slice has failed is answered already.
    if piece.stop < request.rows or request.future.done():
        return
    if len(request.pieces) > 1:
        outputs = [np.concatenate(parts) for parts in zip(*request.pieces, strict=True)]
    request.succeed(dict(zip(request.outputs, outputs, strict=True)))
