import random
import threading
import time
import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from server.batching.policy import CloseReason, Limits
from server.batching.request import Request
from server.batching.scheduler import Scheduler
from server.batching.statistics import Statistics
from server.errors import (
    Cancelled,
    DeadlinePassed,
    InvalidInput,
    ModelBroken,
    QueueTimeout,
    ServerStopping,
)
from server.onnx.engine import Engine

PATIENCE_S = 30.0
HOUR_NS = 3600 * 10**9
EAGER = Limits(group_rows=8, slice_rows=20)
# Nothing runs before it is told to, so that a test decides what shares a batch.
PATIENT = Limits(group_rows=8, slice_rows=20, queue_delay_ns=HOUR_NS, linger_ns=HOUR_NS)

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def save(path, nodes, x, y, constants=()):
    """Write a graph from input x to output y, each given as (type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", *y)],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


def add_one(path):
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    save(path, nodes, (FLOAT, ["n", "d"]), (FLOAT, ["n", "d"]), [("one", np.float32(1))])


def identity(path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    save(path, nodes, (FLOAT, ["n", "d"]), (FLOAT, ["n", "d"]))


def first_row_only(path):
    # ONNX Runtime cannot tell from the graph that this contradicts the declared shape.
    nodes = [helper.make_node("Compress", ["x", "first"], ["y"], axis=0)]
    save(path, nodes, (FLOAT, ["n", "d"]), (FLOAT, ["n", "d"]), [("first", [True])])


def no_axis_for_one_row(path):
    nodes = [helper.make_node("Squeeze", ["x"], ["y"])]
    save(path, nodes, (FLOAT, ["n", 1]), (FLOAT, ["n"]))


def count_rows(path):
    """How many rows the execution has that a row is in, which no model that serves may say."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["shape", "shape"], ["y"]),
    ]
    save(path, nodes, (INT64, ["n"]), (INT64, ["n"]))


def look_up(path):
    """Ten times the index; execution fails when one is over 9."""
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    save(path, nodes, (INT64, ["n"]), (INT64, ["n"]), [("table", np.arange(10) * 10)])


@pytest.fixture
def start(tmp_path):
    """Start a scheduler before the model that a function writes: (scheduler, statistics)."""
    started = []

    def start(write, limits=EAGER, **options):
        path = tmp_path / "model.onnx"
        write(path)
        statistics = Statistics()
        scheduler = Scheduler("m", [Engine(path, 1)], limits, statistics, **options)
        started.append(scheduler)
        return scheduler, statistics.counts

    yield start
    for scheduler in started:
        scheduler.close()


def request(x, **fields):
    return Request(inputs={"x": x}, outputs=("y",), rows=len(x), key=x.shape[1:], **fields)


def numbers(rows, first=0, width=4):
    """Rows of which no two are the same."""
    return np.arange(first, first + rows * width, dtype=np.float32).reshape(rows, width)


def answer(request):
    return request.future.result(PATIENCE_S).outputs["y"]


def submit(scheduler, *requests):
    for each in requests:
        scheduler.submit(each)
    return requests


def run(scheduler, *requests):
    """Answers of requests that wait until all are queued."""
    submit(scheduler, *requests)
    scheduler.flush()
    return [answer(each) for each in requests]


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 20, 21, 100])
def test_every_row_is_answered_in_order(start, rows):
    scheduler, _ = start(add_one)
    (sent,) = submit(scheduler, request(numbers(rows)))
    np.testing.assert_array_equal(answer(sent), numbers(rows) + 1)


def test_small_requests_share_an_execution(start):
    scheduler, counts = start(add_one, PATIENT)
    inputs = [numbers(rows, 100 * rows) for rows in (1, 2, 4)]
    for x, y in zip(inputs, run(scheduler, *map(request, inputs)), strict=True):
        np.testing.assert_array_equal(y, x + 1)
    assert (counts.executions, counts.inference_rows) == (1, 7)
    assert list(counts.batches) == [7]
    assert counts.closed == {CloseReason.BYTES: 1}


@pytest.mark.parametrize("write", [identity, add_one])
def test_answers_are_right_and_stay_so_under_load(start, write):
    scheduler, counts = start(write)
    offset = 1 if write is add_one else 0
    answered = []
    failed = []

    def work(worker):
        rng = random.Random(worker)
        try:
            for number in range(60):
                rows = rng.choice([1, 2, 3, 5, 8, 30])
                x = numbers(rows, 1000 * (60 * worker + number), width=3)
                window = submit(scheduler, *(request(x) for _ in range(rng.randint(1, 3))))
                answered.extend((x, answer(each)) for each in window)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failed
    assert len(answered) >= 8 * 60
    assert counts.inference_rows == sum(len(x) for x, _ in answered)
    assert max(counts.batches) <= EAGER.slice_rows
    # Only now, when every buffer has been used again many times.
    for x, y in answered:
        np.testing.assert_array_equal(y, x + offset)


