"""Triton's perf_analyzer, the binary of its own wheel, against a server of this project."""

import pytest

from measure.peers.environments import NotAvailable
from measure.peers.peer_servers import MODEL
from measure.side_by_side.perf_analyzer import PerfAnalyzer, Target
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 16, 4096
# It measures at least three windows of this length.
WINDOW_MS = 300


@pytest.fixture(scope="module")
def program():
    try:
        return PerfAnalyzer(install=False)
    except NotAvailable as error:
        pytest.skip(f"{error}; `make perf-analyzer` installs it")


@pytest.fixture(scope="module")
def address(program, graphs, launch_for_module):
    export(graphs.folder, MODEL, from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return launch_for_module(graphs.folder, "--log-level", "warning").address


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("shared", [False, True], ids=["messages", "shared memory"])
@pytest.mark.parametrize("options", [(), ("--streaming", "--async")], ids=["unary", "stream"])
def test_it_measures_and_reads_the_stages(program, address, call, options, shared, batch_size):
    caller = call(address)
    before = caller.statistics(MODEL)
    target = Target("service", address, shared)
    # It ended with 0 when it gives a report.
    measured = program.measure(target, batch_size, *options, window_ms=WINDOW_MS)
    after = caller.statistics(MODEL)
    rows_per_s = float(measured["Inferences/Second"])
    assert rows_per_s > 0
    # What it says it sent in its windows, the server has counted.
    assert after.inference_count - before.inference_count >= rows_per_s * 3 * WINDOW_MS / 1000 * 0.5
    assert after.inference_stats.fail.count == before.inference_stats.fail.count
    for stage in ("Queue", "Compute Input", "Compute Infer", "Compute Output"):
        assert float(measured[f"Server {stage}"]) >= 0
    assert float(measured["Server Queue"]) > 0
    assert float(measured["Server Compute Infer"]) > 0
    assert not caller.control("SystemSharedMemoryStatus").regions
