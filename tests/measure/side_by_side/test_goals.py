from types import SimpleNamespace

import numpy as np
import pytest

from client.errors import RequestFailed
from measure.core.verdict import Standing, lines
from measure.core.verification import Experiment, truth
from measure.peers.systems import Turn, turn_starts
from measure.side_by_side.goals import (
    Measured,
    all_goals,
    batching_gain,
    one_example,
    peak_memory,
    perf_analyzer_against_triton,
    shared_memory,
    small_requests,
    unary_share,
)
from measure.side_by_side.parts import small_requests as small_requests_part
from measure.side_by_side.parts.concurrency import Concurrency
from measure.side_by_side.parts.memory import Memory
from measure.side_by_side.parts.small_requests import SmallRequests, compare_small_requests
from measure.side_by_side.rounds import Cell, measure
from measure.side_by_side.service import Settings

RATES = {
    "local": 1000.0,
    "raw_tcp": 800.0,
    "unary": 400.0,
    "stream": 750.0,
    "shm": 950.0,
    "triton": 40.0,
    "triton_shm": 290.0,
    "service_perf": 700.0,
    "triton_perf": 400.0,
}
SIZES = (1, 4, 16, 64, 256, 1024)


def cell(system, batch_size, rate=None, **fields):
    rates = [(rate or RATES[system]) * factor for factor in (0.99, 1.0, 1.01)]
    latencies = [1e9 * batch_size / value for value in rates]
    return Cell(system, batch_size, rates, latencies, [0.03] * 3, **fields)


def measured(**changes):
    cells = [cell(system, size) for system in RATES for size in SIZES]
    return Measured(**({"cells": cells} | changes))


def verdicts(told):
    return {goal.name: goal.verdict for goal in all_goals(told)}


def test_goals_are_read_off_the_cells():
    found = verdicts(measured())
    for name in (
        "stream share of the raw socket",
        "perf_analyzer against Triton",
        "stream against Triton",
        "shared memory",
        "first prediction of a stream",
    ):
        assert found[name] == Standing.REACHED, name
    assert found["latency of one example"] == Standing.MISSED  # 2.5 times the latency
    for name in ("gain from batching", "gain from a narrow wire", "peak memory of a stream"):
        assert found[name] == Standing.NOT_MEASURED, name


def test_without_anything_measured_no_goal_is_reached():
    assert set(verdicts(Measured([])).values()) == {Standing.NOT_MEASURED}


def test_one_part_that_misses_is_enough():
    told = measured()
    cells = [c for c in told.cells if (c.system, c.batch_size) != ("shm", 256)]
    goal = shared_memory(Measured([*cells, cell("shm", 256, rate=899)]))
    assert goal.verdict == Standing.MISSED
    missed = [part.what for part in goal.parts if not part.reached]
    assert missed == ["shm / local, n=256"]


def test_what_is_missing_is_named_beside_what_is_reached():
    cells = [c for c in measured().cells if c.system != "triton_shm"]
    goal = shared_memory(Measured(cells))
    assert goal.verdict == Standing.REACHED
    assert goal.missing == tuple(f"shm / triton_shm, n={n}" for n in (16, 64, 256, 1024))
    assert "not measured: shm / triton_shm, n=16" in "\n".join(lines(goal))


def test_a_cell_that_failed_counts_as_not_measured():
    cells = [cell("unary", 1, error="RESOURCE_EXHAUSTED: too large"), cell("local", 1)]
    assert one_example(Measured(cells)).verdict == Standing.NOT_MEASURED


def test_an_interval_across_the_threshold_is_said():
    cells = [
        Cell("unary", 1, [1.0] * 3, [1.5, 1.7, 1.9]),
        Cell("local", 1, [1.0] * 3, [1.0, 1.0, 1.0]),
    ]
    goal = one_example(Measured(cells))
    assert goal.verdict == Standing.MISSED
    assert "too close to be sure" in "\n".join(lines(goal))


def test_batching_is_told_with_the_reasons_why_batches_closed():
    told = Concurrency(16, [300, 310], [100, 100], 0, 7.5, {"batch_closed_idle": 1234})
    goal = batching_gain(Measured([], concurrency=told))
    assert goal.verdict == Standing.REACHED
    assert "batch_closed_idle 1,234" in goal.notes[0]


@pytest.mark.parametrize(("peak", "verdict"), [(319, Standing.REACHED), (321, Standing.MISSED)])
def test_peak_memory_may_be_the_weights_and_256_mib(peak, verdict):
    told = Memory(1024, 64, 150, [300, peak, 300], [200, 201, 203.5], 0)
    goal = peak_memory(Measured([], memory=told))
    assert goal.verdict == verdict
    assert "+3.5 MiB" in goal.notes[0]


def test_one_example_needs_less_of_a_lead_over_triton_than_many():
    told = measured(cells=[cell("triton_perf", 1), cell("service_perf", 1, rate=500)])
    assert perf_analyzer_against_triton(told).verdict == Standing.REACHED
    told = measured(cells=[cell("triton_perf", 4), cell("service_perf", 4, rate=500)])
    assert perf_analyzer_against_triton(told).verdict == Standing.MISSED


