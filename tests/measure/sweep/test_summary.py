import math
from dataclasses import replace

import pytest

from measure.core.stages import Sample, Stages
from measure.presentation.format import milliseconds, significant
from measure.sweep.summary import Finding, percentile, summarise, warnings
from measure.sweep.table import render


def sample(latency_ns=1_000, rows=2, mode="unary", **fields):
    return Sample(mode, 2, 0, latency_ns // 2, latency_ns, rows, **fields)


def stages(compute_ns=400, batch_rows=2.0):
    return Stages(100, 200, 50, compute_ns, batch_rows, "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("p", "expected"), [(0, 15), (5, 15), (30, 20), (40, 20), (50, 35), (90, 50), (100, 50)]
)
def test_percentile_is_the_nearest_rank(p, expected):
    assert percentile([50, 15, 40, 20, 35], p) == expected


def test_percentile_agrees_with_its_definition():
    for count in range(1, 40):
        values = list(range(count))
        for p in (1, 10, 33, 50, 90, 99, 99.9):
            answer = percentile(values, p)
            share = sum(v <= answer for v in values) * 1000
            assert share >= round(p * 10) * count
            assert sum(v < answer for v in values) * 1000 < round(p * 10) * count


def test_percentile_rank_does_not_suffer_from_rounding():
    # In floating point 7 / 100 * 100 is just above 7, which would give the next rank.
    assert percentile(range(1, 101), 7) == 7
    assert percentile(range(1, 1001), 99.9) == 999


@pytest.mark.parametrize("p", [-1, 100.5])
def test_percentile_outside_0_to_100_is_refused(p):
    with pytest.raises(ValueError, match="outside"):
        percentile([1], p)


def test_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


def test_throughput_is_rows_over_the_time_of_the_samples():
    point = summarise("unary", 2, [sample(1_000_000), sample(3_000_000)])
    assert point.throughput_per_s == pytest.approx(4 / 0.004)
    assert (point.rows, point.elapsed_ns) == (4, 4_000_000)


def test_spreads_hold_last_prediction_apart_from_first():
    point = summarise("stream", 2, [sample(v) for v in (200, 400, 600, 800, 1000)])
    spread, first = point.latency_ns, point.first_prediction_ns
    assert (spread.min, spread.p50, spread.p90, spread.max, spread.samples) == (
        *(200, 600, 1000, 1000),
        5,
    )
    assert (first.min, first.p50, first.max) == (100, 300, 500)


def test_an_error_costs_time_but_never_enters_rows_or_percentiles():
    point = summarise("unary", 2, [sample(1_000), sample(9_000, rows=2, error="UNAVAILABLE")])
    assert point.latency_ns.max == 1_000
    assert point.latency_ns.samples == 1
    assert point.rows == 2
    assert point.throughput_per_s == pytest.approx(2 * 1e9 / 10_000)
    assert point.errors == 1
    assert point.error_kinds == {"UNAVAILABLE": 1}


def test_at_most_five_error_kinds_are_kept_the_most_frequent_first():
    failed = [sample(error=f"kind {i}") for i in range(7) for _ in range(i + 1)]
    point = summarise("unary", 2, failed)
    assert point.errors == 28
    assert next(iter(point.error_kinds.items())) == ("kind 6", 7)
    assert len(point.error_kinds) == 5


def test_a_point_without_success_has_no_times():
    point = summarise("unary", 2, [sample(error="CANCELLED")])
    assert point.latency_ns.p50 is None
    assert point.latency_ns.samples == 0
    assert point.agreement is None
    assert point.stages is None
    assert point.throughput_per_s == 0


def test_a_point_without_samples_does_not_divide_by_zero():
    assert summarise("unary", 2, []).throughput_per_s == 0


def test_agreement_counts_near_ties_that_differ():
    point = summarise("unary", 2, [sample(near_ties=1, disagreements=1), sample()])
    assert point.agreement == pytest.approx(0.75)
    assert point.near_ties == 1
    assert point.wrong_labels == 0


def test_a_wrong_label_is_not_hidden_by_an_error_after_it():
    point = summarise("unary", 2, [sample(wrong_labels=1, error="CANCELLED")])
    assert point.wrong_labels == 1


def test_other_is_what_the_stages_do_not_account_for():
    point = summarise(
        "unary", 2, [sample(1_000, stages=stages()), sample(2_000, stages=stages(800))]
    )
    split = point.stages
    assert split.compute_ns == 600
    assert split.other_ns == 1_500 - (100 + 200 + 50 + 600)
    assert split.execution_provider == "CPUExecutionProvider"


def test_the_clients_stages_and_the_servers_receiving_are_not_other():
    received = replace(stages(), receive_ns=30, handover_ns=20)
    sent = [sample(1_000, stages=received, send_ns=n, receive_ns=40) for n in (10, 70)]
    split = summarise("unary", 2, sent).stages
    assert (split.send_ns, split.server_receive_ns) == (40, 30)
    assert (split.handover_ns, split.answer_receive_ns) == (20, 40)
    # The server receives while the client sends: the longer of the two counts.
    assert split.other_ns == 1_000 - 40 - (100 + 200 + 50 + 400 + 20) - 40


def test_a_stage_that_some_samples_lack_is_unknown():
    mixed = [sample(1_000, stages=stages()), sample(1_000, stages=replace(stages(), receive_ns=3))]
    split = summarise("unary", 2, mixed).stages
    assert (split.send_ns, split.server_receive_ns, split.handover_ns) == (None, None, None)


def test_other_is_never_negative():
    assert summarise("unary", 2, [sample(100, stages=stages())]).stages.other_ns == 0


def test_other_means_nothing_where_stages_overlap_with_the_wire():
    point = summarise("stream", 2, [sample(mode="stream", stages=stages(batch_rows=8.0))])
    assert point.stages.other_ns is None
    assert point.stages.batch_rows == 8


def test_failures_come_before_warnings():
    failing = summarise("unary", 2, [sample(wrong_labels=1), sample(error="CANCELLED")])
    found = warnings(
        [failing], {"steal_fraction": 0.05, "load_average_start": [3, 1, 1], "cores": 2}
    )
    assert [finding.level for finding in found] == ["fail", "fail", "warn", "warn", "warn"]
    assert found[1] == Finding("fail", "unary, batch size 2: 1 of 2 samples failed: CANCELLED (1)")


def test_nothing_measured_is_a_failure():
    assert [finding.level for finding in warnings([], {})] == ["fail"]


def test_quiet_machine_with_enough_samples_gives_no_finding():
    point = summarise("unary", 2, [sample()] * 5)
    quiet = {"steal_fraction": 0.02, "load_average_start": [2.0, 1, 1], "cores": 2}
    assert warnings([point], quiet) == []
    assert warnings([point], {"steal_fraction": None, "load_average_start": None}) == []


def test_two_samples_are_too_few():
    (finding,) = warnings([summarise("unary", 2, [sample()] * 2)], {})
    assert finding.level == "warn"
    assert "as few as 2" in finding.text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.012345, "0.0123"), (9.996, "10.0"), (999.6, "1,000"), (12345, "12,300")],
)
def test_numbers_show_three_significant_digits(value, text):
    assert significant(value) == text


def test_a_time_that_was_not_measured_is_a_dash():
    assert milliseconds(None) == "-"
    assert not math.isnan(float(milliseconds(1)))


def test_the_terminal_table_has_one_row_per_point():
    points = [summarise("unary", 2, [sample()] * 5), summarise("stream", 2, [])]
    table = render(points)
    assert [[row[0] for row in rows] for rows in table.groups] == [["unary"], ["stream"]]
    assert len(table.columns) == len(table.groups[0][0]) == 10
