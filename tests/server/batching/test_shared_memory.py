"""Shared memory belongs to clients, who may do with it what they like at any moment."""

import os
import stat
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import helper

from client.shared_memory import SharedArray
from protos.codec import (
    InferRequest,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    encode_request,
)
from protos.tensors import Tensor

SHM = Path("/dev/shm")
COLUMNS = 512
GROUP_ROWS = 8


@pytest.fixture(scope="module")
def server(graphs, serve):
    graphs.add(
        "plus",
        [helper.make_node("Add", ["x", "one"], ["y"])],
        {"x": ("float32", ["batch", COLUMNS])},
        {"y": ("float32", ["batch", COLUMNS])},
        {"one": np.ones(1, np.float32)},
    )
    graphs.add(
        "whole",
        [helper.make_node("Add", ["x", "one"], ["y"])],
        {"x": ("float32", [4])},
        {"y": ("float32", [4])},
        {"one": np.ones(1, np.float32)},
    )
    graphs.add(
        "echo",
        [helper.make_node("Identity", ["s"], ["t"])],
        {"s": ("string", ["batch", 2])},
        {"t": ("string", ["batch", 2])},
    )
    return serve(graphs.folder, group_rows=GROUP_ROWS)


@pytest.fixture
def caller(server, call):
    caller = call(server.address)
    yield caller
    caller.control("SystemSharedMemoryUnregister", name="")
    # Whatever a test did, the same server answers exactly.
    canary = np.arange(COLUMNS, dtype=np.float32)[np.newaxis]
    answer = caller.infer(caller.message("plus", x=canary))
    assert np.array_equal(answer.outputs[0].data, canary + 1)
    assert caller.health() == "SERVING"


@pytest.fixture
def rows():
    """Distinguishable rows in shared memory, more than one batch of them."""
    with SharedArray((3 * GROUP_ROWS + 1, COLUMNS), np.float32) as shared:
        shared.array[...] = np.arange(shared.array.size).reshape(shared.array.shape)
        yield shared


def register(caller, key, byte_size, name=None, offset=0):
    caller.control(
        "SystemSharedMemoryRegister", name=name or key, key=key, offset=offset, byte_size=byte_size
    )


def placed(name, shape, region, offset=0, byte_size=None, datatype="FP32"):
    parameters = {
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": int(np.prod(shape)) * 4 if byte_size is None else byte_size,
    }
    return Tensor(name, datatype, tuple(shape), None, parameters)


def message(model, *tensors, outputs=()):
    return encode_request(InferRequest(model, tensors, outputs))


def status_of(caught):
    return caught.value.code().name


def test_rows_in_shared_memory_are_predicted_like_any_other(caller, rows):
    register(caller, rows.key, rows.byte_size)
    for start, stop in [(0, 1), (3, 11), (0, len(rows.array))]:
        answer = caller.infer(message("plus", rows.rows("x", start, stop)))
        assert np.array_equal(answer.outputs[0].data, rows.array[start:stop] + 1)


def test_rows_in_shared_memory_share_batches_with_rows_in_messages(caller, rows):
    register(caller, rows.key, rows.byte_size)
    messages = []
    for start in range(24):
        if start % 2:
            messages.append(caller.message("plus", x=rows.array[start : start + 1]))
        else:
            messages.append(message("plus", rows.rows("x", start, start + 1)))
    answers = caller.stream(messages)
    got = np.concatenate([answer.outputs[0].data for _, answer in answers])
    assert np.array_equal(got, rows.array[:24] + 1)


def test_an_output_is_written_where_the_client_wants_it(caller, rows):
    with SharedArray((4, COLUMNS), np.float32) as out:
        register(caller, rows.key, rows.byte_size)
        register(caller, out.key, out.byte_size, name="out")
        wanted = RequestedOutput(
            "y",
            {
                "shared_memory_region": "out",
                "shared_memory_offset": COLUMNS * 4,
                "shared_memory_byte_size": 3 * COLUMNS * 4,
            },
        )
        data = caller.raw("ModelInfer", message("plus", rows.rows("x", 5, 8), outputs=(wanted,)))
        (tensor,) = decode_response(data).outputs
        assert tensor.data is None
        assert tensor.shape == (3, COLUMNS)
        assert tensor.parameters["shared_memory_region"] == "out"
        assert np.array_equal(out.array[1:], rows.array[5:8] + 1)
        assert not out.array[0].any()


def test_an_output_larger_than_its_place_is_invalid(caller, rows):
    with SharedArray((1, COLUMNS), np.float32) as out:
        register(caller, out.key, out.byte_size, name="out")
        wanted = RequestedOutput(
            "y", {"shared_memory_region": "out", "shared_memory_byte_size": COLUMNS * 4}
        )
        x = Tensor.of("x", rows.array[:2])
        with pytest.raises(grpc.RpcError, match="set aside") as caught:
            caller.infer(message("plus", x, outputs=(wanted,)))
        assert status_of(caught) == "INVALID_ARGUMENT"


