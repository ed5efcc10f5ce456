import pytest

from measure.core.comparison import Calibration, calibrate


@pytest.mark.parametrize(
    ("claims", "passed"), [(0, True), (2, True), (3, False), (20, False)], ids=str
)
def test_two_claims_in_twenty_are_the_most(claims, passed):
    said = []
    claims_of_runs = iter([True] * claims + [False] * (20 - claims))
    claimed = []
    calibrate(lambda: next(claims_of_runs), 20, said.append, claimed)
    found = Calibration(tuple(claimed))
    assert found.passed is passed
    assert found.text == f"A/A: no difference in {20 - claims} of 20 runs"
    assert said[-1] == f"A/A 20 of 20: {'a difference' if claims == 20 else 'no difference'}"


def test_runs_that_could_not_have_failed_count_for_nothing():
    found = Calibration((False,) * 9 + (True,) + (None,) * 10)
    assert found.passed
    assert found.text == (
        "A/A: no difference in 9 of 10 runs; 10 more could not have failed: "
        "too few pairs without an error"
    )
    assert not Calibration((False,) * 8 + (True,) + (None,) * 11).passed


def test_a_test_of_no_run_that_could_fail_is_not_passed():
    said = []
    claimed = []
    calibrate(lambda: None, 3, said.append, claimed)
    found = Calibration(tuple(claimed))
    assert not found.passed
    assert found.text == "A/A: none of 3 runs could have failed: too few pairs without an error"
    assert said[-1] == "A/A 3 of 3: could not have failed"
