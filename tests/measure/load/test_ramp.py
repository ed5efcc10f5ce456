import itertools

import pytest

from client.errors import UsageError
from measure.load.ramp import INTERVALS, ramp_of


def test_an_even_ramp_has_equal_parts_from_one_end_to_the_other():
    ramp = ramp_of("100:2000:60s", "open")
    stages = ramp.stages
    assert len(stages) == INTERVALS
    assert sum(stage.seconds for stage in stages) == pytest.approx(60)
    assert (stages[0].first, stages[-1].last) == (100, 2000)
    assert all(one.last == other.first for one, other in itertools.pairwise(stages))
    assert ramp.text == "100:2000:60s"


@pytest.mark.parametrize("text", ["100:500:10s:5", "100:500:10:5"])
def test_steps_stay_at_their_levels_both_ends_included(text):
    ramp = ramp_of(text, "open")
    assert [(s.first, s.last, s.seconds) for s in ramp.stages] == [
        (level, level, 2.0) for level in (100, 200, 300, 400, 500)
    ]
    assert ramp.text == "100:500:10s:5"


def test_a_ramp_may_fall():
    assert [stage.mean for stage in ramp_of("9:3:3:3", "open").stages] == [9, 6, 3]


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("1:4:10s", [1, 2, 3, 4]),
        ("4:2:10s", [4, 3, 2]),
        ("1:8:10s:3", [1, 4, 8]),
        ("1:39:10s", list(range(1, 40, 2))),
    ],
)
def test_requests_in_flight_are_whole(text, levels):
    stages = ramp_of(text, "closed").stages
    assert [stage.first for stage in stages] == [stage.last for stage in stages] == levels


@pytest.mark.parametrize(
    ("text", "loop", "wanted"),
    [
        ("100", "open", "expected FROM:TO:SECONDS or FROM:TO:SECONDS:STEPS"),
        ("100:200", "open", "expected FROM:TO:SECONDS"),
        ("1:2:3:4:5", "open", "expected FROM:TO:SECONDS"),
        ("1:2:x", "open", "expected FROM:TO:SECONDS"),
        ("1:2:3m", "open", "expected FROM:TO:SECONDS"),
        ("1:2:30:1.5", "open", "expected FROM:TO:SECONDS"),
        ("0:2:30", "open", "expected levels and seconds over 0"),
        ("1:nan:30", "open", "expected levels and seconds over 0"),
        ("1:2:inf", "open", "expected levels and seconds over 0"),
        ("5:5:30", "open", "expected two different levels"),
        ("1:5:30:1", "open", "with 1 steps, expected at least 2"),
        ("1:5:1s", "open", "20 points are shorter than 0.1 s"),
        ("1:2.5:30", "closed", "expected whole numbers of requests in flight"),
        ("1:4:30:5", "closed", "with 5 steps, expected at most 4"),
    ],
)
def test_what_is_no_ramp_is_refused_with_the_reason(text, loop, wanted):
    with pytest.raises(UsageError) as caught:
        ramp_of(text, loop)
    assert repr(text) in str(caught.value)
    assert wanted in str(caught.value)
