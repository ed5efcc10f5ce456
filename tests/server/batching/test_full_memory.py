"""Shared memory where there is no more: /dev/shm that is full, and regions nobody may write to."""

import contextlib
import fcntl
import os
import subprocess
import sys

import grpc
import numpy as np
import pytest
from conftest import ROOT
from onnx import helper

from client.shared_memory import SharedArray
from protos.codec import InferRequest, RequestedOutput, encode_request
from protos.tensors import Tensor

# A /dev/shm of a MiB, for the server and for the client that runs in it.
ROOM_BYTES = 2**20
SMALL_SHM = (
    *("unshare", "--mount", "sh", "-c"),
    f'mount --make-rprivate / && mount -t tmpfs -o size={ROOM_BYTES} tmpfs /dev/shm && exec "$@"',
    "sh",
)
COLUMNS = 1024
ROW_BYTES = 4 * COLUMNS
CODE = grpc.StatusCode


def works():
    with contextlib.suppress(OSError):
        return not subprocess.run([*SMALL_SHM, "true"], capture_output=True, check=False).returncode
    return False


needs_mounts = pytest.mark.skipif(not works(), reason="no file system can be mounted here")


@pytest.fixture(scope="module")
def models(graphs):
    graphs.add(
        "plus",
        [helper.make_node("Add", ["x", "one"], ["y"])],
        {"x": ("float32", ["batch", COLUMNS])},
        {"y": ("float32", ["batch", COLUMNS])},
        {"one": np.ones(1, np.float32)},
    )
    return graphs.folder


@pytest.fixture(scope="module")
def small(launch_for_module, models):
    """A server that sees a small /dev/shm."""
    return launch_for_module(models, before=SMALL_SHM)


@pytest.fixture
def caller(small, call):
    caller = call(small.address)
    yield caller
    caller.control("SystemSharedMemoryUnregister", name="")
    check(caller)
    assert "Traceback" not in "\n".join(small.said())


def check(caller):
    x = np.ones((2, COLUMNS), np.float32)
    (answer,) = caller.infer(caller.message("plus", x=x)).outputs
    assert np.array_equal(answer.data, x + 1)


def asked(region, rows):
    """A request whose output belongs into a region."""
    x = np.ones((rows, COLUMNS), np.float32)
    placement = {
        "shared_memory_region": region,
        "shared_memory_offset": 0,
        "shared_memory_byte_size": rows * ROW_BYTES,
    }
    return encode_request(
        InferRequest("plus", (Tensor.of("x", x),), (RequestedOutput("y", placement),))
    )


def register(caller, key, byte_size):
    caller.control("SystemSharedMemoryRegister", name="out", key=key, byte_size=byte_size)


def refused(caller, message):
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(message)
    return caught.value.code(), caught.value.details()


@needs_mounts
def test_an_output_for_which_dev_shm_has_no_room_is_resource_exhausted(small, caller):
    # As the server sees it: an object with room for nothing of what it is to hold.
    path = f"/proc/{small.popen.pid}/root/dev/shm/sparse"
    with open(path, "wb") as file:
        file.truncate(4 * ROOM_BYTES)
    try:
        register(caller, "sparse", 4 * ROOM_BYTES)
        rows = 2 * ROOM_BYTES // ROW_BYTES
        code, text = refused(caller, asked("out", rows))
        assert code is CODE.RESOURCE_EXHAUSTED
        assert text == "region 'out' cannot be written: No space left on device"
        caller.infer(asked("out", 1))
    finally:
        os.unlink(path)


def test_an_output_into_memory_that_nobody_may_write_to_is_invalid(serve, models, call):
    caller = call(serve(models).address)
    with SharedArray((4, COLUMNS), np.float32, sealed=True) as out:
        register(caller, out.key, out.byte_size)
        fd = int(out.key.split(":")[2])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0x10)  # F_SEAL_FUTURE_WRITE
        code, text = refused(caller, asked("out", 4))
        assert code is CODE.INVALID_ARGUMENT
        assert text == "region 'out' cannot be written: Operation not permitted"
        check(caller)


def test_sealed_memory_that_cannot_be_mapped_is_refused(serve, models, call):
    caller = call(serve(models).address)
    try:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB
        fd = os.memfd_create("huge", flags)
        os.truncate(fd, 2**40)
    except OSError as error:
        pytest.skip(f"no memory in huge pages here: {error.strerror}")
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with pytest.raises(grpc.RpcError) as caught:
            register(caller, f"memfd:{os.getpid()}:{fd}:huge", 2**40)
        assert caught.value.code() in (CODE.INVALID_ARGUMENT, CODE.RESOURCE_EXHAUSTED)
        check(caller)
    finally:
        os.close(fd)


# The client's own memory.

PROGRAM = """
import sys
import numpy as np
from client import Client
from client.errors import ClientError
from client.shared_memory import SharedArray

x = np.ones((4 * {rows}, {columns}), np.float32)
try:
    SharedArray(x.shape, x.dtype)
except OSError as error:
    print(type(error).__name__, error.strerror)
with Client(sys.argv[1], "plus") as client:
    print(client.infer({{"x": x[:1]}})["y"][0, 0])
import os
print(os.listdir("/dev/shm"))
"""


@needs_mounts
def test_a_client_without_room_gets_an_error_and_leaves_nothing_behind(serve, models):
    server = serve(models)
    program = PROGRAM.format(rows=ROOM_BYTES // ROW_BYTES, columns=COLUMNS)
    done = subprocess.run(
        [*SMALL_SHM, sys.executable, "-c", program, server.address],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["OSError No space left on device", "2.0", "[]"]
