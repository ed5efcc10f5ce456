"""Sealed memory is mapped: the answers are those of any other memory, whatever its owner does."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from onnx import helper

from client.client import Client
from client.shared_memory import SharedArray
from protos.codec import InferRequest, RequestedOutput, encode_request
from protos.tensors import Tensor
from server.batching.shared_memory import Regions

COLUMNS = 1024
GROUP_ROWS = 8
ROWS = 3 * GROUP_ROWS + 1
PREFIX = "argmax-"


@pytest.fixture(scope="module")
def folder(graphs):
    graphs.add(
        "plus",
        [helper.make_node("Add", ["x", "one"], ["y"])],
        {"x": ("float32", ["batch", COLUMNS])},
        {"y": ("float32", ["batch", COLUMNS])},
        {"one": np.ones(1, np.float32)},
    )
    graphs.add(
        "pick",
        [helper.make_node("Gather", ["table", "i"], ["v"], axis=0)],
        {"i": ("int64", ["batch"])},
        {"v": ("float32", ["batch"])},
        {"table": np.arange(10, dtype=np.float32)},
    )
    return graphs.folder


@pytest.fixture(scope="module")
def server(folder, launch_for_module):
    return launch_for_module(folder, "--group-rows", GROUP_ROWS)


@pytest.fixture
def caller(server, call):
    return call(server.address)


@pytest.fixture
def rows():
    with SharedArray((ROWS, COLUMNS), np.float32, sealed=True) as shared:
        shared.array[...] = np.arange(shared.array.size).reshape(shared.array.shape)
        yield shared


def register(caller, key, byte_size, name="region"):
    caller.control("SystemSharedMemoryUnregister", name="region")
    caller.control("SystemSharedMemoryRegister", name=name, key=key, byte_size=byte_size)


def plus(caller, shared, start, stop):
    tensor = shared.rows("x", start, stop)
    parameters = {**tensor.parameters, "shared_memory_region": "region"}
    tensor = Tensor("x", tensor.datatype, tensor.shape, None, parameters)
    return caller.infer(encode_request(InferRequest("plus", (tensor,)))).outputs[0].data


def test_rows_are_predicted_like_any_other(caller, rows):
    register(caller, rows.key, rows.byte_size)
    for start, stop in [(0, 1), (3, 11), (0, ROWS)]:
        assert np.array_equal(plus(caller, rows, start, stop), rows.array[start:stop] + 1)


def test_rows_that_were_written_anew_are_those_predicted(caller, rows):
    register(caller, rows.key, rows.byte_size)
    for value in range(5):
        rows.array[...] = value
        assert np.all(plus(caller, rows, 0, ROWS) == value + 1)


def test_sealed_rows_are_not_copied(rows):
    regions = Regions(enabled=True)
    regions.register("region", rows.key, 0, rows.byte_size)
    place = {"shared_memory_region": "region", "shared_memory_byte_size": rows.byte_size}
    seen = regions.tensor("input", place, rows.array.shape, rows.array.dtype)
    rows.array[-1, -1] = -5
    assert seen[-1, -1] == -5
    assert not seen.flags.writeable


def test_an_output_is_written_into_sealed_memory(caller, rows):
    with SharedArray((2, COLUMNS), np.float32, sealed=True) as out:
        register(caller, out.key, out.byte_size)
        place = {"shared_memory_region": "region", "shared_memory_byte_size": out.byte_size}
        x = Tensor.of("x", rows.array[:2])
        caller.infer(encode_request(InferRequest("plus", (x,), (RequestedOutput("y", place),))))
        assert np.array_equal(out.array, rows.array[:2] + 1)


def test_indices_are_copied_before_they_are_checked(caller):
    """What a model checks must not change before it is used."""
    stop = threading.Event()
    with SharedArray((GROUP_ROWS,), np.int64, sealed=True) as shared:
        register(caller, shared.key, shared.byte_size)

        def spoil():
            while not stop.is_set():
                shared.array[...] = 2**40
                shared.array[...] = 3

        thread = threading.Thread(target=spoil)
        thread.start()
        try:
            for _ in range(200):
                tensor = Tensor(
                    "i",
                    "INT64",
                    (GROUP_ROWS,),
                    None,
                    {"shared_memory_region": "region", "shared_memory_byte_size": 8 * GROUP_ROWS},
                )
                # Either all was read before an index was spoiled, or the model rejects it.
                with contextlib.suppress(grpc.RpcError):
                    answer = caller.infer(encode_request(InferRequest("pick", (tensor,))))
                    assert np.all(answer.outputs[0].data == 3)
        finally:
            stop.set()
            thread.join(20)
    assert caller.health() == "SERVING"


def test_memory_cannot_be_taken_away_under_the_server(caller, rows):
    register(caller, rows.key, rows.byte_size)
    fd = int(rows.key.split(":")[2])
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    # The pages of a hole read as zeros.
    punched = subprocess.run(
        [
            "fallocate",
            "--punch-hole",
            "--offset",
            "0",
            "--length",
            str(rows.byte_size),
            f"/proc/{os.getpid()}/fd/{fd}",
        ],
        check=False,
    )
    assert punched.returncode == 0
    assert np.all(plus(caller, rows, 0, ROWS) == 1)


def test_memory_of_a_client_that_was_killed_is_still_there(caller, server):
    program = f"""
