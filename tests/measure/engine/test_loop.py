import heapq
import json
import threading
import time
from queue import SimpleQueue

import pytest

from client.errors import RequestFailed
from measure.core.record import decoded, encoded
from measure.engine.loop import Stop, Times, Traffic
from measure.engine.pace import Pace
from measure.engine.ramp import Stage
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


def replayed(at_ms, most_under_way=100):
    """Replay a schedule in slices of an hour until all is sent; slices, the last, the sender."""
    sender, inbox = SlowSender(), SimpleQueue()
    due_ns = [at * MS for at in at_ms]
    pace = Pace(rate_per_s=1.0)
    traffic = Traffic(sender, judge, inbox, 1, pace, most_under_way, due_ns)
    found, hour_ns = [], 3_600_000 * MS
    for one in traffic.slices(Times(time.perf_counter_ns(), 0, hour_ns), 10.0):
        found.append(one)
        if sum(each.send_lag.samples for each in found) == len(at_ms):
            inbox.put(Stop())
    return found[:-1], found[-1], sender


def test_a_schedule_ends_a_slice_when_all_is_sent_and_every_answer_is_counted():
    at_ms = [0, 0, 30, 31, 90]
    slices, last, _ = replayed(at_ms)
    assert sum(one.due for one in (*slices, last)) == len(at_ms)
    assert sum(one.answered for one in (*slices, last)) == len(at_ms)
    # It was not waited for the end of the slice of an hour, nor was the first begun with.
    assert last.end_ns - slices[0].start_ns >= (90 + SERVICE_MS) * MS
    assert slices[0].due == 0


def test_the_latency_of_a_schedule_counts_from_when_a_request_was_due():
    slices, last, sender = replayed([0] * 5, most_under_way=1)
    assert sender.most_under_way == 1
    longest_ns = max(one.latency.max_ns for one in (*slices, last) if one.answered)
    # The fifth waited for four others.
    assert longest_ns >= 5 * SERVICE_MS * MS * 0.999


def test_a_process_without_a_request_of_a_schedule_waits_for_the_end():
    slices, last, sender = replayed([])
    assert (sender.most_under_way, last.answered) == (0, 0)
    assert sum(one.due for one in slices) == 0


def test_a_closed_loop_follows_its_ramp_up_and_down():
    second_ns, inbox = 10**9, SimpleQueue()

    class BatchSender:
        """Answers the first four at once, and then the load is over."""

        def __init__(self):
            self.sent = []

        def send(self, number, done):
            self.sent.append((number, done))
            if len(self.sent) == 4:
                now_ns = time.perf_counter_ns()
                for one, answered in self.sent:
                    answered(InferResponse("model", (), id=str(one)), now_ns)
            elif len(self.sent) == 5:
                inbox.put(Stop())

        def close(self):
            pass

    sender = BatchSender()
    stages = tuple(Stage(level, level, 1.0) for level in (2, 4, 1))
    pace = Pace(concurrency=2, stages=stages)
    traffic = Traffic(sender, judge, inbox, 1, pace, pace.most)
    # It began three seconds ago: all slots have begun, and three of the four are to end.
    times = Times(time.perf_counter_ns() - 3 * second_ns, 0, 3600 * second_ns)
    found = list(traffic.slices(times, 0.0))
    assert len(sender.sent) == 5
    assert sum(one.answered for one in found) == 4
