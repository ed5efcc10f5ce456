"""The times of a request at the server, from the first byte of its message to its answer's last."""

import time

import grpc
import numpy as np
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame
from onnx import helper
from transport_raw import Raw

from protos.codec import decode_response, decode_stream_response

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
STAGES = ("receive_ns", "decode_ns", "queue_ns", "assemble_ns", "compute_ns", "handover_ns")
WIDE = 16_384
TIMED = {"timings": True}


@pytest.fixture(scope="module")
def models(graphs):
    graphs.add_steps()
    # One answers 4 bytes with 64 KiB.
    for name, columns in (("wide", WIDE), ("own", 1)):
        graphs.add(
            name,
            [helper.make_node("Mul", ["x", "ones"], ["y"])],
            {"x": ("float32", ["batch", 1])},
            {"y": ("float32", ["batch", columns])},
            {"ones": np.ones((1, columns), np.float32)},
        )
    return graphs.folder


@pytest.fixture(scope="module")
def caller(serve, call, models):
    return call(serve(models, transport="native").address)


@pytest.fixture
def raw(caller):
    settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}
    with Raw(caller.address, settings=settings) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65535))
        yield peer


def timed(caller, rows=1, steps=1):
    return caller.message("steps", parameters=TIMED, steps=np.full((rows, 1), steps, np.int64))


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def seen(raw):
    """Wait until the server has read all that was sent."""
    raw.send(PingFrame(0, b"12345678"))
    while "ACK" not in raw.until(PingFrame).flags:
        pass


def pause_ns(raw, caller):
    """Let time pass in which the server has all that was sent; how much at least."""
    seen(raw)
    began_ns = time.monotonic_ns()
    for _ in range(5):
        caller.infer(timed(caller, steps=10_000))
    return time.monotonic_ns() - began_ns


def answer(raw):
    """The next message that is sent in one frame."""
    data = raw.until(DataFrame).data
    assert len(data) == 5 + int.from_bytes(data[1:5], "big")
    return data[5:]


@pytest.mark.parametrize("cut", [2, 5, 20], ids=["in the prefix", "after it", "in the message"])
def test_receiving_counts_from_the_first_byte_of_a_message_that_comes_slowly(raw, caller, cut):
    data = framed(timed(caller))
    raw.send(raw.headers(INFER))
    pause_ns(raw, caller)  # before the first byte: it does not count
    before_ns = time.monotonic_ns()
    raw.send(DataFrame(1, data[:cut]))
    passed_ns = pause_ns(raw, caller)
    raw.send(DataFrame(1, data[cut:], flags=["END_STREAM"]))
    receive_ns = decode_response(answer(raw)).parameters["receive_ns"]
    assert passed_ns <= receive_ns <= time.monotonic_ns() - before_ns


def test_each_message_of_a_stream_has_a_receive_time_of_its_own(raw, caller):
    data = framed(timed(caller))
    raw.send(raw.headers(STREAM))
    raw.send(DataFrame(1, data + data[:7]))
    _, first = decode_stream_response(answer(raw))
    passed_ns = pause_ns(raw, caller)
    raw.send(DataFrame(1, data[7:]))
    _, second = decode_stream_response(answer(raw))
    # That the first one came with the second one's start does not change its time.
    assert first.parameters["receive_ns"] < passed_ns <= second.parameters["receive_ns"]