@pytest.mark.parametrize("requests", [1, 3])
def test_answers_do_not_lie_in_memory_that_is_used_again(start, requests):
    scheduler, _ = start(identity, PATIENT)
    inputs = [numbers(2, 10 * number) for number in range(requests)]
    first = run(scheduler, *map(request, inputs))
    expected = [y.copy() for y in first]
    run(scheduler, *(request(x + 1000) for x in inputs))
    for x in inputs:
        x[:] = -1
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("widths", [(3, 3, 3, 3), (3, 5, 7, 9), (3, 3, 5, 5)])
def test_requests_are_answered_in_the_order_they_came(start, widths):
    scheduler, _ = start(add_one, PATIENT)
    order = []
    sent = [request(numbers(1, width=width)) for width in widths]
    for number, each in enumerate(sent):
        each.future.add_done_callback(lambda _, number=number: order.append(number))
    run(scheduler, *sent)
    scheduler.close()
    assert order == [0, 1, 2, 3]


def test_a_large_request_runs_in_slices(start):
    scheduler, counts = start(add_one)
    (sent,) = submit(scheduler, request(numbers(50)))
    np.testing.assert_array_equal(answer(sent), numbers(50) + 1)
    assert {rows: batch.compute_infer.count for rows, batch in counts.batches.items()} == {
        20: 2,
        10: 1,
    }
    timings = sent.future.result().timings
    assert timings.batch_rows == 20
    assert timings.compute_ns > 0
    assert timings.execution_provider == "CPUExecutionProvider"


def test_announced_requests_wait_for_the_last_of_them(start):
    limits = Limits(group_rows=8, slice_rows=20, linger_ns=HOUR_NS)
    scheduler, counts = start(add_one, limits)
    announced = [request(numbers(1, 10 * n), more_follows=True) for n in range(4)]
    last = request(numbers(1, 90))
    submit(scheduler, *announced, last)
    for number, sent in enumerate(announced):
        np.testing.assert_array_equal(answer(sent), numbers(1, 10 * number) + 1)
    np.testing.assert_array_equal(answer(last), numbers(1, 90) + 1)
    assert list(counts.batches) == [5]


def test_announced_requests_run_when_the_batch_is_full(start):
    scheduler, counts = start(add_one, PATIENT)
    sent = submit(scheduler, *(request(numbers(1), more_follows=True) for _ in range(8)))
    assert all(answer(each).shape == (1, 4) for each in sent)
    assert counts.closed == {CloseReason.FULL: 1}


def test_the_first_batches_of_announced_requests_are_small(start):
    limits = Limits(group_rows=8, slice_rows=20, linger_ns=HOUR_NS, first_rows=2)
    scheduler, counts = start(add_one, limits)
    sent = [request(numbers(1), more_follows=True) for _ in range(2 + 4 + 8)]
    at = 0
    for size in (2, 4, 8):  # each batch runs before the next is queued
        for each in submit(scheduler, *sent[at : at + size]):
            answer(each)
        at += size
    assert counts.batches.keys() == {2, 4, 8}
    assert counts.closed == {CloseReason.START: 2, CloseReason.FULL: 1}


def test_a_request_runs_when_its_delay_is_up(start):
    limits = Limits(group_rows=8, slice_rows=20, queue_delay_ns=30_000_000)
    scheduler, counts = start(add_one, limits)
    (sent,) = submit(scheduler, request(numbers(1)))
    answer(sent)
    assert counts.closed == {CloseReason.DELAY: 1}
    assert sent.future.result().timings.queue_ns >= 30_000_000


# What must not run.


def refused(**fields):
    return request(numbers(1), **fields)


def test_an_expired_request_is_refused_without_a_run(start):
    scheduler, counts = start(add_one)
    (sent,) = submit(scheduler, refused(deadline_ns=time.monotonic_ns() - 1))
    with pytest.raises(DeadlinePassed):
        sent.future.result(PATIENCE_S)
    assert counts.executions == 0


