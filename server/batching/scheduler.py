"""Queue requests for one model and run them in batches.

This is the one queue: for unary and streamed requests, and for tensors in shared memory.
"""

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence

from server.batching.fair_queue import FairQueue
from server.batching.handover import answers_together
from server.batching.policy import (
    Batch,
    CloseReason,
    Limits,
    place,
    rows_to_wait_for,
    take,
    wait_ns,
)
from server.batching.request import Request
from server.batching.running.answer_order import AnswerOrder
from server.batching.running.execution import Failure
from server.batching.running.runner import Result, Runner
from server.batching.statistics import Statistics
from server.errors import QueueFull, ServerStopping, ServingError
from server.onnx.engine import Engine
from transport.reporting import report

_log = logging.getLogger(__name__)
_NEVER_NS = 2**63
_AFTER_FAILURE_S = 0.1


class Scheduler:
    """The queue of one model, with a worker thread for each of its instances.

    Clients share it fairly. Requests of one client are run, and answered, in the order in which
    they came.
    """

    def __init__(
        self,
        name: str,
        engines: Sequence[Engine],
        limits: Limits,
        statistics: Statistics,
        *,
        batched: bool = True,
        most_requests: int = 0,
        finite_only: bool = False,
        fixed: bool = False,
    ) -> None:
        """`engines`: of each instance, which runs one batch at a time; some may be the same.

        `batched`: outputs have one row per row of the inputs. `most_requests`: how many may wait, 0
        for any number. `finite_only`: reject NaN and infinite values read from shared memory.
        `fixed`: pad every execution to `group_rows`, which slices must not exceed.
        """
        self._limits = limits
        self._most_requests = most_requests
        self._queue: deque[Request] = deque()
        self._fair_queue = FairQueue()
        # The first instant at which a request in the queue may expire.
        self._refuse_ns = _NEVER_NS
        self._lock = threading.Lock()
        # Of workers that wait, and that nobody has notified; the last one is woken first.
        self._asleep: list[threading.Condition] = []
        # A single worker keeps the order by itself.
        self._order = AnswerOrder() if len(engines) > 1 else None
        self._flush = False
        self._enough_rows = limits.first_rows
        self._closed = False
        self._workers = []
        for engine in engines:
            runner = Runner(
                engine,
                limits.group_rows,
                statistics,
                self._let_go,
                batched=batched,
                finite_only=finite_only,
                fixed=fixed,
            )
            self._workers.append(
                threading.Thread(target=self._work, args=(runner,), name=name, daemon=True)
            )
        started = []
        try:
            for worker in self._workers:
                worker.start()
                started.append(worker)
        except RuntimeError:  # no thread is left
            self._workers = started
            self.close()
            raise

    @property
    def waiting(self) -> int:
        """Requests of which rows wait to run."""
        return len(self._queue)

    def submit(self, request: Request) -> None:
        """Queue a request; its future gets the result or the error.

        ServerStopping once closed, QueueFull at the limit of waiting requests.
        """
        with self._lock:
            if self._closed:
                raise ServerStopping("the server is stopping")
            if self._most_requests and len(self._queue) >= self._most_requests:
                raise QueueFull(f"{self._most_requests} requests wait, the limit of this model")
            request.start_tag = self._fair_queue.start_tag(request.client, request.rows)
            place(self._queue, request)
            expires_ns = request.expires_ns
            earlier = False
            if expires_ns is not None and expires_ns < self._refuse_ns:
                self._refuse_ns = expires_ns
                earlier = True
            # A worker that waits for more rows is not woken for each of them, and one that runs a
            # batch looks at the queue after it.
            if self._asleep and (earlier or len(self._queue) == 1 or self._due()[0] == 0):
                self._wake_locked()

    def flush(self) -> None:
        """Run queued requests without waiting for more: the sender is out of room."""
        with self._lock:
            self._flush = True
            self._wake_locked()

    def cancel(self, request: Request) -> None:
        """Drop a request; it keeps its bytes only until the batches end that run its rows."""
        if request.future.done():
            return
        request.cancelled = True
        self._look_for_refused()

    def close(self) -> None:
        """Run all queued requests, then end the workers."""
        with self._lock:
            self._closed = True
            while self._asleep:
                self._wake_locked()
        for worker in self._workers:
            worker.join()

    def _work(self, runner: Runner) -> None:
        wake_up = threading.Condition(self._lock)
        while True:
            try:
                batch = self._next_batch(wake_up)
                if batch is None:
                    break
                if batch.pieces:
                    self._run(batch, runner)
            except Exception:
                # Without memory, perhaps; the model's requests depend on this thread.
                report(_log, "a worker failed")
                time.sleep(_AFTER_FAILURE_S)
        runner.close()

    def _run(self, batch: Batch[Request], runner: Runner) -> None:
        results = runner.run(batch)
        if self._order is None:
            self._answer(batch, results, None)
        else:
            self._order.ended(batch, functools.partial(self._answer, batch, results))

    def _next_batch(self, wake_up: threading.Condition) -> Batch[Request] | None:
        """The next batch, without pieces after requests were refused; None at the end."""
        with self._lock:
            while True:
                refused = self._drop_refused()
                if refused:
                    break
                if not self._queue:
                    if self._closed:
                        return None
                    self._flush = False
                    self._sleep_locked(wake_up, None)
                    continue
                left_ns, closed = self._due()
                if left_ns == 0:
                    return self._take_locked(closed)
                expired_ns = self._refuse_ns - time.monotonic_ns()
                self._sleep_locked(wake_up, max(0, min(left_ns, expired_ns)) / 1e9)
        # Callbacks of a future must not run under the lock.
        for request, error in refused:
            if request.readers == 0:
                request.release()
            request.fail(error)
        return Batch((), CloseReason.IDLE)

    def _take_locked(self, closed: CloseReason) -> Batch[Request]:
        # After another batch some of the bytes that the sender needs are still queued.
        if closed is CloseReason.BYTES:
            self._flush = False
            closed = CloseReason.DRAIN if self._closed else closed
        self._fair_queue.advance(self._queue[0].start_tag)
        batch = take(self._queue, self._limits, closed)
        self._enough_rows = rows_to_wait_for(self._enough_rows, batch, self._limits)
        last = batch.pieces[-1]
        # The batch reads the request beside the queue; with the last rows, in its place.
        if last.stop < last.request.rows:
            last.request.readers += 1
        if self._order is not None:
            self._order.taken(batch, {piece.request.client for piece in batch.pieces})
            # Of what is left another worker may take a batch, or wait for more.
            if self._queue:
                self._wake_locked()
        return batch

    def _sleep_locked(self, wake_up: threading.Condition, timeout_s: float | None) -> None:
        self._asleep.append(wake_up)
        wake_up.wait(timeout_s)
        if wake_up in self._asleep:
            self._asleep.remove(wake_up)

    def _wake_locked(self) -> None:
        if self._asleep:
            self._asleep.pop().notify()

    def _due(self) -> tuple[int, CloseReason]:
        return wait_ns(
            self._queue,
            self._limits,
            time.monotonic_ns(),
            enough_rows=self._enough_rows,
            flush=self._flush or self._closed,
        )

    def _look_for_refused(self) -> None:
        with self._lock:
            self._refuse_ns = 0
            self._wake_locked()

    def _drop_refused(self) -> list[tuple[Request, ServingError]]:
        """Remove cancelled and expired requests from the queue."""
        now_ns = time.monotonic_ns()
        if now_ns < self._refuse_ns:
            return []
        self._refuse_ns = _NEVER_NS
        refused = []
        kept: deque[Request] = deque()
        for request in self._queue:
            error = request.refusal(now_ns)
            if error is not None:
                request.readers -= 1
                refused.append((request, error))
                continue
            kept.append(request)
            if (expires_ns := request.expires_ns) is not None:
                self._refuse_ns = min(self._refuse_ns, expires_ns)
        self._queue = kept
        return refused

    def _let_go(self, batch: Batch[Request]) -> None:
        """Release the inputs that neither the queue nor another batch needs."""
        for piece in batch.pieces:
            request = piece.request
            if piece.rows < request.rows:
                with self._lock:
                    request.readers -= 1
                    needed = request.readers > 0
                if needed:
                    continue
            request.release()

    def _answer(
        self, batch: Batch[Request], results: Sequence[Result], clients: Collection[str] | None
    ) -> None:
        """Hand out results to clients, None: to all."""
        with answers_together():
            for result in results:
                try:
                    result.hand_out(clients)
                except Exception as error:
                    _log.exception("handing out answers failed", extra={"rows": batch.rows})
                    Failure(result.batch, error).hand_out(clients)
        if any(piece.request.cancelled for piece in batch.pieces):
            self._look_for_refused()
