import json

import pytest
import report_records

from client.errors import UsageError
from measure.__main__ import main
from measure.core.comparison import unpaired_ratio
from measure.diff.side import merged, side
from measure.diff.verdicts import (
    BETTER,
    SAME,
    UNDECIDED,
    WORSE,
    differences,
    incomparable,
    only_in_one,
    single_runs,
)

TENTH = 0.1


def compared(old, new, tolerance=TENTH):
    sides = side(old), side(new)
    assert incomparable(*sides) is None
    return differences(*sides, tolerance)


def verdicts(old, new, tolerance=TENTH):
    return {one.verdict for one in compared(old, new, tolerance)}


@pytest.mark.parametrize(
    ("factor", "said"), [(1.0, {SAME}), (1.5, {WORSE}), (0.5, {BETTER}), (1.1, {UNDECIDED})]
)
def test_sweeps_are_told_apart_by_more_than_the_tolerance(factor, said):
    found = verdicts(report_records.sweep(), report_records.sweep(factor, seed=1))
    assert found == said


def test_the_tolerance_is_what_does_not_count():
    assert verdicts(report_records.sweep(), report_records.sweep(1.5, seed=1), 0.9) == {SAME}


def test_results_with_themselves_are_never_worse():
    for make in (report_records.sweep, report_records.compare, report_records.slo):
        assert verdicts(make(), make()) == {SAME}


def test_a_wide_spread_cannot_be_told():
    noisy = report_records.sweep()
    for point in noisy["points"]:
        point["latencies_ns"] = [10**6, 10**8] * 10
    assert verdicts(noisy, report_records.sweep()) == {UNDECIDED}


def test_few_values_claim_nothing():
    few = report_records.sweep(3)
    for point in few["points"]:
        point["latencies_ns"] = point["latencies_ns"][:9]
    assert verdicts(report_records.sweep(), few) == {UNDECIDED}
    assert {one.cost for one in compared(report_records.sweep(), few)} == {None}


def test_a_slower_provider_of_a_comparison_is_found():
    slow = report_records.compare(specs=("cpu", "cuda"), factors=(1.0, 2.0))
    found = compared(report_records.compare(specs=("cpu", "cuda")), slow)
    assert {one.label.rpartition(", ")[2] for one in found if one.verdict == WORSE} == {"cuda"}
    assert sum(one.verdict == WORSE for one in found) == 4


def test_of_a_search_the_rates_between_which_it_lies_are_compared():
    old = report_records.slo(200.0, 210.0)
    assert verdicts(old, report_records.slo(150.0, 160.0)) == {WORSE}
    assert verdicts(old, report_records.slo(300.0, 310.0)) == {BETTER}
    assert verdicts(old, report_records.slo(180.0, 220.0)) == {UNDECIDED}
    with pytest.raises(UsageError, match="found no rate"):
        side(old | {"found": {"met": None, "missed": 1.0, "untold": None}})


def test_new_failures_are_worse_however_fast():
    wrong = report_records.sweep(0.5)
    wrong["points"][0]["wrong_labels"] = 1
    found = [one for one in compared(report_records.sweep(), wrong) if one.verdict == WORSE]
    assert [(one.label, one.old, one.new) for one in found] == [("local, batch size 1", 0, 1)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (report_records.sweep, lambda: report_records.sweep(features=2048), "features 1024 and 2"),
        (report_records.sweep, lambda: report_records.sweep(wire="int8"), "wire None and int8"),
        (report_records.sweep, report_records.compare, "different kinds of result"),
        (report_records.sweep, lambda: report_records.sweep() | {"points": []}, None),
    ],
)
def test_different_things_are_not_compared(old, new, said):
    if said is None:
        with pytest.raises(UsageError, match="recorded without its samples"):
            side(new())
    else:
        assert said in incomparable(side(old()), side(new()))


def test_a_record_without_samples_says_so():
    old = report_records.sweep()
    for point in old["points"]:
        del point["latencies_ns"]
    with pytest.raises(UsageError, match="recorded without its samples"):
        side(old)


def test_points_of_one_side_alone_are_named():
    fewer = report_records.sweep()
    del fewer["points"][0]
    assert only_in_one(side(report_records.sweep()), side(fewer)) == [
        "only in the old: local, batch size 1"
    ]