def test_an_answer_that_nobody_reads_is_being_sent(raw, caller, eventually):
    rows = 512  # 32 MiB: more than sockets hold
    before = caller.statistics("wide")
    message = caller.message("wide", x=np.ones((rows, 1), np.float32))
    raw.send(raw.headers(INFER), raw.message(1, message))
    count = before.inference_stats.success.count + 1
    eventually(
        lambda: caller.statistics("wide").inference_stats.success.count == count, "it is computed"
    )
    began_ns = time.monotonic_ns()
    for _ in range(5):
        caller.infer(timed(caller, steps=10_000))
    passed_ns = time.monotonic_ns() - began_ns
    assert caller.statistics("wide").response_stats["send"] == before.response_stats["send"]
    got = 0
    while not isinstance(frame := raw.frame(), HeadersFrame) or "END_STREAM" not in frame.flags:
        got += len(frame.data) if isinstance(frame, DataFrame) else 0
    assert got > rows * WIDE * 4
    sent = eventually(lambda: _sent(caller, "wide", before, 1), "the answer is sent")
    assert sent.ns - before.response_stats["send"].success.ns >= passed_ns


def _sent(caller, model, before, answers):
    """The time for sending, once so many more answers were sent."""
    sent = caller.statistics(model).response_stats["send"].success
    return sent if sent.count - before.response_stats["send"].success.count == answers else None


def test_statistics_are_the_sums_over_answers(caller, eventually):
    # The model is this test's own: nothing else of it is on its way.
    before = caller.statistics("own")
    message = caller.message("own", parameters=TIMED, x=np.ones((2, 1), np.float32))
    answers = [caller.infer(message) for _ in range(4)]
    answers += [response for _, response in caller.stream([message] * 4)]
    sent = eventually(lambda: _sent(caller, "own", before, len(answers)), "all are sent")
    assert sent.ns > 0
    after = caller.statistics("own")

    def told(*stages):
        times = [response.parameters[stage] for response in answers for stage in stages]
        return len(answers), sum(times)

    def counted(duration):
        return duration.count, duration.ns

    stats = after.inference_stats
    assert counted(after.response_stats["receive"].success) == told("receive_ns")
    assert counted(stats.queue) == told("queue_ns")
    assert counted(stats.compute_input) == told("decode_ns", "assemble_ns")
    assert counted(stats.compute_infer) == told("compute_ns")
    # Each stage begins where the one before ends; what is left is encoding.
    assert told(*STAGES[1:])[1] + stats.compute_output.ns == stats.success.ns


def test_the_wait_of_an_answer_for_those_before_it_is_its_handover(caller, eventually):
    before = caller.statistics("wide").execution_count
    quick = caller.message("wide", parameters=TIMED, x=np.ones((1, 1), np.float32))
    with caller.busy_worker():
        call = caller.open_stream(iter([timed(caller), quick]))
        eventually(
            lambda: caller.statistics("wide").execution_count > before, "the second is computed"
        )
        began_ns = time.monotonic_ns()
        caller.control("ServerLive")
        passed_ns = time.monotonic_ns() - began_ns
    _, second = (decode_stream_response(data)[1] for data in call)
    assert second.parameters["handover_ns"] >= passed_ns


def test_the_stages_of_a_request_fit_into_its_round_trip(caller):
    message = timed(caller, rows=8, steps=1000)
    caller.infer(message)
    for _ in range(20):
        began_ns = time.monotonic_ns()
        parameters = caller.infer(message).parameters
        round_trip_ns = time.monotonic_ns() - began_ns
        assert 0 < sum(parameters[stage] for stage in STAGES) <= round_trip_ns


def test_errors_are_neither_received_nor_sent(caller, eventually):
    before = caller.statistics("steps")
    with pytest.raises(grpc.RpcError):
        caller.infer(caller.message("steps", wrong=np.ones((1, 1), np.int64)))
    after = caller.statistics("steps")
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    assert after.response_stats["receive"] == before.response_stats["receive"]


def test_grpcio_does_not_know_when_bytes_passed_and_says_nothing(serve, call, models):
    caller = call(serve(models, transport="grpcio").address)
    message = timed(caller)
    ((_, streamed),) = caller.stream([message])
    for response in (caller.infer(message), streamed):
        assert "receive_ns" not in response.parameters
        assert set(STAGES[1:]) <= set(response.parameters)
    assert not {"receive", "send"} & set(caller.statistics("steps").response_stats)