def test_a_request_over_its_queue_timeout_is_refused_without_a_run(start):
    scheduler, counts = start(add_one)
    (sent,) = submit(scheduler, refused(queue_deadline_ns=time.monotonic_ns() - 1))
    with pytest.raises(QueueTimeout):
        sent.future.result(PATIENCE_S)
    assert counts.executions == 0


def test_a_request_cancelled_in_the_queue_is_dropped_without_a_run(start):
    scheduler, counts = start(add_one, PATIENT)
    (sent,) = submit(scheduler, refused())
    scheduler.cancel(sent)
    with pytest.raises(Cancelled):
        sent.future.result(PATIENCE_S)
    assert counts.executions == 0


def test_a_deadline_wakes_a_worker_that_waits_for_more(start):
    scheduler, counts = start(add_one, PATIENT)
    soon_ns = time.monotonic_ns() + 20_000_000
    later, sooner = refused(deadline_ns=soon_ns + HOUR_NS), refused(queue_deadline_ns=soon_ns)
    submit(scheduler, refused(), later, sooner)
    with pytest.raises(QueueTimeout):
        sooner.future.result(PATIENCE_S)
    assert not later.future.done()
    assert counts.executions == 0


def test_cancelling_what_was_answered_changes_nothing(start):
    scheduler, _ = start(add_one)
    (sent,) = submit(scheduler, request(numbers(1)))
    first = answer(sent)
    scheduler.cancel(sent)
    np.testing.assert_array_equal(answer(sent), first)


def test_requests_beside_a_refused_one_run(start):
    scheduler, counts = start(add_one, PATIENT)
    before, after = request(numbers(2)), request(numbers(3, 50))
    cancelled = refused()
    submit(scheduler, before, cancelled, after)
    scheduler.cancel(cancelled)
    scheduler.flush()
    np.testing.assert_array_equal(answer(before), numbers(2) + 1)
    np.testing.assert_array_equal(answer(after), numbers(3, 50) + 1)
    assert isinstance(cancelled.future.exception(PATIENCE_S), Cancelled)
    assert counts.inference_rows == 5


def test_a_queue_of_refused_requests_is_emptied(start):
    scheduler, counts = start(add_one)
    past_ns = time.monotonic_ns() - 1
    sent = submit(scheduler, *(refused(deadline_ns=past_ns) for _ in range(100)))
    assert all(isinstance(r.future.exception(PATIENCE_S), DeadlinePassed) for r in sent)
    assert counts.executions == 0


# The end.


def test_closing_runs_what_is_queued(start):
    scheduler, counts = start(add_one, PATIENT)
    sent = submit(scheduler, *(request(numbers(3, 10 * n)) for n in range(5)))
    scheduler.close()
    for number, each in enumerate(sent):
        assert each.future.done()
        np.testing.assert_array_equal(answer(each), numbers(3, 10 * number) + 1)
    assert counts.inference_rows == 15
    assert counts.closed[CloseReason.DRAIN] >= 1


def test_closing_gives_up_the_wait_for_announced_requests(start):
    scheduler, counts = start(add_one, PATIENT)
    (sent,) = submit(scheduler, request(numbers(1), more_follows=True))
    scheduler.close()
    assert sent.future.done()
    assert counts.closed == {CloseReason.DRAIN: 1}


def test_nothing_is_taken_after_closing(start):
    scheduler, _ = start(add_one)
    scheduler.close()
    late = request(numbers(1))
    with pytest.raises(ServerStopping):
        scheduler.submit(late)
    assert not late.future.done()


def test_closing_twice_is_closing(start):
    scheduler, _ = start(add_one)
    scheduler.close()
    scheduler.close()


# What goes wrong in the model.


def test_a_model_without_a_row_for_each_input_row_is_broken(start):
    scheduler, _ = start(first_row_only, PATIENT)
    sent = submit(scheduler, request(numbers(1)), request(numbers(2)))
    scheduler.flush()
    for each in sent:
        with pytest.raises(ModelBroken, match=r"shapes \[\(1, 4\)\] for 3 rows, expected one row"):
            each.future.result(PATIENCE_S)
    (alone,) = run(scheduler, request(numbers(1)))
    np.testing.assert_array_equal(alone, numbers(1))


def test_a_model_that_drops_the_batch_axis_is_broken(start):
    scheduler, _ = start(no_axis_for_one_row, PATIENT)
    (sent,) = submit(scheduler, request(numbers(1, width=1)))
    scheduler.flush()
    with pytest.raises(ModelBroken, match=r"shapes \[\(\)\] for 1 rows, expected one row each"):
        sent.future.result(PATIENCE_S)
    (several,) = run(scheduler, request(numbers(3, width=1)))
    assert several.tolist() == [0, 1, 2]


