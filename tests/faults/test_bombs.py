"""Messages that become much more than they are, once they are decoded."""

import os
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from steady import MIB, Steady

from model.export import export
from model.weights import from_seed
from protos.errors import InvalidMessage
from protos.request_decoding import decode_request, decode_weighed, weigh_request
from protos.weight import MOST_BYTES_ELEMENTS, MOST_FIELDS
from protos.wire import encode_varint, length_prefix

CLASSES, FEATURES = 4, 8
BUDGET_BYTES = 16 * MIB
INFER = "/inference.GRPCInferenceService/ModelInfer"
# Of a message of up to 10 MiB, and of each 10 MiB.
MOST_CPU_S = 1.0
REFUSALS = (
    *("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND"),
    *("UNIMPLEMENTED", "UNAVAILABLE"),
)


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add(
        "text",
        [helper.make_node("Identity", ["s"], ["t"])],
        {"s": ("string", ["batch", None])},
        {"t": ("string", ["batch", None])},
    )
    return graphs.folder


@pytest.fixture(scope="module")
def process(launch_for_module, models):
    return launch_for_module(models, "--max-inflight-bytes", BUDGET_BYTES)


@pytest.fixture(scope="module")
def roomy(launch_for_module, models, call):
    """A server with room for the largest messages and all that is made of them."""
    process = launch_for_module(models, "--max-inflight-bytes", 1024 * MIB)
    return process, call(process.address)


@pytest.fixture(scope="module")
def caller(call, process):
    return call(process.address)


@pytest.fixture(scope="module")
def steady(process, caller, eventually):
    caller.infer(caller.message("text", s=np.array([[b"a"]], np.object_)))
    return Steady.of_linear(process, caller, eventually, CLASSES, FEATURES)


def field(number, body):
    return length_prefix(number, len(body)) + body


def tensor(datatype, *more):
    return field(5, field(1, b"s") + field(2, datatype) + b"".join(more))


def shape(*sizes):
    return field(3, b"".join(map(encode_varint, sizes)))


