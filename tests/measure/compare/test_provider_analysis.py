import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from measure.compare import record as provider_record
from measure.compare.analysis import NO_DIFFERENCE, Pair, analyse, could_differ, verdict
from measure.compare.findings import broken_limits, findings
from measure.compare.runs import Cell, Measured, Provider
from measure.compare.table import render
from measure.compare.words import meeting_text, summary, without_line
from measure.core.comparison import Ratio
from measure.core.record import RecordError, dumps, read
from measure.core.stages import Sample
from measure.report import page as pages
from measure.report import trust
from measure.report.sections import compare
from measure.sweep.summary import summarise

SIZES = (1, 8, 64)
ROUNDS = 16
HOSTILE = "<img src=http://evil.example/x onerror=alert(1)>[red]{{ 7 * 7 }}"


def cell(label, size, rounds_ns, wrong=0, errors=(), mode="local", near_ties=0):
    samples = [
        Sample(mode, size, 0, ns, ns, size, wrong_labels=wrong, disagreements=wrong)
        for ns in rounds_ns
    ]
    samples += [Sample(mode, size, 0, 1, 1, 0, error=text) for text in errors]
    return Cell(label, summarise(mode, size, samples), () if errors else tuple(rounds_ns))


def measured(costs, seed=0, noise=0.03, rounds=ROUNDS, sizes=SIZES, **fields):
    """Providers whose true costs (alpha, beta in ns) are known, under a drift that all share."""
    rng = np.random.default_rng(seed)
    providers = tuple(Provider(label, label, (2_000_000,), 2**27) for label in costs)
    cells = []
    for size in sizes:
        drift = rng.lognormal(0, 0.3, rounds)
        for label, (alpha, beta) in costs.items():
            times = (alpha + beta * size) * drift * rng.lognormal(0, noise, rounds)
            cells.append(cell(label, size, [int(t) for t in times], **fields.get(label, {})))
    return Measured(providers, tuple(cells))


def pair(base, provider, slower):
    ratio = {provider: Ratio(2, 1.9, 2.1, 16), base: Ratio(0.5, 0.4, 0.6, 16)}.get(slower)
    return Pair("local", 1, base, provider, ratio or Ratio(1, 0.9, 1.1, 16), 0.01, bool(slower))


@pytest.mark.parametrize(
    ("slower", "said"),
    [
        ({}, NO_DIFFERENCE),
        ({"ab": "b", "ac": "c"}, "a"),
        ({"ab": "a", "ac": "a"}, "b or c"),
        ({"ab": "a", "ac": "a", "bc": "b"}, "c"),
        ({"ac": "c"}, "a or b"),
        ({"ab": "a", "bc": "b", "ac": "c"}, NO_DIFFERENCE),  # round in a circle
    ],
)
def test_the_winner_is_slower_than_nobody(slower, said):
    pairs = [pair(*names, slower.get(names)) for names in ("ab", "ac", "bc")]
    assert verdict("abc", pairs) == said


def test_nothing_is_said_of_one_alone():
    assert verdict("a", []) == "-"


def test_the_faster_one_wins_at_each_batch_size_and_the_lines_cross_between():
    analysis = analyse(measured({"slow start": (400_000, 10_000), "slow rows": (10_000, 50_000)}))
    assert analysis.verdicts["local", 1] == "slow rows"
    assert analysis.verdicts["local", 64] == "slow start"
    (meeting,) = analysis.meetings
    assert meeting.crossover.established
    assert meeting.crossover.rows.value == pytest.approx(390 / 40, rel=0.15)
    assert "below, the line of slow rows is lower" in meeting_text(meeting)
    (text,) = summary(analysis)
    assert text.startswith("local: slow rows at 1")


def test_the_same_thing_twice_is_no_difference_in_nearly_every_run():
    differing = 0
    for seed in range(30):
        analysis = analyse(measured({"a": (1e5, 1e4), "b": (1e5, 1e4)}, seed))
        differing += set(analysis.verdicts.values()) != {NO_DIFFERENCE}
    assert differing <= 4


def test_few_rounds_claim_nothing_and_say_so():
    analysis = analyse(measured({"a": (1e5, 1e4), "b": (3e5, 3e4)}, rounds=9))
    assert set(analysis.verdicts.values()) == {NO_DIFFERENCE}
    (finding,) = findings(analysis, {})
    assert "9 rounds are too few" in finding.text
    assert findings(analyse(measured({"a": (1e5, 1e4), "b": (3e5, 3e4)})), {}) == []


def test_two_batch_sizes_make_no_line_which_is_said():
    analysis = analyse(measured({"a": (1e5, 1e4), "b": (3e5, 3e4)}, sizes=(1, 8)))
    assert (analysis.lines, analysis.meetings) == ((), ())
    said = "local: no line fitted: got 2 batch sizes without errors, expected at least 3"
    assert list(without_line(analysis)) == [said]
    file = io.StringIO()
    Console(file=file, width=120).print(render(analysis))
    assert said in file.getvalue()
    content = provider_record.to_json({"ep": ["a", "b"], "rounds": ROUNDS}, {}, analysis)
    section = compare.section(json.loads(dumps(content)))
    assert said in map(str, section.verdicts[0].findings)
    assert list(without_line(analyse(measured({"a": (1e5, 1e4)})))) == []