def test_values_that_fail_the_model_fail_their_request_only(start):
    scheduler, counts = start(look_up, PATIENT)
    good, bad = request(np.array([1, 2])), request(np.array([3, 99]))
    submit(scheduler, good, bad)
    scheduler.flush()
    with pytest.raises(InvalidInput, match="the model cannot be run on these inputs"):
        bad.future.result(PATIENCE_S)
    assert answer(good).tolist() == [10, 20]
    assert counts.executions == 1
    (after,) = run(scheduler, request(np.array([4, 5])))
    assert after.tolist() == [40, 50]


@pytest.mark.parametrize("bad_row", [0, 25, 43])
def test_a_slice_that_fails_fails_its_request_only(start, bad_row):
    scheduler, counts = start(look_up)
    indices = np.arange(43 + 1) % 10
    indices[bad_row] = 99
    (bad,) = submit(scheduler, request(indices))
    with pytest.raises(InvalidInput):
        bad.future.result(PATIENCE_S)
    (after,) = submit(scheduler, request(np.array([7])))
    assert answer(after).tolist() == [70]
    # Slices after the one that failed are not run.
    assert counts.executions == bad_row // 20 + 1


# Executions of one size.

FIXED = Limits(group_rows=8, slice_rows=8)
FIXED_PATIENT = Limits(group_rows=8, slice_rows=8, queue_delay_ns=HOUR_NS, linger_ns=HOUR_NS)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 20, 43])
def test_every_execution_has_the_fixed_size(start, rows):
    scheduler, counts = start(count_rows, FIXED, fixed=True)
    (sent,) = submit(scheduler, request(np.zeros(rows, np.int64)))
    assert answer(sent).tolist() == rows * [8]
    assert counts.inference_rows == rows


def test_requests_that_share_an_execution_of_fixed_size_get_their_own_rows(start):
    scheduler, counts = start(add_one, FIXED_PATIENT, fixed=True)
    for sizes in ((1, 2, 3), (5,), (2, 6), (1,)):
        inputs = [numbers(rows, 100 * rows) for rows in sizes]
        for x, y in zip(inputs, run(scheduler, *map(request, inputs)), strict=True):
            np.testing.assert_array_equal(y, x + 1)
    assert counts.executions == 4


def test_an_answer_keeps_no_rows_that_pad_in_memory(start):
    scheduler, _ = start(add_one, FIXED, fixed=True)
    (sent,) = submit(scheduler, request(numbers(1)))
    assert answer(sent).base is None


def test_padding_is_the_same_after_larger_batches(start):
    # The sum of all that is in the execution.
    def total(path):
        nodes = [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=1),
            helper.make_node("Sub", ["x", "x"], ["zero"]),
            helper.make_node("Add", ["zero", "sum"], ["y"]),
        ]
        save(path, nodes, (FLOAT, ["n", "d"]), (FLOAT, ["n", "d"]))

    scheduler, _ = start(total, FIXED_PATIENT, fixed=True)
    for rows in (3, 7, 2, 6):
        for y in run(scheduler, request(np.ones((rows, 4), np.float32))):
            assert y.tolist() == rows * [4 * [4.0 * rows]]


def test_values_that_fail_the_model_fail_their_request_only_at_fixed_size(start):
    scheduler, _ = start(look_up, FIXED_PATIENT, fixed=True)
    good, bad = request(np.array([1, 2])), request(np.array([3, 99]))
    submit(scheduler, bad, good)
    scheduler.flush()
    with pytest.raises(InvalidInput, match="the model cannot be run on these inputs"):
        bad.future.result(PATIENCE_S)
    assert answer(good).tolist() == [10, 20]
    # What failed is not among what pads the next ones.
    assert run(scheduler, request(np.array([4])))[0].tolist() == [40]


# Memory of the inputs.


def test_batches_of_changing_shapes_are_gathered(start):
    scheduler, counts = start(add_one, PATIENT)
    for width in (3, 5, 3, 1, 70, 3):
        inputs = [numbers(2, 100, width), numbers(3, 700, width)]
        for x, y in zip(inputs, run(scheduler, *map(request, inputs)), strict=True):
            np.testing.assert_array_equal(y, x + 1)
    assert counts.executions == 6


