"""Rows of a large unary request run while the rest of its message arrives."""

import contextlib
import threading
import tracemalloc

import grpc
import numpy as np
import pytest
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from onnx import helper
from transport_raw import Raw

from model.export import export
from model.reference import expect
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.codec import decode_response
from protos.wire import length_prefix

INFER = "/inference.GRPCInferenceService/ModelInfer"
CLASSES, FEATURES = 8, 16_384  # a row has 64 KiB
GROUP_ROWS = 16
PART_ROWS = 256
PART_BYTES = 16 * 2**20
ROWS = 2 * PART_ROWS + 40
MOST_ROWS = 1024
BUDGET_BYTES = 160 * 2**20
STAGES = ("receive_ns", "decode_ns", "queue_ns", "assemble_ns", "compute_ns", "handover_ns")
FRAME_BYTES = 2**20
PATIENCE_S = 30
INVALID, DEADLINE, UNIMPLEMENTED = "3", "4", "12"
CANCEL = 8


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 1), "float32", 1)
    export(graphs.folder, "limited", from_seed(CLASSES, FEATURES, 1), "float32", 1)
    (graphs.folder / "limited" / "config.pbtxt").write_text(
        "dynamic_batching { default_queue_policy { max_queue_size: 100 } }"
    )
    graphs.add(
        "lookup",
        [helper.make_node("Gather", ["table", "at"], ["y"])],
        {"at": ("int64", ["batch", FEATURES // 2])},
        {"y": ("float32", ["batch", FEATURES // 2])},
        {"table": np.arange(4, dtype=np.float32)},
    )
    return graphs.folder


def options(**more):
    return {
        "transport": "native",
        "group_rows": GROUP_ROWS,
        "max_batch_rows": MOST_ROWS,
        "max_inflight_bytes": BUDGET_BYTES,
        **more,
    }


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(models, **options())


@pytest.fixture(scope="module")
def caller(server, call):
    return call(server.address)


@pytest.fixture
def sender(caller):
    with Sender(caller.address) as peer:
        yield peer


def rows(count=ROWS, seed=0):
    return np.random.default_rng(seed).standard_normal((count, FEATURES), dtype=np.float32)


@pytest.fixture(scope="module")
def x():
    return rows(MOST_ROWS)


@pytest.fixture(scope="module")
def expected(x):
    """What the float64 reference says."""
    return expect(from_seed(CLASSES, FEATURES, 1), x, "float32")


class Other(Exception):
    """A frame that is no part of the answer."""


class Sender(Raw):
    """Sends one call's message, as far as the test says and the server lets it."""

    def __init__(self, address):
        super().__init__(address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
        self.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65535))
        self._windows = {0: 65535, 1: 65535}
        self.ended = None  # the call's trailers, if they came while the message was sent

    def begin(self, message, more=()):
        self._data = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
        self._sent = 0
        self.send(self.headers(INFER, more))
        self.take(self.until(SettingsFrame))

    def go_on(self, until_byte=None):
        """Send up to a byte of the message, by default its last, and have the server read it."""
        end = len(self._data) if until_byte is None else 5 + until_byte
        left, self._sent = self._data[self._sent : end], end
        while left and not self.ended:
            count = min(len(left), FRAME_BYTES, *self._windows.values())
            if not count:
                self.take(self.frame())
                continue
            self.send(DataFrame(1, bytes(left[:count])))
            left = left[count:]
            for stream in self._windows:
                self._windows[stream] -= count
        self.read()

    def read(self):
        """Wait until the server has read what was sent."""
        self.send(PingFrame(0, b"12345678"))
        while not (isinstance(frame := self.frame(), PingFrame) and "ACK" in frame.flags):
            self.take(frame)

    def take(self, frame):
        if isinstance(frame, WindowUpdateFrame):
            self._windows[frame.stream_id] += frame.window_increment
        elif isinstance(frame, SettingsFrame):
            initial = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, 65535)
            self._windows[1] += initial - 65535
        elif isinstance(frame, HeadersFrame):
            self.ended = dict(self.decoder.decode(frame.data))

    def end(self):
        """Half-close the call."""
        self.send(DataFrame(1, b"", flags=["END_STREAM"]))

    def trailers(self):
        return self.ended or super().trailers()

    def answer(self):
        data = b""
        while isinstance(frame := self.frame(), DataFrame | HeadersFrame | WindowUpdateFrame):
            if isinstance(frame, DataFrame):
                data += frame.data
            elif "END_STREAM" in frame.flags:
                assert dict(self.decoder.decode(frame.data))["grpc-status"] == "0"
                return decode_response(data[5:])
            elif isinstance(frame, HeadersFrame):
                self.decoder.decode(frame.data)
        raise Other(frame)


def message_of(caller, x, model="linear", **more):
    return caller.message(model, x=x, **more)


def ran_early(caller, before):
    """Whether other executions were begun since `before` than that of the row sent here.

    What is queued runs first: the worker was idle.
    """
    caller.infer(message_of(caller, rows(1), before.name))
    return caller.statistics(before.name).execution_count > before.execution_count + 1


def room_is_free(server):
    return server._servicer._inference.budget.used_bytes == 0


@pytest.mark.parametrize(
    "count",
    [1, PART_ROWS, *(2 * PART_ROWS + more for more in (-1, 0, 1)), 3 * PART_ROWS, MOST_ROWS],
)
def test_answers_are_the_references_whatever_the_number_of_rows(caller, x, expected, count):
    before = caller.statistics("linear")
    outputs = ["label", "scores"]
    message = message_of(caller, x[:count], id="abc", outputs=outputs)
    response = caller.infer(message)
    after = caller.statistics("linear")
    assert response.id == "abc"
    assert np.array_equal(response["label"], expected.labels[:count])
    assert np.allclose(response["scores"], expected.scores[:count], atol=1e-2)
    assert after.inference_count == before.inference_count + count
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.fail.count == before.inference_stats.fail.count


def test_rows_run_while_others_are_still_to_come(server, caller, sender, x, expected, eventually):
    before = caller.statistics("linear")
    sender.begin(message_of(caller, x[:ROWS], parameters={"timings": True}))
    sender.go_on(20 * 2**20)
    assert ran_early(caller, before)
    # The last rows wait for the half-close, which may bring an error instead.
    sender.go_on()
    early = before.inference_count + 1 + 2 * PART_ROWS
    eventually(lambda: caller.statistics("linear").inference_count == early, "all others ran")
    caller.infer(message_of(caller, x[:1]))
    now = caller.statistics("linear")
    assert now.inference_count == early + 1
    assert now.inference_stats.success.count == before.inference_stats.success.count + 2
    sender.end()
    response = sender.answer()
    assert np.array_equal(response["label"], expected.labels[:ROWS])
    assert response.parameters["batch_dependent"] is False
    assert response.parameters["batch_rows"] == 4 * GROUP_ROWS
    assert not any(response.parameters[stage] < 0 for stage in STAGES)
    eventually(lambda: room_is_free(server), "the room is given back")


def test_a_part_runs_once_its_last_byte_is_there(caller, sender, x, expected):
    before = caller.statistics("linear")
    message = message_of(caller, x[:ROWS])
    part_end = len(message) - x[:ROWS].nbytes + PART_BYTES
    sender.begin(message)
    sender.go_on(part_end - 1)
    assert not ran_early(caller, before)
    before = caller.statistics("linear")
    sender.go_on(part_end)
    assert ran_early(caller, before)
    sender.go_on()
    sender.end()
    assert np.array_equal(sender.answer()["label"], expected.labels[:ROWS])


def test_the_stages_of_a_request_that_ran_early_add_up(serve, call, models, x):
    caller = call(serve(models, **options()).address)
    with Sender(caller.address) as sender:
        sender.begin(message_of(caller, x[:ROWS], parameters={"timings": True}))
        sender.go_on(20 * 2**20)
        sender.go_on()
        sender.end()
        told = sender.answer().parameters
    stats = caller.statistics("linear").inference_stats
    received = caller.statistics("linear").response_stats["receive"].success
    assert (received.count, received.ns) == (1, told["receive_ns"])
    assert stats.queue.ns == told["queue_ns"]
    assert stats.compute_input.ns == told["decode_ns"] + told["assemble_ns"]
    assert stats.compute_infer.ns == told["compute_ns"]
    batches = caller.statistics("linear").batch_stats
    assert sum(each.compute_input.ns for each in batches) == told["assemble_ns"]
    assert sum(each.compute_infer.ns for each in batches) == told["compute_ns"]
    # Each stage begins where the one before ends; what is left is encoding.
    stages = sum(told[stage] for stage in STAGES[1:])
    assert stages + stats.compute_output.ns == stats.success.ns
    assert caller.statistics("linear").inference_count == ROWS


def other_orders(caller, x):
    """Messages whose data do not end them, or that have to be complete for another reason."""
    message = message_of(caller, x)
    head = pb.ModelInferRequest(model_name="linear")
    head.inputs.add(name="x", datatype="FP32", shape=x.shape)
    data = length_prefix(7, x.nbytes) + x.tobytes()
    return {
        "an id behind the data": message + pb.ModelInferRequest(id="abc").SerializeToString(),
        "an unknown field behind them": message + length_prefix(99, 3) + b"abc",
        "the data first": data + head.SerializeToString(),
        "a timeout": message_of(caller, x, parameters={"timeout": 10**9}),
        "a queue with a limit": message_of(caller, x, "limited"),
    }


@pytest.mark.parametrize(
    "order",
    [
        *("an id behind the data", "an unknown field behind them", "the data first"),
        *("a timeout", "a queue with a limit"),
    ],
)
def test_other_requests_run_once_they_are_complete(caller, sender, x, expected, order):
    before = caller.statistics("limited" if order == "a queue with a limit" else "linear")
    sender.begin(other_orders(caller, x[:ROWS])[order])
    sender.go_on(30 * 2**20)
    assert not ran_early(caller, before)
    sender.go_on()
    sender.end()
    assert np.array_equal(sender.answer()["label"], expected.labels[:ROWS])


def damaged(caller, x):
    message = message_of(caller, x)
    return {
        "a byte too few": message[:-1],
        "a byte too many": message + b"x",
        "cut off behind a part": message[: 25 * 2**20],
        "another shape": message.replace(b"\x80\x80\x01", b"\x81\x80\x01", 1),
    }


@pytest.mark.parametrize(
    "damage", ["a byte too few", "a byte too many", "cut off behind a part", "another shape"]
)
def test_damaged_requests_get_the_error_that_small_ones_get(caller, sender, x, damage):
    before = caller.statistics("linear")
    sender.begin(damaged(caller, x[:ROWS])[damage])
    sender.go_on()
    assert not ran_early(caller, before)
    sender.end()
    assert sender.trailers()["grpc-status"] == INVALID


@pytest.mark.parametrize("end", ["reset", "deadline", "lost", "second message"])
def test_a_request_that_ends_early_leaves_nothing_behind(
    server, caller, x, expected, eventually, end
):
    before = caller.statistics("linear")
    tracemalloc.start()
    with Sender(caller.address) as sender:
        timeout = [("grpc-timeout", "1S")] if end == "deadline" else []
        sender.begin(message_of(caller, x[:ROWS]), timeout)
        sender.go_on(20 * 2**20)
        if end == "deadline":
            # Where all is slow it may pass before any row is there.
            assert sender.trailers()["grpc-status"] == DEADLINE
        assert ran_early(caller, before) or end == "deadline"
        if end == "reset":
            sender.send(RstStreamFrame(1, CANCEL))
        elif end == "second message":
            sender.go_on()
            sender.send(DataFrame(1, b"\0\0\0\0\1x"))
            assert sender.trailers()["grpc-status"] == UNIMPLEMENTED
    del sender
    eventually(lambda: room_is_free(server), "the room is given back")
    eventually(lambda: tracemalloc.get_traced_memory()[0] < PART_BYTES, "the message is freed")
    tracemalloc.stop()
    after = caller.statistics("linear")
    # That of the row which `ran_early` sends.
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert np.array_equal(
        caller.infer(message_of(caller, x[:ROWS]))["label"], expected.labels[:ROWS]
    )


@pytest.mark.parametrize("rows", [slice(4 * GROUP_ROWS), slice(2 * PART_ROWS, ROWS)])
def test_an_error_of_a_part_is_the_answer_once_the_request_is_complete(caller, rows):
    at = np.ones((ROWS, FEATURES // 2), np.int64)
    at[rows] = 7  # the table has 4
    before = caller.statistics("lookup").inference_stats
    with Sender(caller.address) as sender:
        sender.begin(caller.message("lookup", at=at))
        sender.go_on(30 * 2**20)
        sender.go_on()
        sender.end()
        trailers = sender.trailers()
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message("lookup", at=at[rows]))
    assert trailers["grpc-status"] == INVALID
    assert trailers["grpc-message"] == caught.value.details()
    after = caller.statistics("lookup").inference_stats
    assert after.fail.count == before.fail.count + 2


def test_values_are_rejected_by_the_rows_of_the_whole_request(serve, call, models, x):
    caller = call(serve(models, **options(non_finite="reject")).address)
    before = caller.statistics("linear")
    bad = x[:ROWS].copy()
    bad[ROWS - 1, 0] = np.nan
    with Sender(caller.address) as sender:
        sender.begin(message_of(caller, bad))
        sender.go_on(20 * 2**20)
        assert not ran_early(caller, before)
        sender.go_on()
        sender.end()
        trailers = sender.trailers()
    assert trailers["grpc-status"] == INVALID
    assert str(ROWS - 1) in trailers["grpc-message"]


def test_parts_that_run_at_the_same_time_are_joined_in_order(serve, call, models, x, expected):
    caller = call(serve(models, **options(instances=2)).address)
    message = message_of(caller, x)
    for _ in range(4):
        assert np.array_equal(caller.infer(message)["label"], expected.labels)
    assert caller.statistics("linear").inference_count == 4 * MOST_ROWS


def test_executions_of_one_size_give_the_same_bits(serve, call, models, x):
    caller = call(serve(models, **options(deterministic=True)).address)
    before = caller.statistics("linear")
    with Sender(caller.address) as sender:
        sender.begin(message_of(caller, x[:ROWS], outputs=["scores"]))
        sender.go_on(20 * 2**20)
        assert ran_early(caller, before)
        sender.go_on()
        sender.end()
        scores = sender.answer()["scores"]
    for start in (0, 5, ROWS - 10):
        few = caller.infer(message_of(caller, x[start : start + 10], outputs=["scores"]))["scores"]
        assert few.tobytes() == scores[start : start + 10].tobytes()


@pytest.fixture
def swapped(serve, call, tmp_path):
    """A caller of a server with the first version of a model, and the folder."""
    folder = tmp_path / "models"
    export(folder, "linear", from_seed(CLASSES, FEATURES, 1), "float32", 1)
    control = {"model_control": "explicit", "load_model": ("*",)}
    return call(serve(folder, **options(**control)).address), folder


@pytest.mark.parametrize("complete", [False, True], ids=["within the rows", "before the last rows"])
def test_a_model_that_is_replaced_meanwhile_answers_none_of_the_rows(swapped, x, complete):
    caller, folder = swapped
    before = caller.statistics("linear")
    with Sender(caller.address) as sender:
        sender.begin(message_of(caller, x[:ROWS]))
        sender.go_on(20 * 2**20)
        assert ran_early(caller, before)
        if complete:
            sender.go_on()
        weights = from_seed(CLASSES, FEATURES, 2)
        export(folder, "linear", weights, "float32", 2, version=2)
        caller.control("RepositoryModelLoad", model_name="linear")
        if not complete:
            sender.go_on()
        sender.end()
        response = sender.answer()
    assert response.model_version == "2"
    assert np.array_equal(response["label"], expect(weights, x[:ROWS], "float32").labels)


def test_a_request_under_way_is_answered_by_a_server_that_drains(serve, call, models, x, expected):
    server = serve(models, **options(grace_s=PATIENCE_S))
    caller = call(server.address)
    before = caller.statistics("linear")
    with Sender(caller.address) as sender:
        sender.begin(message_of(caller, x[:ROWS]))
        sender.go_on(20 * 2**20)
        assert ran_early(caller, before)
        draining = threading.Thread(target=server.drain)
        draining.start()
        sender.go_on()
        sender.end()
        labels = None
        while labels is None:
            with contextlib.suppress(Other):
                labels = sender.answer()["label"]
        draining.join()
    assert np.array_equal(labels, expected.labels[:ROWS])
