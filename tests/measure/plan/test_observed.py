"""Passes of one load, read as one observation."""

import numpy as np
import pytest

from measure.core.stages import Stages
from measure.engine.slice import Slice
from measure.load.summary import Asked, summarise
from measure.plan.observed import Observation, Trace

MS = 1_000_000
RATE = 500
ASKED = Asked("open", "unary", 1, 1, rate_per_s=float(RATE), arrivals="poisson")


def one_pass(latency_ms, compute_ms, requests=RATE, steal=0.0):
    """A load of three windows, as answers of a known latency make it."""
    windows = []
    for start in range(3):
        window = Slice(start * 10**9, (start + 1) * 10**9, due=requests)
        for _ in range(requests):
            window.answer(latency_ms * MS, latency_ms * MS, 1)
            window.send(1000)
            window.split(Stages(0, 0, 0, compute_ms * MS, 1, "CPUExecutionProvider"))
        window.in_flight_area_ns = window.latency_sum_ns
        windows.append(window)
    return summarise(ASKED, windows, Slice(3, 4), labels_known=True, steal=steal)


def test_passes_are_pooled_by_their_requests():
    passes = (one_pass(10, 2), one_pass(11, 4, requests=2 * RATE))
    traces = (Trace(0, 10**9, 3 * 10**9), Trace(1, 10**9, 3 * 10**9))
    seen = Observation.of(passes, traces)
    assert seen.samples == 9 * RATE
    assert seen.requests_per_s == pytest.approx(1.5 * RATE)
    assert seen.mean_ns == pytest.approx((10 + 2 * 11) / 3 * MS)
    assert seen.compute_ns == pytest.approx((2 + 2 * 4) / 3 * MS)
    # A third took 10 ms, so the median took 11.
    assert seen.p50_ns == pytest.approx(11 * MS, rel=1e-3)
    assert seen.traces == traces


@pytest.mark.parametrize(("second_ms", "unlike"), [(11, False), (12, False), (13, True)])
def test_passes_that_differ_by_more_than_a_fifth_are_told(second_ms, unlike):
    seen = Observation.of((one_pass(10, 2), one_pass(second_ms, 2)))
    told = [doubt for doubt in seen.doubts if doubt.startswith("passes: ")]
    assert told == (["passes: the same load had a p99 of 10 and 13 ms"] if unlike else [])


def test_what_speaks_against_one_pass_speaks_against_the_load():
    sound, disturbed = one_pass(10, 2), one_pass(10, 2, steal=0.5)
    assert "steal: 50.0% of the processor time" in Observation.of((sound, disturbed)).doubts
    assert not Observation.of((sound, sound)).doubts


def test_percentiles_of_many_passes_are_those_of_all_requests():
    latencies_ms = np.arange(5, 25)
    seen = Observation.of([one_pass(int(each), 2, requests=100) for each in latencies_ms])
    for wanted, got in ((50, seen.p50_ns), (90, seen.p90_ns), (99, seen.p99_ns)):
        nearest = np.percentile(latencies_ms, wanted, method="inverted_cdf") * MS
        assert got == pytest.approx(nearest, rel=1e-3)
