"""Several batches of a model at the same time, with the promises of one after the other."""

import random
import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx import save as save_onnx

from server.batching.policy import Limits
from server.batching.request import Request
from server.batching.running.answer_order import AnswerOrder
from server.batching.scheduler import Scheduler
from server.batching.statistics import Statistics
from server.errors import Cancelled, DeadlinePassed, InvalidInput
from server.onnx import graph_file, instances
from server.onnx.engine import Engine
from server.onnx.execution_provider import ExecutionProvider
from server.onnx.session_settings import SessionSettings

PATIENCE_S = 30.0
HOUR_NS = 3600 * 10**9
LIMITS = Limits(group_rows=4, slice_rows=4)
CPU = ExecutionProvider()


class Gate:
    """Holds executions of chosen rows until they may go on."""

    def __init__(self):
        self._changed = threading.Condition()
        self._held = set()
        self.running = []
        self.most = 0

    def hold(self, *first_values):
        """Hold executions whose first row begins with one of these values."""
        self._held |= set(first_values)

    def let(self, first_value):
        with self._changed:
            self._held.discard(first_value)
            self._changed.notify_all()

    def enter(self, first_value):
        with self._changed:
            self.running.append(first_value)
            self.most = max(self.most, len(self.running))
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: first_value not in self._held, PATIENCE_S)

    def leave(self, first_value):
        with self._changed:
            self.running.remove(first_value)
            self._changed.notify_all()

    def wait_for(self, *first_values):
        """Wait until exactly these run."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: sorted(self.running) == sorted(first_values), PATIENCE_S
            ), self.running


class Gated(Engine):
    """A real engine whose executions a test holds."""

    gate = None

    def run(self, outputs, inputs, *, receiving=False):
        first = int(inputs["x"].flat[0])
        self.gate.enter(first)
        try:
            return super().run(outputs, inputs, receiving=receiving)
        finally:
            self.gate.leave(first)


def double(path):
    """Twice the value, looked up: over 999 the execution fails."""
    table = numpy_helper.from_array(np.arange(1000) * 2, "table")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "graph",
        [value("x", TensorProto.INT64, ["n"])],
        [value("y", TensorProto.INT64, ["n"])],
        [table],
    )
    opset = [helper.make_opsetid("", 17)]
    save_onnx(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def start(tmp_path, gate):
    """Start a scheduler of two instances; (scheduler, counts)."""
    started = []

    def start(limits=LIMITS, count=2, **options):
        engine = Gated(double(tmp_path / "model.onnx"), 1, alone=False)
        engine.gate = gate
        statistics = Statistics()
        started.append(Scheduler("m", [engine] * count, limits, statistics, **options))
        return started[-1], statistics.counts

    yield start
    for scheduler in started:
        for first in list(gate._held):
            gate.let(first)
        scheduler.close()


def request(*values, **fields):
    return Request(
        inputs={"x": np.array(values, np.int64)}, outputs=("y",), rows=len(values), **fields
    )


def answer(sent):
    return sent.future.result(PATIENCE_S).outputs["y"].tolist()


def test_as_many_batches_run_at_once_as_there_are_instances(start, gate):
    scheduler, counts = start()
    gate.hold(1, 2, 3)
    sent = [request(number, client=f"c{number}") for number in (1, 2, 3)]
    for number, each in enumerate(sent, start=1):
        scheduler.submit(each)
        gate.wait_for(*range(1, min(number, 2) + 1))
    gate.let(1)
    gate.wait_for(2, 3)
    gate.let(2)
    gate.let(3)
    assert [answer(each) for each in sent] == [[2], [4], [6]]
    assert gate.most == 2
    assert (counts.executions, counts.inference_rows) == (3, 3)


def test_a_client_is_answered_in_order_though_a_later_batch_ends_first(start, gate):
    scheduler, _ = start()
    gate.hold(1)
    order = []
    sent = [request(1, client="a"), request(2, client="a"), request(3, client="b")]
    for each, name in zip(sent, "123", strict=True):
        each.future.add_done_callback(lambda _, name=name: order.append(name))
    scheduler.submit(sent[0])
    gate.wait_for(1)
    scheduler.submit(sent[1])
    scheduler.submit(sent[2])
    # The other instance goes on meanwhile, and another client gets its answer.
    assert answer(sent[2]) == [6]
    assert not sent[1].future.done()
    gate.let(1)
    assert [answer(each) for each in sent[:2]] == [[2], [4]]
    assert order == ["3", "1", "2"]


def test_slices_of_a_request_run_at_once_and_are_put_together_in_order(start, gate):
    scheduler, counts = start()
    gate.hold(0)
    (sent,) = [request(*range(10))]
    scheduler.submit(sent)
    gate.wait_for(0)
    # The slices after the first one have been run by the other instance.
    end = time.monotonic() + PATIENCE_S
    while counts.executions < 2 and time.monotonic() < end:
        time.sleep(0.001)
    assert not sent.future.done()
    assert not sent.released.done()
    gate.let(0)
    assert answer(sent) == [2 * value for value in range(10)]
    assert sent.inputs == {}
    assert sent.future.result().timings.batch_rows == 4


def test_a_cancelled_request_keeps_its_bytes_until_its_last_batch_ends(start, gate):
    scheduler, counts = start()
    gate.hold(0, 4)
    sent = request(*range(12))
    scheduler.submit(sent)
    gate.wait_for(0, 4)
    scheduler.cancel(sent)
    gate.let(4)
    assert isinstance(sent.future.exception(PATIENCE_S), Cancelled)
    gate.wait_for(0)
    assert not sent.released.done()
    gate.let(0)
    sent.released.result(PATIENCE_S)
    # The slice that was in the queue is not run.
    assert counts.executions <= 2


def test_a_slice_that_fails_fails_its_request_once(start, gate):
    scheduler, counts = start()
    gate.hold(4)
    bad = request(0, 1, 2, 5000, 4, 5, 6, 7)
    gate.hold(0)
    scheduler.submit(bad)
    gate.wait_for(0, 4)
    gate.let(0)
    with pytest.raises(InvalidInput):
        bad.future.result(PATIENCE_S)
    # What its last slice gives, which runs already, answers it no more.
    gate.let(4)
    bad.released.result(PATIENCE_S)
    after = request(9)
    scheduler.submit(after)
    assert answer(after) == [18]
    assert isinstance(bad.future.exception(), InvalidInput)
    assert bad.future._value is None
    assert counts.inference_rows == 4 + 1


def test_a_deadline_passes_while_both_instances_are_busy(start, gate):
    scheduler, counts = start()
    gate.hold(1, 2)
    busy = [request(number, client=str(number)) for number in (1, 2)]
    scheduler.submit(busy[0])
    gate.wait_for(1)
    scheduler.submit(busy[1])
    gate.wait_for(1, 2)
    late = request(3, deadline_ns=time.monotonic_ns() + 1)
    scheduler.submit(late)
    gate.let(2)
    with pytest.raises(DeadlinePassed):
        late.future.result(PATIENCE_S)
    gate.let(1)
    assert [answer(each) for each in busy] == [[2], [4]]
    assert counts.executions == 2


def test_a_deadline_wakes_an_instance_that_waits_for_more_rows(start, gate):
    patient = Limits(group_rows=4, slice_rows=4, queue_delay_ns=HOUR_NS, linger_ns=HOUR_NS)
    scheduler, counts = start(patient)
    waiting = request(1)
    scheduler.submit(waiting)
    late = request(2, deadline_ns=time.monotonic_ns() + 20_000_000)
    scheduler.submit(late)
    with pytest.raises(DeadlinePassed):
        late.future.result(PATIENCE_S)
    assert not waiting.future.done()
    scheduler.submit(request(3, 4, 5))
    assert answer(waiting) == [2]
    assert counts.executions == 1


def test_rows_that_are_left_after_a_full_batch_wait_for_more_in_another_instance(start, gate):
    delayed = Limits(group_rows=4, slice_rows=4, queue_delay_ns=HOUR_NS)
    scheduler, counts = start(delayed)
    gate.hold(1, 5)
    sent = [request(1, 2, 3, client="a"), request(4, 5, client="b"), request(6, 7, 8, client="b")]
    for each in sent[:2]:
        scheduler.submit(each)
    gate.wait_for(1)
    scheduler.submit(sent[2])
    gate.wait_for(1, 5)
    gate.let(1)
    gate.let(5)
    assert [answer(each) for each in sent] == [[2, 4, 6], [8, 10], [12, 14, 16]]
    assert counts.executions == 2


def test_rows_that_are_left_after_a_full_batch_wait_no_longer_than_their_delay(start, gate):
    delayed = Limits(group_rows=4, slice_rows=4, queue_delay_ns=1_000_000_000)
    scheduler, counts = start(delayed)
    gate.hold(1, 5)
    full, rest = request(1, 2, 3, client="a"), request(4, 5, client="b")
    scheduler.submit(full)
    scheduler.submit(rest)
    gate.wait_for(1, 5)
    gate.let(1)
    gate.let(5)
    assert (answer(full), answer(rest)) == ([2, 4, 6], [8, 10])
    assert counts.executions == 2


def test_a_client_with_much_work_leaves_both_instances_to_others(start, gate):
    scheduler, _ = start()
    gate.hold(0, 4)
    much = request(*range(40), client="much")
    scheduler.submit(much)
    gate.wait_for(0, 4)
    little = request(100, client="little")
    scheduler.submit(little)
    gate.hold(8)
    gate.let(0)
    # Before the slices that the other client has waited with for longer.
    assert answer(little) == [200]
    gate.let(4)
    gate.let(8)
    assert answer(much) == [2 * value for value in range(40)]


def test_closing_runs_what_is_queued_and_hands_out_what_waits_for_its_turn(start, gate):
    scheduler, counts = start()
    gate.hold(1)
    first = request(1, client="a")
    scheduler.submit(first)
    gate.wait_for(1)
    others = [request(number, client="a") for number in range(2, 9)]
    for each in others:
        scheduler.submit(each)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    gate.let(1)
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert all(each.future.done() for each in (first, *others))
    assert [answer(each) for each in (first, *others)] == [[2 * n] for n in range(1, 9)]
    assert counts.inference_rows == 8


@pytest.mark.parametrize("own_sessions", [False, True])
def test_answers_are_exact_and_in_order_under_load(tmp_path, own_sessions):
    engines = instances.load(
        graph_file.read(double(tmp_path / "model.onnx"), tmp_path),
        1,
        [CPU] * 3,
        SessionSettings(),
        shared=not own_sessions,
        deterministic=False,
    )
    assert len(set(engines)) == (3 if own_sessions else 1)
    statistics = Statistics()
    scheduler = Scheduler("m", engines, LIMITS, statistics)
    failed = []
    rows = []

    def work(client):
        rng = random.Random(client)
        try:
            for _ in range(60):
                order, sent = [], []
                for number in range(rng.randint(1, 4)):
                    size = rng.choice([1, 2, 3, 5, 30])
                    each = request(*rng.choices(range(1000), k=size), client=str(client))
                    each.future.add_done_callback(lambda _, o=order, n=number: o.append(n))
                    sent.append((each, each.inputs["x"].copy()))
                    scheduler.submit(each)
                for each, x in sent:
                    np.testing.assert_array_equal(answer(each), 2 * x)
                    rows.append(len(x))
                assert order == sorted(order)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    scheduler.close()
    instances.close(engines)
    assert failed == []
    assert statistics.counts.inference_rows == sum(rows)


def test_results_wait_for_earlier_batches_of_their_client_alone():
    order = AnswerOrder()
    handed = []
    for batch, clients in (("1", {"a"}), ("2", {"b"}), ("3", {"a", "b", "c"}), ("4", {"b"})):
        order.taken(batch, clients)
    for batch in "3421":
        order.ended(batch, lambda clients, batch=batch: handed.append((batch, clients)))
    assert handed == [
        ("3", {"c"}),
        ("2", {"b"}),
        ("3", {"b"}),
        ("4", {"b"}),
        ("1", {"a"}),
        ("3", {"a"}),
    ]
    assert order._turns == {}