@pytest.mark.parametrize(("rate", "verdict"), [(601, Standing.REACHED), (599, Standing.MISSED)])
def test_one_large_request_is_held_against_the_stream(rate, verdict):
    told = measured(cells=[cell("stream", 1024), cell("unary", 1024, rate=rate)])
    assert unary_share(told).verdict == verdict


@pytest.mark.parametrize(("us", "verdict"), [(249, Standing.REACHED), (251, Standing.MISSED)])
def test_small_requests_have_a_budget_of_processor_time(us, verdict):
    told = SmallRequests({16: [100.0] * 3, 64: [us] * 3}, skipped="no Triton here")
    goal = small_requests(Measured([], small_requests=told))
    assert goal.verdict == verdict
    assert goal.missing == tuple(
        f"service_perf / triton_perf, {count} in flight" for count in (16, 64)
    )
    assert "no Triton here" in "\n".join(lines(goal))


@pytest.mark.parametrize(("rate", "verdict"), [(101, Standing.REACHED), (99, Standing.MISSED)])
def test_small_requests_are_held_against_triton(rate, verdict):
    cheap = {16: [100.0] * 3, 64: [100.0] * 3}
    told = SmallRequests(cheap, {16: [100.0], 64: [rate]}, {16: [100.0], 64: [100.0]})
    assert small_requests(Measured([], small_requests=told)).verdict == verdict


def test_of_small_requests_those_of_perf_analyzer_count():
    told = SmallRequests({16: [400.0]}, perf_us={16: [200.0]})
    goal = small_requests(Measured([], small_requests=told))
    assert [part.ratio.median for part in goal.parts] == [200 / 250]
    assert "perf_analyzer" in goal.parts[0].what
    assert goal.notes == ("requests of this client, in flight: 400 us at 16",)


def test_small_requests_are_measured_on_a_real_server(tmp_path, monkeypatch):
    monkeypatch.setattr(small_requests_part, "_WARM_UP_S", 0.1)
    monkeypatch.setattr(small_requests_part, "_SECONDS", 0.3)
    settings = Settings(Experiment(64, 1024, "float32", 0, 64), (16,), 1, 1, (), 1, tmp_path)
    told = compare_small_requests(settings, lambda _: None)
    assert all(0 < us < 1e6 for values in told.server_us.values() for us in values)
    assert set(told.server_us) == {16, 64}
    assert told.triton_perf == {}


# Rounds.


class Stub:
    kind = "peer"

    def __init__(self, name, labels, fail_on=None):
        self.name = name
        self.turns = 0
        self._labels = labels
        self._fail_on = fail_on

    def turn(self, rows, starts):
        self.turns += 1
        if self.turns == self._fail_on:
            raise RequestFailed("RESOURCE_EXHAUSTED", "too large")
        labels = np.stack([self._labels[start : start + rows] for start in starts])
        return Turn((1_000_000,) * len(starts), (500_000,) * len(starts), labels)


@pytest.fixture(scope="module")
def expected():
    return truth(Experiment(4, 32, "float32", 0, 64))


def test_every_system_has_a_value_each_round(expected):
    systems = [Stub("a", expected.expected.labels), Stub("b", expected.expected.labels)]
    for found in measure(systems, 16, 5, expected, lambda _: None):
        assert found.rows_per_s == pytest.approx([16_000] * 5)
        assert found.first_share == [0.5] * 5
        assert found.error is None
        assert found.wrong_labels == 0
        assert found.labels == 6 * 64


def test_wrong_labels_mark_a_system(expected):
    wrong = (expected.expected.labels + 1) % 4
    (found,) = measure([Stub("a", wrong)], 32, 1, expected, lambda _: None)
    assert found.wrong_labels > 100


def test_a_refusal_leaves_a_system_out(expected):
    refusing = Stub("a", expected.expected.labels, fail_on=1)
    (found,) = measure([refusing], 16, 5, expected, lambda _: None)
    assert found.error == "RESOURCE_EXHAUSTED: too large"
    assert found.rows_per_s == []
    assert refusing.turns == 1


def test_a_later_failure_keeps_what_there_is(expected):
    failing = Stub("a", expected.expected.labels, fail_on=4)
    (found,) = measure([failing], 16, 5, expected, lambda _: None)
    assert len(found.rows_per_s) == 2
    assert found.error == "RESOURCE_EXHAUSTED: too large"
    assert failing.turns == 4


def test_a_peer_that_memory_cannot_hold_is_not_tried(expected, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    peer, service = Stub("a", expected.expected.labels), Stub("b", expected.expected.labels)
    service.kind = "service"
    left_out, measured = measure([peer, service], 16, 1, expected, lambda _: None)
    assert "memory" in left_out.error
    assert peer.turns == 0
    assert measured.error is None


@pytest.mark.parametrize("rows", [1, 3, 16, 64, 256, 1024])
def test_turns_stay_within_the_examples_and_reach_all_of_them(rows):
    starts = [start for number in range(64) for start in turn_starts(rows, 1024, number)]
    assert max(starts) + rows <= 1024
    assert set(starts) == set(range(0, 1024 // rows * rows, rows))
