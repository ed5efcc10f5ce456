import json

import pytest

from measure.__main__ import main
from measure.core.verdict import Standing
from measure.overload import floods
from measure.overload.floods import Rounds, Settings, goals, run
from measure.overload.http2_floods import FLOODS

SMALL = Settings(features=64, rounds=1, seconds=0.2)


def measured(failed=(), **flooded_p99_ms):
    """Two rounds of 10 ms without a flood, and of 15 ms beside each, unless said otherwise."""
    return {
        flood: Rounds(
            alone_p99_ms=[10.0, 10.0],
            flooded_p99_ms=[flooded_p99_ms.get(flood.split()[0], 15.0)] * 2,
            sent_per_s=[100.0, 100.0],
            connections=[1, 1],
            failed=list(failed),
        )
        for flood in FLOODS
    }


def verdicts(found):
    return [goal.verdict for goal in goals(found)]


def test_every_goal_can_be_reached():
    assert verdicts(measured()) == [Standing.REACHED] * 4


@pytest.mark.parametrize(
    ("name", "place"), [("rapid", 0), ("endless", 1), ("growing", 2), ("packed", 3)]
)
def test_each_goal_can_be_missed(name, place):
    expected = [Standing.REACHED] * 4
    expected[place] = Standing.MISSED
    assert verdicts(measured(**{name: 21.0 if place < 3 else 31.0})) == expected


def test_a_round_measures_beside_each_flood_and_no_answer_is_wrong(monkeypatch):
    # 69 samples do for a p99.
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", 0.5)
    said = []
    measured = {flood: Rounds() for flood in FLOODS}
    run(SMALL, said.append, measured)
    for flood, rounds in measured.items():
        assert rounds.failed == [], flood
        for values in (rounds.alone_p99_ms, rounds.flooded_p99_ms, rounds.sent_per_s):
            assert len(values) == SMALL.rounds
            assert min(values) > 0
        assert max(rounds.sent_per_s) <= 1.1 * SMALL.per_s(flood)
    assert len(said) == SMALL.rounds * len(FLOODS)


@pytest.mark.parametrize(
    ("values", "code"), [({}, 0), ({"growing": 30.0}, 1), ({"failed": ["1 requests wrong"]}, 1)]
)
def test_the_exit_code_tells_the_verdict_and_the_record_holds_it(
    monkeypatch, tmp_path, capsys, values, code
):
    monkeypatch.setattr(floods, "run", lambda _, report, found: found.update(measured(**values)))
    path = tmp_path / "record.json"
    assert main(["floods", "--out", str(path)]) == code
    record = json.loads(path.read_text())
    assert [goal["name"] for goal in record["goals"]] == list(FLOODS)
    assert record["floods"]["rapid reset"]["alone_p99_ms"] == [10.0, 10.0]
    assert record["settings"]["resets_per_s"] == 1000
    assert "rapid reset  " in capsys.readouterr().out
