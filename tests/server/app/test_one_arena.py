import itertools
import platform
from pathlib import Path

import numpy as np
import pytest

from model.export import export
from model.weights import from_seed

FEATURES = 16
# glibc maps an arena's heap at a multiple of its size, and opens it from the start on.
HEAP_BYTES = 64 * 2**20


def arenas(pid):
    """Address ranges of heaps beside the process's own."""
    found = []
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    for (used, access, *_), (rest, closed, *_) in itertools.pairwise(lines):
        start, end = (int(part, 16) for part in used.split("-"))
        after, last = (int(part, 16) for part in rest.split("-"))
        whole = end == after and last == start + HEAP_BYTES and start % HEAP_BYTES == 0
        if whole and (access, closed) == ("rw-p", "---p"):
            found.append(used)
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="without glibc there are no arenas")
def test_no_thread_of_the_server_has_an_arena_of_its_own(launch, graphs, call):
    """Memory that is freed there is of no use to other threads, and stays in the process."""
    export(graphs.folder, "linear", from_seed(4, FEATURES, 0), "float32", 0)
    process = launch(graphs.folder, "--metrics-address", "127.0.0.1:0", "--access-log", "on")
    caller = call(process.address)
    assert caller.infer(caller.message("linear", x=np.zeros((1, FEATURES), np.float32)))
    assert arenas(process.popen.pid) == []