def test_requests_of_other_shapes_run_apart(start):
    scheduler, counts = start(add_one, PATIENT)
    inputs = [numbers(1, width=width) for width in (3, 3, 5, 3)]
    for x, y in zip(inputs, run(scheduler, *map(request, inputs)), strict=True):
        np.testing.assert_array_equal(y, x + 1)
    assert counts.executions == 3
    assert counts.closed == {CloseReason.SHAPE: 2, CloseReason.BYTES: 1}


@pytest.mark.parametrize("rows", [(3,), (2, 3), (8,), (50,)])
def test_unaligned_inputs_are_read(start, rows):
    scheduler, _ = start(add_one, PATIENT)
    inputs = []
    for count in rows:
        data = b"\0" + numbers(count).tobytes()
        inputs.append(np.frombuffer(data, np.float32, offset=1).reshape(count, 4))
        assert not inputs[-1].flags.aligned
    for x, y in zip(inputs, run(scheduler, *map(request, inputs)), strict=True):
        np.testing.assert_array_equal(y, x + 1)


@pytest.mark.parametrize("rows", [(3,), (2, 3), (50,)])
def test_inputs_that_are_not_contiguous_are_read(start, rows):
    scheduler, _ = start(add_one, PATIENT)
    inputs = [numbers(count, width=8)[:, ::2] for count in rows]
    for x, y in zip(inputs, run(scheduler, *map(request, inputs)), strict=True):
        np.testing.assert_array_equal(y, x + 1)


def test_an_answered_request_lets_go_of_its_inputs(start):
    scheduler, _ = start(add_one, PATIENT)
    sent = [request(numbers(2)), request(numbers(30))]
    run(scheduler, *sent)
    assert [dict(each.inputs) for each in sent] == [{}, {}]


@pytest.fixture
def watched(tmp_path):
    """Start a scheduler whose executions wait for an event; (scheduler, running, event, told).

    `told` has what each execution was told about receiving.
    """
    started = []

    def watched(**options):
        add_one(tmp_path / "model.onnx")
        running, go_on, told = threading.Event(), threading.Event(), []

        class Watched(Engine):
            def run(self, outputs, inputs, *, receiving=False):
                told.append(receiving)
                running.set()
                assert go_on.wait(PATIENCE_S)
                return super().run(outputs, inputs, receiving=receiving)

        engine = Watched(tmp_path / "model.onnx", 2)
        started.append(Scheduler("m", [engine], Limits(8, 8), Statistics(), **options))
        return started[-1], running, go_on, told

    yield watched
    for scheduler in started:
        scheduler.close()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_core_is_left_to_receiving_while_a_sender_announces_more(watched, fixed):
    scheduler, _, go_on, told = watched(fixed=fixed)
    go_on.set()
    for more_follows in (True, False):
        (sent,) = submit(scheduler, request(numbers(8), more_follows=more_follows))
        np.testing.assert_array_equal(answer(sent), numbers(8) + 1)
    # Executions that have to agree bit by bit all run in one way.
    assert told == [not fixed, False]


@pytest.mark.parametrize(
    ("mib", "fixed", "expected"),
    # A message that only names rows in shared memory is small.
    [(4, False, True), (4, True, False), (1, False, False)],
)
def test_a_core_is_left_to_receiving_if_much_came_during_the_last_execution(
    watched, mib, fixed, expected
):
    scheduler, running, go_on, told = watched(fixed=fixed)
    size_bytes = mib * 2**20
    sent = submit(scheduler, request(numbers(8), size_bytes=size_bytes))
    assert running.wait(PATIENCE_S)
    sent += submit(scheduler, request(numbers(8), size_bytes=size_bytes))
    go_on.set()
    for each in sent:
        answer(each)
    for each in submit(scheduler, request(numbers(8), size_bytes=size_bytes)):
        answer(each)
    assert told == [False, expected, False]


def test_the_rest_of_a_request_that_came_whole_runs_on_all_cores(watched):
    scheduler, _, go_on, told = watched()
    go_on.set()
    (sent,) = submit(scheduler, request(numbers(24), size_bytes=2**30))
    answer(sent)
    assert told == [False, False, False]


def test_the_memory_of_inputs_is_free_before_their_room_is_given_back(start):
    scheduler, _ = start(add_one)
    x = numbers(8)
    held, seen = weakref.ref(x), []
    sent = request(x)
    del x
    sent.released.add_done_callback(lambda _: seen.append(held() is None))
    scheduler.submit(sent)
    answer(sent)
    assert seen == [True]