def repeated(piece, size):
    return piece * (size // len(piece))


# Each makes about so many bytes of a ModelInferRequest.
PARTS = {
    "empty inputs": lambda size: repeated(b"\x2a\0", size),
    "empty outputs": lambda size: repeated(b"\x32\0", size),
    "empty parameters": lambda size: repeated(b"\x22\0", size),
    "parameters of a tensor": lambda size: field(5, repeated(b"\x22\0", size)),
    "dimensions": lambda size: field(5, field(3, b"\1" * size)),
    "typed text": lambda size: tensor(
        b"BYTES", shape(1, size // 2), field(5, repeated(b"\x42\0", size))
    ),
    "raw text": lambda size: tensor(b"BYTES", shape(1, size // 4)) + field(7, bytes(size)),
    "typed numbers": lambda size: tensor(
        b"INT64", shape(1, size), field(5, field(3, b"\1" * size))
    ),
    "numbers one by one": lambda size: tensor(
        b"INT64", shape(1, size // 2), field(5, repeated(b"\x18\1", size))
    ),
    "raw contents": lambda size: repeated(b"\x3a\0", size),
    "a name": lambda size: field(1, b"n" * size),
    "a name of wide letters": lambda size: field(1, b"n" * size + "\U0001f600".encode()),
    "unknown fields": lambda size: repeated(b"\x7a\0", size),
    "groups": lambda size: repeated(b"\x7b\x7c", size),
    "booleans": lambda size: tensor(b"BOOL", shape(1, size), field(5, field(1, b"\1" * size))),
    "negative numbers": lambda size: tensor(
        b"INT8", shape(1, size // 10), field(5, field(2, repeated(b"\xff" * 9 + b"\1", size)))
    ),
    "floats": lambda size: tensor(
        b"FP32", shape(1, size // 4), field(5, field(6, bytes(size // 4 * 4)))
    ),
    "raw booleans": lambda size: tensor(b"BOOL", shape(1, size)) + field(7, b"\1" * size),
    "named outputs": lambda size: b"".join(
        field(6, field(1, b"%07d" % number)) for number in range(size // 11)
    ),
    "named parameters": lambda size: b"".join(
        field(4, field(1, b"%07d" % number) + field(2, b"\x10\1")) for number in range(size // 15)
    ),
}


def cpu_s(process):
    stat = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def asked(caller, kinds, size, packed):
    """Send a message of such parts; how many bytes it has unpacked."""
    message = field(1, b"text") + b"".join(PARTS[kind](size // len(kinds)) for kind in kinds)
    call = caller.channel.unary_unary(INFER).future(message, compression=packed, timeout=60)
    assert call.code().name in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND")
    return len(message)


def most_cpu_s(length):
    return MOST_CPU_S * max(1, length / (10 * MIB))


MIXES = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3)
PACKED = st.sampled_from([None, grpc.Compression.Gzip, grpc.Compression.Deflate])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(MIXES, st.sampled_from([64 * 1024, MIB, 6 * MIB]), PACKED)
def test_no_mix_of_fields_takes_much_memory_or_time(process, caller, steady, kinds, size, packed):
    before_bytes, before_s = steady._start_of_peak(), cpu_s(process)
    length = asked(caller, kinds, size, packed)
    assert steady._peak_bytes() - before_bytes < BUDGET_BYTES + 4 * length + MIB
    assert cpu_s(process) - before_s < most_cpu_s(length)
    steady._serves()


# With room for all that becomes of them, more of it is made.


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(MIXES, st.sampled_from([64 * 1024, MIB, 10 * MIB, 20 * MIB]), PACKED)
def test_no_mix_of_fields_takes_much_time_where_there_is_room(roomy, kinds, size, packed):
    process, caller = roomy
    before_s = cpu_s(process)
    length = asked(caller, kinds, size, packed)
    assert cpu_s(process) - before_s < most_cpu_s(length)


@pytest.mark.parametrize("kind", PARTS)
def test_no_kind_of_field_takes_much_time_where_there_is_room(roomy, kind):
    process, caller = roomy
    # Of as many texts as there may be, and of as many bytes.
    for size in (2 * MOST_BYTES_ELEMENTS, 10 * MIB):
        before_s = cpu_s(process)
        length = asked(caller, [kind], size, None)
        assert cpu_s(process) - before_s < most_cpu_s(length)


def widest(field_number, size):
    """A text whose last letter makes each of it take four bytes."""
    return field(field_number, b"n" * size + "\U0001f600".encode())


CONTROLS = {
    "a repository's name": ("RepositoryIndex", lambda size: widest(1, size)),
    "a model's name": ("ModelConfig", lambda size: widest(1, size)),
    "a configuration": (
        "RepositoryModelLoad",
        lambda size: field(3, field(1, b"config") + field(2, widest(3, size))),
    ),
    "empty parameters": ("RepositoryModelLoad", lambda size: repeated(b"\x1a\0", size)),
    "named parameters": (
        "RepositoryModelLoad",
        lambda size: b"".join(field(3, field(1, b"%06d" % n)) for n in range(size // 10)),
    ),
    "settings": ("TraceSetting", lambda size: repeated(b"\x0a\0", size)),
    "values of a setting": (
        "TraceSetting",
        lambda size: field(1, field(1, b"k") + field(2, repeated(b"\x0a\0", size))),
    ),
    "unknown fields": ("SystemSharedMemoryRegister", lambda size: repeated(b"\x7a\0", size)),
    "groups": ("LogSettings", lambda size: repeated(b"\x7b\x7c", size)),
    "a region's name": ("SystemSharedMemoryRegister", lambda size: widest(1, size)),
}


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("size", [MIB // 2, 6 * MIB])
def test_no_message_of_a_control_rpc_takes_much(process, caller, steady, kind, size):
    method, make = CONTROLS[kind]
    message = make(size)
    before_bytes, before_s = steady._start_of_peak(), cpu_s(process)
    with pytest.raises(grpc.RpcError) as refused:
        caller.raw(method, message)
    assert refused.value.code().name in REFUSALS
    assert steady._peak_bytes() - before_bytes < BUDGET_BYTES + 4 * len(message) + MIB
    assert cpu_s(process) - before_s < MOST_CPU_S
    steady._serves()


def test_every_kind_is_refused_and_leaves_nothing_behind(caller, steady):
    for make in PARTS.values():
        with pytest.raises(grpc.RpcError):
            caller.infer(field(1, b"text") + make(2 * MIB))
    steady.check()


@pytest.mark.parametrize("datatype", [b"BYTES", b"INT64"])
def test_a_deadline_ends_the_decoding(caller, steady, eventually, datatype):
    # Long enough to take a moment: it is looked at in between.
    elements = MOST_BYTES_ELEMENTS
    contents = field(5, b"\x42\0" * elements) if datatype == b"BYTES" else field(5, b"")
    message = field(1, b"text") + tensor(datatype, shape(1, elements), contents)
    with pytest.raises(grpc.RpcError):
        caller.infer(message, timeout=0.05)
    eventually(steady._serves, "others are served")


@pytest.mark.parametrize("stop_at", [1, 3])
def test_decoding_stops_between_two_steps(stop_at):
    elements = 2**16
    message = field(1, b"m") + tensor(b"BYTES", shape(1, elements), field(5, b"\x42\1a" * elements))
    calls = 0

    def going_on():
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        weigh_request(message, going_on=going_on)
    calls = 0
    with pytest.raises(TimeoutError):
        decode_weighed(weigh_request(message), going_on)
    assert calls == stop_at


def test_what_is_within_the_limits_is_read():
    elements = 1000
    message = field(1, b"m") + tensor(b"BYTES", shape(1, elements), field(5, b"\x42\1a" * elements))
    (read,) = decode_request(message).inputs
    assert read.data.tolist() == [[b"a"] * elements]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (tensor(b"FP32", repeated(b"\x22\0", 4 * MOST_FIELDS)), f"more than {MOST_FIELDS} fields"),
        (repeated(b"\x22\0", 4 * MOST_FIELDS), f"more than {MOST_FIELDS} fields"),
        (
            tensor(b"BYTES", shape(MOST_BYTES_ELEMENTS + 1)),
            f"more than {MOST_BYTES_ELEMENTS} elements",
        ),
    ],
)
def test_more_than_the_limits_is_invalid(message, text):
    with pytest.raises(InvalidMessage, match=text):
        decode_request(message)


def test_others_are_answered_while_large_messages_are_decoded(caller, call, process, steady):
    over = threading.Event()
    bomb = field(1, b"text") + PARTS["typed text"](2 * MIB)

    def attack():
        attacker = call(process.address)
        while not over.is_set():
            with pytest.raises(grpc.RpcError):
                attacker.infer(bomb)

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        began_s = time.monotonic()
        for _ in range(50):
            steady._serves()
        assert time.monotonic() - began_s < 30
    finally:
        over.set()
        thread.join()
