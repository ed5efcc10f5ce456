import numpy as np
import pytest

from soak.hot_swap import CLASSES, Outcome, Swaps, swap


@pytest.fixture(scope="module")
def swaps(tmp_path_factory):
    return Swaps(tmp_path_factory.mktemp("models"))


def test_a_model_is_swapped_under_load_without_an_error_or_a_mixed_answer(tmp_path):
    outcome = swap(tmp_path, 8, ("--validation", "off"))
    assert (outcome.errors, outcome.mixed, outcome.stale) == ([], 0, 0)
    assert min(outcome.answered["unary"], outcome.answered["stream"]) > 8
    assert outcome.good


@pytest.mark.parametrize(
    ("begun", "sent", "content", "counted"),
    [
        (0, 0, "old", (0, 0)),
        (0, 0, "new", (0, 1)),
        (1, 0, "old", (0, 0)),
        (1, 0, "new", (0, 0)),
        (1, 1, "old", (0, 1)),
        (1, 1, "new", (0, 0)),
        (2, 2, "old", (0, 0)),
        (1, 0, "both", (1, 0)),
        (1, 0, "neither", (1, 0)),
    ],
)
def test_an_answer_is_held_against_what_served(swaps, begun, sent, content, counted):
    old = (swaps.x @ swaps._contents[0].astype(np.float32).T).argmax(axis=1)
    new = (swaps.x @ swaps._contents[1].astype(np.float32).T).argmax(axis=1)
    assert not np.any(old == new)
    labels = {
        "old": old,
        "new": new,
        "both": np.concatenate([old[:30], new[30:]]),
        "neither": (old + 2) % CLASSES,
    }[content]
    swaps.begun = begun
    outcome = Outcome()
    swaps.judge(outcome, sent, labels)
    assert (outcome.mixed, outcome.stale) == counted


def test_an_outcome_is_good_only_when_both_ways_were_answered_and_nothing_was_wrong():
    assert not Outcome().good
    good = Outcome(answered={"unary": 1, "stream": 1})
    assert good.good
    for wrong in ({"errors": ["x"]}, {"mixed": 1}, {"stale": 1}):
        assert not Outcome(answered=good.answered, **wrong).good
