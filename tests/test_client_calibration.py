import pytest

from client.calibration import calibrate


@pytest.mark.parametrize(
    ("claims", "passed"), [(0, True), (2, True), (3, False), (20, False)], ids=str
)
def test_two_claims_in_twenty_are_the_most(claims, passed):
    said = []
    claimed = iter([True] * claims + [False] * (20 - claims))
    found = calibrate(lambda: next(claimed), 20, said.append)
    assert found.passed is passed
    assert found.text == f"A/A: no difference in {20 - claims} of 20 runs"
    assert said[-1] == f"A/A 20 of 20: {'a difference' if claims == 20 else 'no difference'}"
