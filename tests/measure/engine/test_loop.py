import heapq
import json
import threading
import time
from queue import SimpleQueue

import pytest

from client.errors import RequestFailed
from measure.core.record import decoded, encoded
from measure.engine.loop import Pace, Stop, Times, Traffic
from measure.engine.slice import Slice
from protos.codec import InferResponse

MS = 10**6
SERVICE_MS = 20


class SlowSender:
    """Answers every request after the same time, and knows how many were under way at once."""

    def __init__(self):
        self._due = []
        self._changed = threading.Condition()
        self.most_under_way = 0
        threading.Thread(target=self._answer, daemon=True).start()

    def send(self, number, done):
        with self._changed:
            heapq.heappush(self._due, (time.perf_counter_ns() + SERVICE_MS * MS, number, done))
            self.most_under_way = max(self.most_under_way, len(self._due))
            self._changed.notify()

    def _answer(self):
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.perf_counter_ns():
                    self._changed.wait(0.001)
                _, number, done = heapq.heappop(self._due)
            done(InferResponse("model", (), id=str(number)), time.perf_counter_ns())

    def close(self):
        pass


def judge(found, number, response, latency_ns, trip_ns):
    assert response.id == str(number)
    found.answer(latency_ns, trip_ns, 1)


def loaded(pace, most_under_way, slices=4):
    """Load the slow sender for some slices of a tenth of a second; they, the last, the sender."""
    sender, inbox = SlowSender(), SimpleQueue()
    traffic = Traffic(sender, judge, inbox, 1, pace, most_under_way)
    times = Times(time.perf_counter_ns(), 100 * MS, 100 * MS)
    found = []
    for one in traffic.slices(times, 5.0):
        found.append(one)
        if len(found) == slices:
            inbox.put(Stop())
    assert traffic.ended
    return found[:-1], found[-1], sender


def test_requests_go_out_before_the_answers_of_a_batch_are_read():
    """A server that batches answers several at once; reading one must not delay the others."""
    events, inbox = [], SimpleQueue()

    class BatchSender:
        def __init__(self):
            self._waiting = []

        def send(self, number, done):
            events.append("send")
            self._waiting.append((number, done))
            if len(self._waiting) == concurrency:
                now_ns = time.perf_counter_ns()
                batch, self._waiting = self._waiting, []
                if number >= 3 * concurrency:
                    inbox.put(Stop())
                for one, answered in batch:
                    answered(InferResponse("model", (), id=str(one)), now_ns)

        def close(self):
            pass

    def read(found, number, response, latency_ns, trip_ns):
        events.append("read")
        judge(found, number, response, latency_ns, trip_ns)

    concurrency = 4
    traffic = Traffic(BatchSender(), read, inbox, 1, Pace(concurrency=concurrency), concurrency)
    times = Times(time.perf_counter_ns(), 60_000 * MS, 60_000 * MS)
    found = list(traffic.slices(times, 0.0))
    order = "".join("s" if event == "send" else "r" for event in events)
    assert order.startswith("s" * 2 * concurrency + "r")
    # Not one is left unread.
    assert sum(one.answered for one in found) == order.count("r") >= 3 * concurrency


def test_time_that_a_request_waits_to_be_sent_is_part_of_its_latency():
    # Five times more than one request at a time allows.
    slices, last, sender = loaded(Pace(rate_per_s=250), most_under_way=1)
    assert sender.most_under_way == 1
    due = sum(one.due for one in slices) + last.due
    answered = sum(one.answered for one in slices) + last.answered
    assert due >= 4 * answered
    # Whatever was due and not answered is told.
    assert last.left_behind >= due - answered - 1
    # Request n was due at n * 4 ms, and sent after n answers of 20 ms.
    longest_ns = max(one.latency.max_ns for one in (*slices, last) if one.answered)
    assert longest_ns >= 3 * SERVICE_MS * MS
    for one in slices:
        assert one.send_lag.samples <= one.due


def test_an_open_loop_does_not_wait_for_answers():
    _, last, sender = loaded(Pace(rate_per_s=500), most_under_way=1000)
    # 20 ms at 500 a second.
    assert sender.most_under_way >= 5
    assert last.errors == {}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_closed_loop_has_no_more_under_way_than_asked_for(concurrency):
    slices, last, sender = loaded(Pace(concurrency=concurrency), most_under_way=concurrency)
    assert sender.most_under_way == concurrency
    assert last.left_behind == concurrency
    for one in slices[1:]:
        assert one.in_flight_area_ns <= concurrency * one.elapsed_ns
    # Each answer lets one request go, and each of them waits its time.
    answered = sum(one.answered for one in slices)
    assert 0 < answered <= concurrency * len(slices) * 100 / SERVICE_MS * 1.2
    assert min(one.mean_latency_ns for one in slices if one.answered) >= SERVICE_MS * MS


def test_nothing_under_way_ends_at_once():
    slices, last, sender = loaded(Pace(concurrency=0), most_under_way=0)
    assert sender.most_under_way == 0
    assert [one.answered for one in (*slices, last)] == [0] * 5
    assert last.left_behind == 0


def test_answers_of_a_load_before_are_not_counted():
    sender, inbox = SlowSender(), SimpleQueue()
    first = Traffic(sender, judge, inbox, 1, Pace(concurrency=2), 2)
    inbox.put(Stop())
    times = Times(time.perf_counter_ns(), 10 * MS, 10 * MS)
    *_, last = first.slices(times, patience_s=0.0)
    assert last.errors == {"DEADLINE_EXCEEDED": last.left_behind}
    second = Traffic(sender, judge, inbox, 2, Pace(concurrency=0), 0)
    slices = []
    for one in second.slices(Times(time.perf_counter_ns(), 50 * MS, 50 * MS), 1.0):
        slices.append(one)
        if len(slices) == 1:
            inbox.put(Stop())
    assert sum(one.answered for one in slices) == 0


def test_an_error_counts_with_its_time_and_not_among_the_answers():
    class RefusingSender:
        def send(self, number, done):
            refused = RequestFailed("RESOURCE_EXHAUSTED", "too many")
            done(refused, time.perf_counter_ns() + 10**12)

        def close(self):
            pass

    inbox = SimpleQueue()
    traffic = Traffic(RefusingSender(), judge, inbox, 1, Pace(rate_per_s=1000), 100)
    whole = None
    for one in traffic.slices(Times(time.perf_counter_ns(), 100 * MS, 100 * MS), 1.0):
        inbox.put(Stop())
        again = decoded(json.loads(json.dumps(encoded(one))), Slice)
        whole = again if whole is None else whole
        if whole is not again:
            whole.add(again)
    assert whole.answered == 0
    assert whole.errors["RESOURCE_EXHAUSTED"] == whole.error_latency["RESOURCE_EXHAUSTED"].samples
    assert whole.errors.total() > 10
    assert whole.error_latency["RESOURCE_EXHAUSTED"].max_ns >= 10**12
    assert whole.error_texts == {"RESOURCE_EXHAUSTED": "too many"}


@pytest.mark.parametrize("parts", [1, 3])
def test_processes_have_a_closed_loop_among_them(parts):
    paces = Pace(concurrency=16).among(parts)
    assert sum(pace.concurrency for pace in paces) == 16
    assert [(pace.part, pace.parts) for pace in paces] == [(n, parts) for n in range(parts)]
    assert [pace.rate_per_s for pace in Pace(rate_per_s=5.0).among(parts)] == [5.0] * parts
