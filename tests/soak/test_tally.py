import pytest

from soak.record import rate_bound
from soak.tally import MOST_KEPT, Tally


def test_no_more_is_begun_than_was_wanted():
    tally = Tally(target=5, allowed_s=60)
    assert [tally.take(2), tally.take(2), tally.take(2), tally.take(2)] == [2, 2, 1, 0]


def test_nothing_is_begun_once_the_time_is_over():
    tally = Tally(target=5, allowed_s=0)
    assert not tally.more
    assert tally.take() == 0


def test_what_was_begun_and_never_told_of_was_lost():
    tally = Tally(target=5, allowed_s=60)
    tally.take(5)
    tally.add(2)
    tally.fail("one", "an error")
    tally.give_up(1)
    tally.close()
    assert (tally.done, tally.failed) == (2, 2)
    assert tally.failures[-1].came == "nothing: neither an answer nor an error"


def test_every_failure_is_counted_and_the_first_are_kept_with_what_came():
    tally = Tally(target=1000, allowed_s=60)
    for number in range(MOST_KEPT + 7):
        tally.fail(f"request {number}", number)
    assert tally.failed == MOST_KEPT + 7
    assert len(tally.failures) == MOST_KEPT
    assert (tally.failures[3].what, tally.failures[3].came) == ("request 3", "3")


@pytest.mark.parametrize("trials", [100, 10_000, 1_000_000])
def test_without_a_failure_the_rate_is_below_three_in_so_many(trials):
    assert rate_bound(trials, 0) == pytest.approx(3 / trials, rel=0.02)


def test_the_bound_is_the_rate_at_which_so_many_successes_are_one_in_twenty():
    bound = rate_bound(50, 0)
    assert (1 - bound) ** 50 == pytest.approx(0.05)


def test_nothing_is_claimed_without_trials_nor_with_failures():
    assert rate_bound(0, 0) == 1
    assert rate_bound(10, 1) is None
