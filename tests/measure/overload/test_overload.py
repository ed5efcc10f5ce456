import json
from dataclasses import asdict

import pytest

from measure.__main__ import main
from measure.core.verdict import Standing
from measure.overload import overload
from measure.overload.overload import Rounds, Settings, goals, run

# Computing must be what limits, or the server cannot refuse as fast as requests come.
SMALL = Settings(classes=4096, features=1024, rows=8, streams=4, rounds=1, seconds=0.3)


@pytest.fixture
def few_samples(monkeypatch):
    """Let 69 samples do for a p99."""
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", 0.5)


REACHED, MISSED, NOT_MEASURED = Standing.REACHED, Standing.MISSED, Standing.NOT_MEASURED


def measured(**values):
    """Two rounds in which every goal is reached, but for what is said otherwise."""
    good = {
        "alone_p99_ms": 10.0,
        "crowded_p99_ms": 25.0,
        "crowd_per_s": 90.0,
        "peak_per_s": 100.0,
        "offered_per_s": 300.0,
        "goodput_per_s": 95.0,
        "refused": 200,
        "refusal_p99_ms": 4.0,
    }
    return Rounds(**{name: [value, value] for name, value in {**good, **values}.items()})


def verdicts(rounds):
    return [goal.verdict for goal in goals(rounds)]


def test_every_goal_can_be_reached():
    assert verdicts(measured()) == [REACHED] * 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"crowded_p99_ms": 31.0}, [MISSED, REACHED, REACHED]),
        ({"goodput_per_s": 89.0}, [REACHED, MISSED, REACHED]),
        ({"refusal_p99_ms": 11.0}, [REACHED, REACHED, MISSED]),
        ({"refusal_p99_ms": None, "refused": 0}, [REACHED, REACHED, NOT_MEASURED]),
        ({"crowded_p99_ms": None}, [NOT_MEASURED, REACHED, REACHED]),
    ],
)
def test_each_goal_can_be_missed(values, expected):
    assert verdicts(measured(**values)) == expected


def test_a_round_measures_everything_and_no_answer_is_wrong(few_samples):
    said = []
    rounds = Rounds()
    run(SMALL, said.append, rounds)
    assert rounds.failed == []
    assert len(said) == 1
    for values in (rounds.alone_p99_ms, rounds.crowded_p99_ms, rounds.crowd_per_s):
        assert len(values) == 1
        assert values[0] > 0
    assert rounds.goodput_per_s[0] > 0
    # More than the crowd in a closed loop got answered, as nobody waits for answers.
    assert rounds.offered_per_s[0] > 2 * rounds.peak_per_s[0]


def test_a_round_without_enough_samples_does_not_count():
    rounds = measured()
    rounds.crowded_p99_ms[0] = None
    (fairness, *_) = goals(rounds)
    assert fairness.parts[0].ratio.pairs == 1


@pytest.mark.parametrize(
    ("values", "code"), [({}, 0), ({"goodput_per_s": 50.0}, 1), ({"failed": "x"}, 1)]
)
def test_the_exit_code_tells_the_verdict_and_the_record_holds_it(
    monkeypatch, tmp_path, capsys, values, code
):
    def run(settings, report, rounds):
        for name, value in asdict(measured(**values)).items():
            setattr(rounds, name, value)

    monkeypatch.setattr(overload, "run", run)
    path = tmp_path / "record.json"
    assert main(["overload", "--out", str(path)]) == code
    record = json.loads(path.read_text())
    assert [goal["name"] for goal in record["goals"]] == ["fairness", "goodput", "refusals"]
    assert record["rounds"]["peak_per_s"] == [100.0, 100.0]
    assert "goodput  " in capsys.readouterr().out