def test_of_several_runs_each_counts_once():
    runs = [side(report_records.sweep(factor, seed=7)) for factor in (1.0, 1.3, 1.6)]
    old = merged(runs)
    assert old.runs == 3
    assert all(len(series.values) == 3 for series in old.series)
    # As far apart as the runs of one side are, nothing can be told.
    again = merged([side(report_records.sweep(factor, seed=8)) for factor in (1.2, 1.5, 1.8)])
    assert {one.verdict for one in differences(old, again, TENTH)} == {UNDECIDED}
    slower = merged([side(report_records.sweep(factor, seed=9)) for factor in (3.0, 3.3, 3.6)])
    assert {one.verdict for one in differences(old, slower, TENTH)} == {WORSE}
    with pytest.raises(UsageError, match="not of the same thing"):
        merged([side(report_records.sweep()), side(report_records.slo())])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (1, 1, "both sides are single runs: no interval holds"),
        (3, 1, "the new side is a single run, the other 3 runs: no interval holds"),
        (1, 2, "the old side is a single run, the other 2 runs: no interval holds"),
        (3, 3, None),
    ],
)
def test_single_runs_are_named_as_such(tmp_path, capsys, old, new, said):
    for name, runs in (("old", old), ("new", new)):
        for number in range(runs):
            write(tmp_path / name / str(number), report_records.sweep(seed=number))
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert (said or "0 of 9 are worse\n") in printed
    assert ("; of single runs" in printed) is ("single run" in printed) is (said is not None)


@pytest.mark.parametrize("kind", [report_records.slo, report_records.load, report_records.limits])
def test_single_runs_of_every_kind_are_named(kind):
    assert "both sides are single runs" in single_runs(side(kind()), side(kind()))


@pytest.mark.parametrize(("starts", "said"), [(1, "no interval holds"), (4, "of 4 starts")])
def test_a_comparison_says_how_often_it_started_its_servers(starts, said):
    made = report_records.compare()
    made["settings"]["starts"] = starts
    assert said in single_runs(side(made), side(made))


def test_the_ratio_of_what_was_measured_apart_is_of_the_medians():
    found = unpaired_ratio([4.0] * 20, [2.0] * 10)
    assert (found.median, found.low, found.high, found.pairs) == pytest.approx((2, 2, 2, 10))
    for bad in (([], [1.0]), ([1.0], []), ([0.0], [1.0])):
        with pytest.raises(ValueError, match="expected values over 0 of both"):
            unpaired_ratio(*bad)


def write(folder, content, name="sweep.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (lambda: report_records.sweep(seed=1), 0),
        (lambda: report_records.sweep(2, seed=1), 1),
        (lambda: report_records.sweep(classes=3), 2),
    ],
)
def test_the_exit_code_says_it(tmp_path, capsys, new, code):
    old = write(tmp_path / "old", report_records.sweep())
    assert main(["diff", old, write(tmp_path / "new", new())]) == code
    said = capsys.readouterr()
    assert said.err.count("\n") == (code > 0)
    assert ("cannot compare" in said.err) is (code == 2)
    assert (said.err == "worse: local, batch size 1: latency, ms\n") is (code == 1)


def test_another_machine_is_said_but_no_reason_to_refuse(tmp_path, capsys):
    elsewhere = report_records.sweep(seed=1)
    elsewhere["environment"]["cpu_model"] = "Another chip"
    elsewhere["environment"]["versions"]["numpy"] = "3"
    old = write(tmp_path / "old", report_records.sweep())
    assert main(["diff", old, write(tmp_path / "new", elsewhere)]) == 0
    said = capsys.readouterr().out
    assert "environments differ: cpu_model: A chip and Another chip" in said
    assert "environments differ: numpy: 2 and 3" in said


def test_a_folder_without_a_result_is_refused(tmp_path, capsys):
    write(tmp_path / "old", {"schema": "argmax-serving/other/1"})
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "old")]) == 2
    err = capsys.readouterr().err
    assert "old: no result that can be used: " in err
    assert "has the schema argmax-serving/other/1, which is not used here; expected one of" in err
