"""What the project's own transport bounds by itself: answers unread, reading ahead, descriptors."""

import contextlib
import os
import resource
import socket
import threading
from pathlib import Path

import grpc
import h2.settings
import numpy as np
import pytest
from hyperframe.frame import DataFrame
from onnx import helper
from transport_raw import Raw

from measure.overload.http2_peer import Http2Peer, framed
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.codec import decode_stream_response
from server.rpc.native.room import REQUEST_BYTES
from transport.serving.server_call import ServerCall

CODE = grpc.StatusCode
LIVE = "/inference.GRPCInferenceService/ServerLive"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
ANSWER_BYTES = 64 * 1024
MOST_BYTES = 96 * 2**20
WINDOW_BYTES = 2**20


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture
def native(serve, models):
    return lambda **options: serve(models, transport="native", **options)


def request(caller):
    return caller.message("linear", x=np.ones((1, 8), np.float32))


@pytest.fixture
def amplifying(graphs):
    """A model that answers 8 bytes with 64 KiB."""
    if not (graphs.folder / "wide").exists():
        graphs.add(
            "wide",
            [helper.make_node("Mul", ["x", "ones"], ["y"])],
            {"x": ("float32", ["batch", 1])},
            {"y": ("float32", ["batch", ANSWER_BYTES // 4])},
            {"ones": np.ones((1, ANSWER_BYTES // 4), np.float32)},
        )
    return graphs.folder


def peak_bytes(process):
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_answers_that_nobody_reads_take_bounded_memory_until_the_stream_is_idle(
    launch, call, amplifying, eventually
):
    options = ("--transport", "native", "--stream-idle-s", 2, "--max-streams", 1)
    process = launch(amplifying, *options)
    caller = call(process.address)
    message = caller.message("wide", x=np.ones((1, 1), np.float32))
    assert len(caller.stream([message])) == 1
    before_bytes = peak_bytes(process)
    with Http2Peer(process.address) as peer:
        # Windows as wide as can be: only the socket is in the way.
        peer.hello()
        peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        peer.h2.increment_flow_control_window(2**31 - 1 - 65535)
        number = peer.call(STREAM)
        # As many as its window takes; not one answer is read.
        many = framed(message) * 100
        sent = 0
        while sent * len(many) < (WINDOW_BYTES - len(many)) * 100:
            peer.send(DataFrame(number, many))
            sent += 100
        # The only stream's place is free again, though its client still reads nothing.
        eventually(lambda: streams(caller, message), "another stream is taken")
    assert sent * ANSWER_BYTES > 4 * MOST_BYTES
    assert peak_bytes(process) - before_bytes < MOST_BYTES


def test_only_some_messages_of_a_stream_are_taken_ahead_of_their_answers(native, call, eventually):
    # However small they are, their answers may be large.
    server = native(group_rows=2)
    caller = call(server.address)
    message = caller.message("steps", steps=np.ones((1, 1), np.int64))
    budget = server._servicer._inference.budget
    with caller.busy_worker():
        before_bytes = budget.used_bytes
        answers = caller.open_stream(iter([message] * 600))
        each_bytes = len(message) + REQUEST_BYTES
        # The answer to the last control RPC may still have counted before.
        least_bytes = before_bytes + 255 * each_bytes
        eventually(lambda: budget.used_bytes > least_bytes, "so many are taken")
        for _ in range(20):
            caller.control("ServerLive")
        assert budget.used_bytes < least_bytes + 2 * each_bytes
    assert sum(1 for _ in answers) == 600


def streams(caller, message):
    try:
        return len(caller.stream([message])) == 1
    except grpc.RpcError as error:
        if error.code() is not CODE.RESOURCE_EXHAUSTED:
            raise
        return False


def test_a_server_without_descriptors_waits_quietly_and_goes_on(launch, call, models, eventually):
    process = launch(models, "--transport", "native")
    caller = call(process.address)
    assert caller.health() == "SERVING"
    folder = Path(f"/proc/{process.popen.pid}")
    _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
    few = len(list((folder / "fd").iterdir())) + 2
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (few, hard))
    host, _, port = process.address.rpartition(":")
    waiting = [socket.create_connection((host, int(port)), 20) for _ in range(8)]
    try:
        eventually(lambda: "cannot accept" in " ".join(process.said()), "descriptors are short")
        before_s = cpu_s(folder)
        threading.Event().wait(2)
        assert cpu_s(folder) - before_s < 1
        assert caller.health() == "SERVING"
    finally:
        for each in waiting:
            each.close()
    assert call(process.address).health() == "SERVING"


def cpu_s(folder):
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_streams_of_many_small_messages_go_on(native, call, compression):
    # Each counts among those that are read ahead, and is counted off again.
    server = native(max_stream_bytes=8 * 1024)
    caller = call(server.address)
    stream = caller.channel.stream_stream(STREAM)
    answers = stream(iter([request(caller)] * 400), compression=compression, timeout=60)
    assert sum(1 for _ in answers) == 400


def test_control_messages_of_any_size_take_their_bytes_from_the_budget(native, call, eventually):
    server = native(group_rows=2, max_inflight_bytes=256 * 1024)
    caller = call(server.address)
    with caller.busy_worker():
        # All but a few bytes are held.
        padding = {"note": "n" * 200 * 1024}
        message = caller.message("steps", parameters=padding, steps=np.ones((1, 1), np.int64))
        held = caller.infer_later(message)
        budget = server._servicer._inference.budget
        eventually(lambda: budget.used_bytes > 200 * 1024, "the bytes are held")
        large = pb.RepositoryIndexRequest(repository_name="r" * 10 * 1024).SerializeToString()
        method = caller.channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
        waiting = method.future(large, timeout=60)
        assert caller.control("ServerLive").live
        assert not waiting.done()
        held.cancel()
        assert waiting.code() is CODE.UNIMPLEMENTED  # there is one repository only
    eventually(lambda: budget.used_bytes == 0, "its bytes are back")


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_stream_goes_on_after_a_message_over_the_whole_budget(
    native, call, eventually, compression
):
    server = native(max_inflight_bytes=64 * 1024)
    caller = call(server.address)
    large = caller.message(
        "linear", id="large", parameters={"n": "n" * 100_000}, x=np.ones((1, 8), np.float32)
    )
    stream = caller.channel.stream_stream(STREAM)
    messages = iter([large, request(caller)] * 3)
    answers = [
        decode_stream_response(data)
        for data in stream(messages, compression=compression, timeout=20)
    ]
    assert len(answers) == 6
    for text, refused in answers[::2]:
        assert str(64 * 1024) in text
        assert refused.id == "large"
    for text, answer in answers[1::2]:
        assert (text, len(answer.outputs)) == ("", 2)
    budget = server._servicer._inference.budget
    eventually(lambda: budget.used_bytes == 0, "no bytes are held")


def test_a_stream_whose_message_waits_for_others_is_not_idle(native, call, eventually):
    server = native(group_rows=2, max_inflight_bytes=96 * 1024, stream_idle_s=1)
    caller, another = call(server.address), call(server.address)
    with another.busy_worker():
        padding = {"note": "n" * 50 * 1024}
        held = another.infer_later(
            another.message("steps", parameters=padding, steps=np.ones((1, 1), np.int64))
        )
        budget = server._servicer._inference.budget
        eventually(lambda: budget.used_bytes > 50 * 1024, "the bytes are held")
        x = np.ones((1, 8), np.float32)
        large = caller.message("linear", parameters=padding, x=x)
        answers = caller.open_stream(iter([large]))
        threading.Event().wait(3)
        assert not answers.done()
        held.cancel()
        assert decode_stream_response(next(answers))[0] == ""


def test_control_calls_over_the_limit_are_refused_and_health_is_answered(native, call, eventually):
    caller = call(native().address)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Raw(caller.address)) for _ in range(2)]
        calls = [[peer.headers(LIVE) for _ in range(500)] for peer in peers]
        for peer, frames in zip(peers, calls, strict=True):
            peer.send(*frames)
        eventually(lambda: not lives(caller), "as many are open as may be")
        assert caller.health() == "SERVING"
        eventually(lambda: lives(caller), "they were not waited for")


def lives(caller):
    try:
        return caller.control("ServerLive").live
    except grpc.RpcError as error:
        if error.code() is not CODE.RESOURCE_EXHAUSTED:
            raise
        return False


def test_a_cancelled_call_counts_as_failed_and_gives_its_bytes_back(native, call, eventually):
    server = native(group_rows=2)
    caller = call(server.address)
    with caller.busy_worker():
        later = caller.infer_later(caller.message("steps", steps=np.ones((4, 1), np.int64)))
        before = caller.statistics("steps").inference_stats.fail.count
        later.cancel()
        eventually(
            lambda: caller.statistics("steps").inference_stats.fail.count > before,
            "the call is given up",
        )
    budget = server._servicer._inference.budget
    eventually(lambda: budget.used_bytes == 0, "its bytes are back")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_is_counted_off_though_its_end_fails(
    native, call, eventually, monkeypatch, streamed
):
    server = native()
    caller = call(server.address)

    def fails(_):
        # As without memory, when the client has its answer.
        raise MemoryError

    monkeypatch.setattr(ServerCall, "_report_end", fails)
    if streamed:
        assert len(caller.stream([request(caller)])) == 1
    else:
        caller.infer(request(caller))
    pools = server._pools
    eventually(lambda: pools.unary.open == pools.streams.open == 0, "no call is open")