import sys
import numpy as np
from client.shared_memory import SharedArray
shared = SharedArray(({ROWS}, {COLUMNS}), np.float32, sealed=True)
shared.array[...] = 7
print(shared.key, flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    key = child.stdout.readline().strip()
    register(caller, key, ROWS * COLUMNS * 4)
    child.kill()
    child.communicate()
    place = {"shared_memory_region": "region", "shared_memory_byte_size": ROWS * COLUMNS * 4}
    tensor = Tensor("x", "FP32", (ROWS, COLUMNS), None, place)
    answer = caller.infer(encode_request(InferRequest("plus", (tensor,))))
    assert np.all(answer.outputs[0].data == 8)


def unsealed(name="argmax-unsealed", seals=0):
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.posix_fallocate(fd, 0, 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("memfd:1", "must be memfd:PID:FD:NAME"),
        ("memfd:{pid}:{fd}:argmax-other", "no sealed memory with that key"),
        ("memfd:{pid}:9999:argmax-unsealed", "no sealed memory with that key"),
        ("memfd:4000000000:3:argmax-unsealed", "no sealed memory with that key"),
        ("memfd:{pid}:{fd}:argmax-unsealed", "expected F_SEAL_SHRINK"),
        ("memfd:{pid}:{fifo}:argmax-unsealed", "no sealed memory with that key"),
    ],
)
def test_what_is_not_sealed_is_refused(caller, key, text):
    fd = unsealed(seals=fcntl.F_SEAL_GROW)
    fifo, writer = os.pipe()
    try:
        with pytest.raises(grpc.RpcError, match=text) as caught:
            register(caller, key.format(pid=os.getpid(), fd=fd, fifo=fifo), 4096)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        for each in (fd, fifo, writer):
            os.close(each)


def test_a_region_beyond_its_memory_is_invalid(caller, rows):
    with pytest.raises(grpc.RpcError, match="smaller"):
        register(caller, rows.key, rows.byte_size + 1)


def test_the_prefix_of_the_server_is_that_of_the_memorys_name(
    folder, launch_for_module, call, rows
):
    server = launch_for_module(folder, "--shared-memory-prefix", "tenant-")
    caller = call(server.address)
    with pytest.raises(grpc.RpcError, match="without the prefix") as caught:
        register(caller, rows.key, rows.byte_size)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    fd = unsealed("tenant-1", fcntl.F_SEAL_SHRINK)
    register(caller, f"memfd:{os.getpid()}:{fd}:tenant-1", 4096)
    os.close(fd)


def test_the_client_uses_sealed_memory_where_the_server_takes_it(server, folder, launch_for_module):
    x = np.ones((ROWS, COLUMNS), np.float32)
    with Client(server.address, "plus") as client, client.shared(x) as shared:
        assert shared.key.startswith("memfd:")
        answer = client.infer_tensors([shared.rows("x", 0, ROWS)])
        assert np.all(answer["y"] == 2)
    other = launch_for_module(folder, "--shared-memory-prefix", "argmax-1-none")
    with (
        Client(other.address, "plus") as client,
        pytest.raises(Exception, match="without the prefix"),
        client.shared(x),
    ):
        pass


def test_mappings_and_descriptors_are_given_back(server, caller, eventually):
    process = psutil.Process(server.popen.pid)

    def held():
        return process.num_fds(), sum(
            "memfd" in each.path for each in process.memory_maps(grouped=False)
        )

    caller.health()
    before = held()
    for _ in range(20):
        with SharedArray((ROWS, COLUMNS), np.float32, sealed=True) as shared:
            shared.array[...] = 1
            register(caller, shared.key, shared.byte_size)
            plus(caller, shared, 0, ROWS)
            caller.control("SystemSharedMemoryUnregister", name="region")
    eventually(lambda: held() == before, "all is given back")
    assert not list(Path("/dev/shm").glob(f"{PREFIX}{os.getpid()}-*"))