def test_a_model_without_batch_axis_reads_shared_memory(caller):
    with SharedArray((4,), np.float32) as shared:
        shared.array[...] = [1, 2, 3, 4]
        register(caller, shared.key, 16)
        answer = caller.infer(message("whole", placed("x", [4], shared.key)))
        assert answer.outputs[0].data.tolist() == [2, 3, 4, 5]


def test_strings_are_read_from_shared_memory(caller):
    encoded = b"".join(len(s).to_bytes(4, "little") + s for s in (b"one", b"", b"two", b"x" * 9))
    with SharedArray((len(encoded),), np.uint8) as shared:
        shared.array[...] = np.frombuffer(encoded, np.uint8)
        register(caller, shared.key, len(encoded))
        tensor = placed("s", [2, 2], shared.key, byte_size=len(encoded), datatype="BYTES")
        answer = caller.infer(message("echo", tensor))
        assert answer.outputs[0].data.tolist() == [[b"one", b""], [b"two", b"x" * 9]]


def test_status_names_what_is_registered(caller, rows):
    register(caller, rows.key, 64, name="a", offset=128)
    regions = caller.control("SystemSharedMemoryStatus", name="").regions
    assert set(regions) == {"a"}
    assert (regions["a"].key, regions["a"].offset, regions["a"].byte_size) == (rows.key, 128, 64)
    assert set(caller.control("SystemSharedMemoryStatus", name="a").regions) == {"a"}


def test_status_of_an_unknown_region_is_not_found(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("SystemSharedMemoryStatus", name="nobody")
    assert status_of(caught) == "NOT_FOUND"


def test_a_name_is_registered_once(caller, rows):
    register(caller, rows.key, 64, name="a")
    with pytest.raises(grpc.RpcError) as caught:
        register(caller, rows.key, 64, name="a")
    assert status_of(caught) == "ALREADY_EXISTS"


def test_an_unregistered_region_is_not_found(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(message("plus", placed("x", [1, COLUMNS], "nobody")))
    assert status_of(caught) == "NOT_FOUND"


def test_unregistering_an_unknown_region_is_fine(caller):
    caller.control("SystemSharedMemoryUnregister", name="nobody")


@pytest.mark.parametrize("key", ["", "/", "..", "a/b", "../etc", "//a", "a\0b", "x" * 300, "a b"])
def test_a_malformed_key_is_invalid(caller, key):
    with pytest.raises(grpc.RpcError) as caught:
        register(caller, key, 64, name="a")
    assert status_of(caught) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(0, 2**40), (2**40, 16), (2**63, 16), (2**64 - 8, 16), (0, 2**64 - 1), (0, 0)],
)
def test_a_region_beyond_its_object_is_invalid(caller, rows, offset, byte_size):
    with pytest.raises(grpc.RpcError) as caught:
        register(caller, rows.key, byte_size, offset=offset)
    assert status_of(caught) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(-4, COLUMNS * 4), (2**62, COLUMNS * 4), (0, COLUMNS * 4 - 4), (0, -1), (COLUMNS * 4, None)],
)
def test_a_use_beyond_the_region_is_invalid(caller, rows, offset, byte_size):
    register(caller, rows.key, COLUMNS * 4)
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(message("plus", placed("x", [1, COLUMNS], rows.key, offset, byte_size)))
    assert status_of(caught) == "INVALID_ARGUMENT"


def test_a_size_of_another_type_is_invalid(caller, rows):
    register(caller, rows.key, rows.byte_size)
    tensor = Tensor(
        "x",
        "FP32",
        (1, COLUMNS),
        None,
        {"shared_memory_region": rows.key, "shared_memory_byte_size": "many"},
    )
    with pytest.raises(grpc.RpcError, match="as integers") as caught:
        caller.infer(message("plus", tensor))
    assert status_of(caught) == "INVALID_ARGUMENT"


def make_fifo(path):
    os.mkfifo(path)


def make_symlink(path):
    path.symlink_to("/etc/passwd")


def make_folder(path):
    path.mkdir()


def make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can make a device")


@pytest.mark.parametrize("make", [make_fifo, make_symlink, make_folder, make_device])
def test_what_is_no_shared_memory_is_refused_at_once(caller, make):
    path = SHM / f"argmax-odd-{os.getpid()}"
    make(path)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            register(caller, path.name, 16)
        assert status_of(caught) in ("INVALID_ARGUMENT", "PERMISSION_DENIED")
        assert str(SHM) not in caught.value.details()
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_memory_of_somebody_else_is_refused(caller):
    path = SHM / f"argmax-other-{os.getpid()}"
    path.write_bytes(bytes(64))
    os.chown(path, 12345, 12345)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            register(caller, path.name, 64)
        assert status_of(caught) == "PERMISSION_DENIED"
    finally:
        path.unlink()


