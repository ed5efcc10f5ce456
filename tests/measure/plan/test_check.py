from dataclasses import replace

import pytest
from plan_calibrations import MS, alone

from measure.plan.check import MOST_ERROR, Checked, trusted
from measure.plan.fit import Predicted


def checked(rate_per_s, error, **changes):
    """A load of which the p99 is predicted with an error, as a share of the measured one."""
    load = replace(alone(1), rate_per_s=rate_per_s, p99_ns=100 * MS, **changes)
    return Checked(load, Predicted(1 * MS, 2 * MS, 100 * MS * (1 + error), 1.0))


@pytest.mark.parametrize(
    ("error", "holds"), [(0.0, True), (0.19, True), (-0.19, True), (0.21, False), (-0.21, False)]
)
def test_a_prediction_holds_within_a_fifth(error, holds):
    one = checked(100, error)
    assert MOST_ERROR == 0.2
    assert one.p99_error == pytest.approx(error)
    assert one.holds is holds


def test_a_verdict_says_what_speaks_against_the_point():
    assert checked(100, 0.1).verdict == "holds"
    assert checked(100, 0.5).verdict == "off by more than 20% (the point itself is valid)"
    doubtful = checked(100, 0.5, doubts=("steal: 5% of the processor time", "stable: no"))
    assert "(steal: 5% of the processor time; stable: no)" in doubtful.verdict


def test_without_a_measured_p99_nothing_holds():
    load = replace(alone(1), rate_per_s=100.0, p99_ns=None, samples=400)
    one = Checked(load, Predicted(1, 2, 3, 1.0))
    assert (one.p99_error, one.holds) == (None, False)
    assert one.verdict == "no p99 of 400 samples"


def test_a_load_with_requests_that_failed_holds_nothing():
    one = checked(100, 0.0, errors=3)
    assert one.holds is False
    assert one.verdict == "3 requests failed"


def test_rates_are_trusted_up_to_the_last_before_one_fails():
    assert trusted([checked(100, 0.1), checked(200, 0.1)]).most_per_s == 200
    assert trusted([checked(100, 0.1), checked(200, 0.3), checked(300, 0.1)]).most_per_s == 100
    assert trusted([checked(100, 0.3), checked(200, 0.0)]) is None
    assert trusted([]) is None


def test_the_margin_is_how_far_the_measured_p99_was_over_the_predicted_one():
    found = trusted([checked(100, -0.2 + 1e-9), checked(200, 0.1), checked(300, 0.9)])
    assert found.margin == pytest.approx(0.25)
    assert trusted([checked(100, 0.1)]).margin == 0
