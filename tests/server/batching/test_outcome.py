import threading
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from server.batching.outcome import Outcome

PATIENCE_S = 20


def test_callbacks_are_called_once_whether_they_come_before_or_after():
    outcome = Outcome()
    called = []
    outcome.add_done_callback(lambda each: called.append(("before", each.result())))
    outcome.set_result(5)
    outcome.add_done_callback(lambda each: called.append(("after", each.result())))
    assert called == [("before", 5), ("after", 5)]


def test_callbacks_that_race_with_the_result_are_called_once():
    for _ in range(500):
        outcome = Outcome()
        called = []
        ready = threading.Barrier(2)

        def setter(outcome=outcome, ready=ready):
            ready.wait()
            outcome.set_result(None)

        thread = threading.Thread(target=setter)
        thread.start()
        ready.wait()
        for number in range(5):
            outcome.add_done_callback(lambda _, number=number, called=called: called.append(number))
        thread.join(PATIENCE_S)
        assert sorted(called) == list(range(5))


def test_a_callback_that_fails_does_not_keep_others_from_being_called(caplog):
    outcome = Outcome()
    called = []
    outcome.add_done_callback(lambda _: 1 / 0)
    outcome.add_done_callback(called.append)
    outcome.set_result(None)
    assert called == [outcome]
    assert "a callback of a request failed" in caplog.text


def test_a_result_is_waited_for():
    outcome = Outcome()
    with pytest.raises(FutureTimeout):
        outcome.result(0)
    threading.Timer(0.01, outcome.set_result, ["answer"]).start()
    assert outcome.result(PATIENCE_S) == "answer"
    assert outcome.exception() is None


def test_an_error_is_raised_in_place_of_a_result():
    outcome = Outcome()
    outcome.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        outcome.result()
    assert isinstance(outcome.exception(), KeyError)