def test_a_key_without_the_prefix_is_refused_be_there_such_an_object_or_not(
    server, serve, call, graphs, rows
):
    prefixed = call(serve(graphs.folder, shared_memory_prefix=rows.key[:-1]).address)
    register(prefixed, rows.key, rows.byte_size)
    register(prefixed, f"/{rows.key}", rows.byte_size, name="again")
    other = f"other-{rows.key}"
    (SHM / other).write_bytes(bytes(64))
    texts = set()
    try:
        for key in (other, f"{other}-absent", f"../{rows.key}"):
            with pytest.raises(grpc.RpcError) as caught:
                register(prefixed, key, 64, name="x")
            assert status_of(caught) == "PERMISSION_DENIED"
            texts.add(caught.value.details())
    finally:
        (SHM / other).unlink()
    assert len(texts) == 1


def test_an_output_into_a_region_that_became_shorter_is_invalid(caller, rows):
    with SharedArray((2, COLUMNS), np.float32) as out:
        register(caller, out.key, out.byte_size, name="out")
        os.truncate(SHM / out.key, COLUMNS * 4)
        place = {"shared_memory_region": "out", "shared_memory_byte_size": 2 * COLUMNS * 4}
        x = Tensor.of("x", rows.array[:2])
        with pytest.raises(grpc.RpcError, match="has been truncated") as caught:
            caller.infer(message("plus", x, outputs=(RequestedOutput("y", place),)))
        assert status_of(caught) == "INVALID_ARGUMENT"
        assert (SHM / out.key).stat().st_size == COLUMNS * 4
        os.truncate(SHM / out.key, out.byte_size)


def test_a_region_truncated_while_in_use_fails_its_requests_only(caller, server, call, rows):
    """Truncate and restore in a loop under load; a mapping would have killed the process."""
    register(caller, rows.key, rows.byte_size)
    path = SHM / rows.key
    stop = threading.Event()

    def truncate():
        while not stop.is_set():
            os.truncate(path, 0)
            with path.open("r+b") as file:
                file.write(content)

    content = rows.array.tobytes()
    expected = rows.array + 1
    truncator = threading.Thread(target=truncate)
    truncator.start()
    outcomes = {"right": 0, "INVALID_ARGUMENT": 0}
    whole = message("plus", rows.rows("x", 0, len(expected)))
    honest = caller.message("plus", x=expected[:1])
    try:
        while min(outcomes.values()) < 20:
            try:
                answer = caller.infer(whole)
            except grpc.RpcError as error:
                outcomes[error.code().name] += 1
            else:
                # A row is old, new or zero, as the client wrote it; the count always fits.
                outcomes["right"] += answer.outputs[0].data.shape == expected.shape
            # A neighbour whose rows travel in the message is never disturbed.
            error_text, answer = decode_stream_response(next(caller.open_stream(iter([honest]))))
            assert not error_text
            assert np.array_equal(answer.outputs[0].data, expected[:1] + 1)
    finally:
        stop.set()
        truncator.join()


def test_a_region_unlinked_or_unregistered_while_in_use_still_answers(caller, rows):
    register(caller, rows.key, rows.byte_size)
    (SHM / rows.key).unlink()
    answer = caller.infer(message("plus", rows.rows("x", 0, 2)))
    assert np.array_equal(answer.outputs[0].data, rows.array[:2] + 1)


def test_descriptors_are_given_back(caller, rows):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        register(caller, rows.key, rows.byte_size)
        caller.control("SystemSharedMemoryUnregister", name=rows.key)
    for _ in range(50):
        with pytest.raises(grpc.RpcError):
            register(caller, rows.key, 2**40)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_name_that_is_very_long_is_invalid(caller, rows):
    register(caller, rows.key, 64, name="n" * 1024)
    with pytest.raises(grpc.RpcError, match="has 1025 characters") as caught:
        register(caller, rows.key, 64, name="n" * 1025)
    assert status_of(caught) == "INVALID_ARGUMENT"


def test_registrations_are_bounded(caller, rows):
    def register_many():
        for index in range(1000):
            register(caller, rows.key, 64, name=f"r{index}")

    with pytest.raises(grpc.RpcError) as caught:
        register_many()
    assert status_of(caught) == "RESOURCE_EXHAUSTED"


def test_shared_memory_that_is_off_is_unimplemented(graphs, serve, call, server):
    closed = call(serve(graphs.folder, shared_memory=False).address)
    for attempt in (
        lambda: register(closed, "some", 64),
        lambda: closed.control("SystemSharedMemoryStatus", name=""),
        lambda: closed.infer(message("plus", placed("x", [1, COLUMNS], "some"))),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            attempt()
        assert status_of(caught) == "UNIMPLEMENTED"
