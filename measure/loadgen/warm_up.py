"""Send queries before LoadGen does: it has no warm-up, and needs an expected rate."""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from client.errors import DeadlineExceeded
from measure.loadgen.senders import Batch, Done, Sender
from measure.loadgen.worker_job import Scenario

# Number of queries, and whether each waits for the previous answer.
_QUERIES: dict[Scenario, tuple[int, bool]] = {
    "SingleStream": (32, True),
    "MultiStream": (12, True),
    "Server": (128, False),
    "Offline": (8, False),
}


def warm_up(
    scenario: Scenario, open_sender: Callable[[Done], Sender], batch: Batch, timeout_s: float
) -> tuple[float, int]:
    """Send two rounds of queries; return the second's samples/s and shortest latency in ns.

    DeadlineExceeded if an answer takes longer than `timeout_s`.
    """
    count, one_by_one = _QUERIES[scenario]
    answers: SimpleQueue[int] = SimpleQueue()
    sender = open_sender(lambda batch, labels: answers.put(time.perf_counter_ns()))
    # The first round pays for memory and packing.
    for _ in range(2):
        started_ns = time.perf_counter_ns()
        latencies_ns = []
        for _ in range(count if one_by_one else 1):
            sent_ns = time.perf_counter_ns()
            together = 1 if one_by_one else count
            for _ in range(together):
                sender.send(batch)
            latencies_ns += [_next(answers, timeout_s) - sent_ns for _ in range(together)]
        elapsed_ns = time.perf_counter_ns() - started_ns
    sender.close()
    return count * len(batch.ids) * 1e9 / elapsed_ns, min(latencies_ns)


def _next(answers: "SimpleQueue[int]", timeout_s: float) -> int:
    try:
        return answers.get(timeout=timeout_s)
    except Empty:
        raise DeadlineExceeded(
            "DEADLINE_EXCEEDED", f"no answer to a warm-up query within {timeout_s:g} s"
        ) from None
