import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.engine.arrivals import ramp_due_times_ns
from measure.engine.pace import Pace
from measure.engine.ramp import Stage, slots

RATES = st.floats(1, 1000)
STAGES = st.lists(st.builds(Stage, RATES, RATES, st.floats(0.1, 10)), min_size=1, max_size=4)


def until(seconds, due_ns):
    """Requests that are due within so many seconds."""
    return list(itertools.takewhile(lambda at_ns: at_ns < seconds * 1e9, due_ns))


@settings(deadline=None, max_examples=50)
@given(stages=STAGES)
def test_as_many_requests_are_due_as_the_rates_add_up_to(stages):
    due_ns = until(sum(stage.seconds for stage in stages), ramp_due_times_ns("constant", stages))
    assert due_ns == sorted(due_ns)
    began_s = wanted = 0.0
    for stage in stages:
        began_s, wanted = began_s + stage.seconds, wanted + stage.requests
        assert sum(at_ns < began_s * 1e9 for at_ns in due_ns) == pytest.approx(wanted, abs=1.01)


def test_an_even_ramp_is_due_at_its_square_roots():
    # 2 t requests a second from the start: t * t within t seconds, but for the first.
    due_ns = ramp_due_times_ns("constant", [Stage(1e-9, 20, 10)])
    found = np.array(until(10, due_ns)[:100]) / 1e9
    assert found == pytest.approx(np.sqrt(np.arange(100)), abs=1e-6)


def test_the_last_rate_goes_on():
    due_ns = until(11, ramp_due_times_ns("constant", [Stage(10, 50, 1)]))
    gaps = np.diff([at_ns for at_ns in due_ns if at_ns > 1.1e9])
    assert gaps == pytest.approx(2e7, abs=2)
    assert len(due_ns) == pytest.approx(30 + 10 * 50, abs=1)


@settings(deadline=None, max_examples=20)
@given(stages=STAGES, parts=st.integers(1, 4))
def test_parts_of_a_ramp_at_constant_gaps_make_the_whole(stages, parts):
    def first(count, part, parts):
        due_ns = ramp_due_times_ns("constant", stages, part=part, parts=parts)
        return list(itertools.islice(due_ns, count))

    together = sorted(at_ns for part in range(parts) for at_ns in first(10, part, parts))
    assert together == first(10 * parts, 0, 1)


@pytest.mark.parametrize("parts", [1, 3])
def test_poisson_arrivals_come_at_the_rates_of_the_ramp(parts):
    stages = [Stage(1000, 3000, 2), Stage(500, 500, 2)]
    due_ns = [
        at_ns
        for part in range(parts)
        for at_ns in until(4, ramp_due_times_ns("poisson", stages, 7, part, parts))
    ]
    counts = np.histogram(np.array(due_ns) / 1e9, [0, 1, 2, 3, 4])[0]
    # Within five standard deviations.
    for count, wanted in zip(counts, (1500, 2500, 500, 500), strict=True):
        assert count == pytest.approx(wanted, abs=5 * wanted**0.5)


def test_slots_begin_and_end_where_the_level_changes():
    stages = [Stage(level, level, 1.0) for level in (2, 5, 1)]
    begin, end = slots(stages, 100)
    assert begin == [100] * 2 + [100 + 10**9] * 3
    assert list(end) == [100 + 2 * 10**9] * 4


@pytest.mark.parametrize("parts", [1, 3])
def test_processes_have_every_level_of_a_closed_ramp_among_them(parts):
    levels = (4, 9, 5)
    stages = tuple(Stage(level, level, 1.0) for level in levels)
    paces = Pace(concurrency=4, stages=stages).among(parts)
    for number, level in enumerate(levels):
        assert sum(pace.stages[number].first for pace in paces) == level
    assert sum(pace.most for pace in paces) == 9
    assert [pace.stages for pace in Pace(rate_per_s=4.0, stages=stages).among(parts)] == (
        [stages] * parts
    )
