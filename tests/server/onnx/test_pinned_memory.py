"""Page-locking, with the kernel's own lock in the place of CUDA's where there is no GPU."""

import logging
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from server.batching.batch_buffer import BatchBuffer
from server.batching.policy import Piece
from server.batching.request import Request
from server.onnx import pinned_memory

# What the CUDA runtime exports; a size of 1 byte is what it refuses here.
RUNTIME = """
#include <sys/mman.h>
int cudaHostRegister(void* at, unsigned long size, unsigned flags) {
    return size == 1 || flags != 1 ? 1 : mlock(at, size);
}
int cudaHostUnregister(void* at) { return munlock(at, SIZE); }
int cudaGetLastError(void) { return 0; }
const char* cudaGetErrorString(int status) { return "invalid argument"; }
"""
FEATURES, ROWS = 1024, 16
SIZE = FEATURES * ROWS * 4
PAGE = 4096


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, such as Debian's gcc")
    source, library = tmp_path / "runtime.c", tmp_path / "libcudart.so"
    source.write_text(RUNTIME)
    command = [compiler, "-shared", "-fPIC", f"-DSIZE={SIZE}", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    monkeypatch.setattr(pinned_memory, "_LIBRARIES", ("libnone.so.1", str(library)))


def locked_bytes():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmLck:\s+(\d+) kB", status)[1]) * 1024


def piece(rows, value):
    x = np.full((rows, FEATURES), value, np.float32)
    request = Request(
        inputs={"x": x},
        outputs=("y",),
        rows=rows,
        size_bytes=x.nbytes,
        arrived_ns=0,
        deadline_ns=None,
        queue_deadline_ns=None,
        more_follows=False,
        key=0,
    )
    return Piece(request, 0, rows)


def test_the_ring_is_locked_once_and_let_go_at_the_end(runtime):
    before = locked_bytes()
    buffer = BatchBuffer(ROWS, pinned=True)
    for value in range(3):
        x = buffer.assemble([piece(1, value), piece(2, value + 10)]).inputs["x"]
        assert x[:, 0].tolist() == [value, value + 10, value + 10]
        # The kernel locks whole pages.
        assert SIZE <= locked_bytes() - before <= SIZE + PAGE
    buffer.close()
    assert locked_bytes() == before


def test_a_ring_that_gets_another_shape_lets_the_old_one_go(runtime):
    before = locked_bytes()
    buffer = BatchBuffer(ROWS, pinned=True)
    buffer.assemble([piece(1, 0), piece(1, 1)])
    other = [piece(1, 0), piece(1, 1)]
    for each in other:
        each.request.inputs["x"] = each.request.inputs["x"].view(np.int32)
    buffer.assemble(other)
    assert SIZE <= locked_bytes() - before <= SIZE + PAGE
    buffer.close()
    assert locked_bytes() == before


def test_a_processor_locks_nothing(runtime):
    before = locked_bytes()
    buffer = BatchBuffer(ROWS)
    buffer.assemble([piece(1, 0), piece(1, 1)])
    assert locked_bytes() == before
    buffer.close()


def test_what_the_runtime_refuses_is_told_in_its_words(runtime):
    with pytest.raises(OSError, match="CUDA: invalid argument"):
        pinned_memory.lock(np.zeros(1, np.uint8))


def test_without_cuda_batches_are_the_same_and_one_line_says_why(monkeypatch, caplog):
    monkeypatch.setattr(pinned_memory, "_LIBRARIES", ("libnone.so.1", "libnone.so.2"))
    buffer = BatchBuffer(ROWS, pinned=True)
    with caplog.at_level(logging.WARNING):
        for value in range(2):
            x = buffer.assemble([piece(1, value), piece(2, 5)]).inputs["x"]
            assert x[:, 0].tolist() == [value, 5, 5]
    buffer.close()
    (record,) = caplog.records
    assert record.reason == "no CUDA runtime: looked for libnone.so.1 and libnone.so.2"