@pytest.mark.parametrize(("rounds", "passed"), [(ROUNDS, True), (9, None)])
def test_a_provider_twice_in_too_few_rounds_is_no_test_of_the_instrument(rounds, passed):
    whole = measured({"cpu": (1e5, 1e4), "cpu #2": (1e5, 1e4)}, rounds=rounds)
    providers = tuple(replace(provider, spec="cpu") for provider in whole.providers)
    analysis = analyse(Measured(providers, whole.cells))
    assert could_differ(analysis.pairs) is (passed is not None)
    content = provider_record.to_json({"ep": ["cpu", "cpu"], "rounds": rounds}, {}, analysis)
    checks = compare.section(json.loads(dumps(content))).checks
    assert {check.passed for check in checks if check.name == trust.AA} == {passed}


def test_a_cell_that_failed_is_left_out_of_pairs_and_fits():
    whole = measured({"a": (1e5, 1e4), "b": (3e5, 3e4)})
    cells = [
        cell("b", 8, [1000], errors=["UNAVAILABLE: gone"])
        if (c.provider, c.point.batch_size) == ("b", 8)
        else c
        for c in whole.cells
    ]
    analysis = analyse(Measured(whole.providers, tuple(cells)))
    assert analysis.verdicts == {("local", 1): "a", ("local", 8): "-", ("local", 64): "a"}
    assert analysis.lines == ()
    (finding,) = findings(analysis, {})
    assert finding.level == "fail"
    assert "local, batch size 8: b: requests failed: UNAVAILABLE: gone (1)" in finding.text


TWICE_AS_SLOW = {"a": (1e5, 1e4), "b": (2e5, 2e4)}


@pytest.mark.parametrize(
    ("agreement", "slowdown", "broken"),
    [
        (None, None, []),
        (None, 1.5, ["local, batch size"] * 3),
        (None, 1.99, ["local, batch size"] * 0),  # the interval reaches below it
        (None, 3, []),
        (0.99, None, ["local, batch size 64: b agrees with the reference in 0.984375 of labels"]),
        (0.984375, None, []),
        (0.99, 1.5, ["local, batch size 64: b agrees"] + ["local, batch size"] * 3),
    ],
)
def test_limits(agreement, slowdown, broken):
    whole = measured(TWICE_AS_SLOW, noise=0.05)
    cells = [
        cell("b", 64, c.rounds_ns, wrong=1) if (c.provider, c.point.batch_size) == ("b", 64) else c
        for c in whole.cells
    ]
    analysis = analyse(Measured(whole.providers, tuple(cells)))
    found = list(broken_limits(analysis, agreement, slowdown))
    assert [text[: len(start)] for text, start in zip(found, broken, strict=True)] == broken


def test_being_faster_than_the_first_breaks_no_limit():
    analysis = analyse(measured({"a": (2e5, 2e4), "b": (1e5, 1e4)}))
    assert list(broken_limits(analysis, None, 1.1)) == []


def test_wrong_labels_are_told():
    analysis = analyse(measured(TWICE_AS_SLOW, b={"wrong": 1}))
    (finding,) = findings(analysis, {})
    assert finding.level == "warn"
    assert finding.text.startswith(f"b: {3 * ROUNDS} of {sum(SIZES) * ROUNDS:,} labels differ")


def recorded(analysis, broken=()):
    whole = provider_record.to_json({"rounds": ROUNDS}, {"cores": 2}, analysis, broken)
    return json.loads(dumps(whole))


def test_a_record_gives_back_what_was_measured():
    analysis = analyse(measured(TWICE_AS_SLOW))
    content = recorded(analysis)
    assert read(content, provider_record.CompareRecord).measured == analysis.measured
    assert recorded(analyse(read(content, provider_record.CompareRecord).measured)) == content


def test_a_line_that_does_not_rise_is_recorded_without_a_bound():
    flat = recorded(analyse(measured({"a": (1e6, 0), "b": (1e6, 0)}, noise=0)))
    assert flat["lines"][0]["half_peak_rows"]["value"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "argmax-serving/sweep/1"}, "schema is 'argmax-serving/sweep/1'"),
        ({"providers": [{}]}, "lacks 'label'"),
        ({"providers": 3}, "providers: got int, expected array"),
        ({"cells": [{"provider": "a", "point": {}}]}, r"cells\[0\].point lacks 'mode'"),
    ],
)
def test_what_is_no_record_is_refused(change, said):
    with pytest.raises(RecordError, match=said):
        read(recorded(analyse(measured(TWICE_AS_SLOW))) | change, provider_record.CompareRecord)


def shown(*told):
    return pages.render([compare.section(recorded(*told))])


def test_the_page_shows_every_number_and_loads_nothing():
    page = shown(analyse(measured(TWICE_AS_SLOW)), ["too slow"])
    assert ">limit broken</a>: too slow" in page
    assert page.count('<th scope="row">local</th>') == 2 * len(SIZES) + 2
    assert "local: a and b do not cross" in page
    assert '<link rel="icon" href="data:,">' in page
    assert 'src="' not in page.split("</style>")[1].split("<body>")[1]


def test_the_page_escapes_what_providers_are_called():
    page = shown(analyse(measured({"a": (1e5, 1e4), HOSTILE: (2e5, 2e4)})))
    assert "<img src=http" not in page
    assert "49" not in page.split("<title>")[1].split("</title>")[0]
