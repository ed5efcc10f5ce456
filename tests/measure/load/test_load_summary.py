import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.core.record import decoded, encoded
from measure.core.stages import Stages
from measure.engine.slice import Slice
from measure.engine.windows import Window, is_stable
from measure.load.summary import Asked, summarise
from measure.servers.statistics import ServerStatistics
from measure.slo.slo import judge

SECOND_NS, MS = 10**9, 10**6
CLOSED = Asked("closed", "unary", 2, 1, concurrency=4)
OPEN = Asked("open", "unary", 2, 1, rate_per_s=400.0, arrivals="constant")
STAGES = Stages(1 * MS, 2 * MS, 1 * MS, 3 * MS, 4.0, "CPUExecutionProvider")


def window(
    start_s=0, answers=400, latency_ns=10 * MS, under_way=None, lag_ns=1_000, told=True, **fields
):
    """One second in which all answers took the same time, Little's law holding by default."""
    found = Slice(start_s * SECOND_NS, (start_s + 1) * SECOND_NS, due=answers, **fields)
    for _ in range(answers):
        found.answer(latency_ns, latency_ns, 2)
        found.send(lag_ns)
        found.client_times(MS // 10, MS // 2)
        found.decode_ns += MS // 5
        if told:
            found.split(STAGES)
    area_ns = answers * latency_ns if under_way is None else under_way * SECOND_NS
    found.in_flight_area_ns = area_ns
    return found


def point(asked=CLOSED, windows=None, last=None, labels_known=True, steal=0.0, statistics=None):
    windows = windows or [window(start_s) for start_s in range(3)]
    end = windows[-1].end_ns
    last = last or Slice(end, end)
    return summarise(
        asked, windows, last, labels_known=labels_known, steal=steal, statistics=statistics
    )


def failed(point):
    return {check.name for check in point.checks if check.passed is False}


@pytest.mark.parametrize("asked", [CLOSED, OPEN])
def test_a_quiet_load_is_valid(asked):
    found = point(asked)
    assert failed(found) == set()
    assert found.valid
    assert found.requests_per_s == 400
    assert found.rows_per_s == 800
    assert found.latency_ns.samples == 1200
    assert found.latency_ns.p99 == pytest.approx(10 * MS, rel=0.001)
    assert found.latency_ns.p99_9 is None
    assert found.concurrency == pytest.approx(4)


@pytest.mark.parametrize(
    ("latency_ms", "valid"), [(10, True), (9.6, True), (10.4, True), (9.4, False), (10.6, False)]
)
def test_littles_law_must_hold_within_a_twentieth_of_the_concurrency(latency_ms, valid):
    found = point(windows=[window(s, latency_ns=int(latency_ms * MS)) for s in range(3)])
    assert ("little" not in failed(found)) is valid
    assert found.valid is valid


def cycles(latency_ms, lag_ms, answers=400):
    """Three seconds of a closed loop whose client takes a while between an answer and a send."""
    return [
        window(s, answers=answers, latency_ns=int(latency_ms * MS), lag_ns=int(lag_ms * MS))
        for s in range(3)
    ]


@pytest.mark.parametrize(("latency_ms", "lag_ms"), [(9.99, 0.01), (9.5, 0.5), (9.1, 0.9)])
def test_a_closed_loop_is_sound_whose_client_needs_a_little_of_each_cycle(latency_ms, lag_ms):
    found = point(windows=cycles(latency_ms, lag_ms))
    assert failed(found) == set()
    assert found.client_share == pytest.approx(lag_ms / 10)
    (check,) = [check for check in found.checks if check.name == "little"]
    assert check.text == "rate x (latency + send lag) = 4, concurrency 4 (+0.0%)"


def test_a_client_that_stalls_between_answer_and_send_is_called_what_it_is():
    found = point(windows=cycles(8.8, 1.2))
    assert failed(found) == {"send lag"}
    (check,) = [check for check in found.checks if check.name == "send lag"]
    assert "12.0% of a cycle is the client's, 1.2 ms from an answer to the next" in check.text


@pytest.mark.parametrize("answers", [300, 500], ids=["a slot is lost", "one too many"])
def test_another_concurrency_than_was_asked_for_is_not_valid(answers):
    assert failed(point(windows=cycles(9.5, 0.5, answers))) == {"little"}


@pytest.mark.parametrize(
    ("latency_ms", "answers", "sound"),
    # Of three seconds, each of four slots has room for two whole cycles of 1.2 s, and half of one.
    [(1200, (4, 0, 4), True), (1200, (2, 0, 2), False), (10, (300, 200, 300), False)],
)
def test_cycles_that_the_ends_cut_off_are_allowed_for_and_no_more(latency_ms, answers, sound):
    windows = [
        window(s, answers=count, latency_ns=latency_ms * MS) for s, count in enumerate(answers)
    ]
    assert ("little" not in failed(point(windows=windows))) is sound


@pytest.mark.parametrize("asked", [CLOSED, OPEN])
def test_the_latency_from_the_send_is_told_beside_the_latency_from_when_it_was_due(asked):
    windows = [Slice(s * SECOND_NS, (s + 1) * SECOND_NS, due=400) for s in range(3)]
    for one in windows:
        for _ in range(400):
            lag_ns = 2 * MS if asked is OPEN else 0
            one.answer(10 * MS, 10 * MS - lag_ns, 2)
            one.send(lag_ns)
    found = point(asked, windows)
    assert found.latency_ns.mean == 10 * MS
    assert found.from_send_ns.mean == (8 * MS if asked is OPEN else 10 * MS)
    assert found.from_send_ns.p99 == pytest.approx(found.from_send_ns.mean, rel=0.001)
    assert found.from_send_ns.samples == found.latency_ns.samples == 1200
    assert found.client_share == pytest.approx(0.2 if asked is OPEN else 0)


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1 * MS, 100 * MS),
    st.floats(0.1, 10).map(lambda x: round(x, 3)),
)
def test_every_valid_open_loop_obeys_littles_law(answers, latency_ns, share):
    under_way = answers * latency_ns / SECOND_NS * share
    windows = [
        window(s, answers=answers, latency_ns=latency_ns, under_way=int(under_way + 1))
        for s in range(3)
    ]
    found = point(OPEN, windows)
    told = found.requests_per_s * found.latency_ns.mean / SECOND_NS
    assert ("little" in failed(found)) == (abs(told / found.concurrency - 1) > 0.05)


def test_a_rate_that_was_not_kept_up_is_not_valid():
    windows = [window(s) for s in range(3)]
    for one in windows:
        one.due = 430
    assert failed(point(OPEN, windows)) == {"rate"}
    assert failed(point(CLOSED, windows)) == set()


@pytest.mark.parametrize(
    ("latency_ms", "lag_ns", "valid"),
    [(5, 990_000, True), (5, 1_010_000, False), (100, 9_900_000, True), (100, 10_200_000, False)],
)
def test_a_late_client_makes_an_open_loop_not_valid(latency_ms, lag_ns, valid):
    windows = [window(s, latency_ns=latency_ms * MS, lag_ns=lag_ns) for s in range(3)]
    assert failed(point(OPEN, windows)) == (set() if valid else {"send lag"})


def test_errors_and_wrong_labels_are_counted_by_code_and_never_averaged_in():
    windows = [window(s) for s in range(3)]
    windows[0].errors["UNAVAILABLE"] = 2
    last = Slice(windows[-1].end_ns, windows[-1].end_ns, left_behind=3)
    last.errors["DEADLINE_EXCEEDED"] = 3
    found = point(windows=windows, last=last)
    assert found.errors == {"UNAVAILABLE": 2, "DEADLINE_EXCEEDED": 3}
    assert found.latency_ns.samples == 1200
    assert failed(found) == {"errors"}
    windows[0].errors.clear()
    windows[1].wrong_labels = 1
    found = point(windows=windows)
    assert (found.wrong_labels, failed(found)) == (1, {"errors"})


def test_labels_that_nobody_knows_are_not_called_right():
    assert point(labels_known=False).wrong_labels is None
    assert point().wrong_labels == 0


def test_a_stall_that_the_end_cut_off_is_not_valid():
    last = Slice(3 * SECOND_NS, 4 * SECOND_NS, left_behind=1)
    last.answer(900 * MS, 900 * MS, 2)
    assert failed(point(last=last)) == {"left behind"}


@pytest.mark.parametrize(("steal", "passed"), [(0.0, True), (0.5, False), (None, None)])
def test_steal_is_judged_where_it_is_known(steal, passed):
    (check,) = [check for check in point(steal=steal).checks if check.name == "steal"]
    assert check.passed is passed
    assert point(steal=steal).valid is (passed is not False)


def test_the_split_is_of_what_the_server_told():
    split = point().split
    assert (split.decode_ns, split.queue_ns, split.compute_ns) == (1 * MS, 2 * MS, 3 * MS)
    # Of 10 ms, 7 are in the server, a tenth of one in sending and half of one in receiving.
    assert split.network_ns == pytest.approx(2.4 * MS)
    assert (split.send_lag_ns, split.send_ns, split.receive_ns) == (1_000, 0.1 * MS, 0.2 * MS)
    assert split.answer_receive_ns == 0.5 * MS
    assert (split.server_receive_ns, split.handover_ns) == (None, None)
    assert (split.encode_ns, split.server_send_ns) == (None, None)
    assert (split.told_by, split.batch_rows) == ("timings", 4)
    silent = [window(s, answers=0) for s in range(3)]
    assert point(windows=silent).split is None


def test_a_server_without_timings_is_split_by_its_statistics_if_it_has_any():
    windows = [window(s, told=False) for s in range(3)]
    statistics = ServerStatistics(1200, 300, 2400, *(n * 1200 * MS for n in (1, 2, 3, 1)))
    split = point(windows=windows, statistics=statistics).split
    assert (split.told_by, split.batch_rows, split.decode_ns) == ("statistics", 8, None)
    assert (split.queue_ns, split.assemble_ns) == (1 * MS, 2 * MS)
    assert (split.compute_ns, split.encode_ns) == (3 * MS, 1 * MS)
    assert split.network_ns == pytest.approx(2.4 * MS)
    assert (split.server_receive_ns, split.handover_ns, split.server_send_ns) == (None, None, None)
    # What a server does not tell is not taken for nothing.
    for untold in (None, ServerStatistics(0, 0, 0, 0, 0, 0, 0)):
        split = point(windows=windows, statistics=untold).split
        assert (split.told_by, split.compute_ns, split.batch_rows) == (None, None, None)
        assert split.network_ns == pytest.approx(9.4 * MS)


def test_of_two_stages_at_both_ends_of_the_same_bytes_the_longer_one_counts():
    reported = replace(STAGES, receive_ns=MS, handover_ns=MS // 4)
    windows = [window(s, told=False) for s in range(3)]
    for one in windows:
        for _ in range(400):
            one.split(reported)
    of_each = (1, 2, 3, 1)
    inside = ServerStatistics(
        1200, 300, 2400, *(n * 1200 * MS for n in of_each), sent=1200, send_ns=300 * MS
    )
    split = point(windows=windows, statistics=inside).split
    assert (split.server_receive_ns, split.handover_ns) == (1 * MS, 0.25 * MS)
    # No answer can say how long its encoding and sending take: the statistics do.
    assert (split.told_by, split.encode_ns, split.server_send_ns) == ("timings", MS, 0.25 * MS)
    # 1 to receive, not 0.1 to send; 0.5 to receive the answer, not 0.25 to send it.
    named_ns = 1 * MS + (7 + 0.25 + 1) * MS + 0.5 * MS
    assert split.network_ns == pytest.approx(10 * MS - named_ns)


def test_statistics_without_a_name_for_the_rest_of_the_servers_time_call_it_handover():
    windows = [window(s, told=False) for s in range(3)]
    of_each = [n * 1200 * MS for n in (1, 2, 3, 1)]
    rest = ServerStatistics(
        1200, 300, 2400, *of_each, total_ns=1200 * 8 * MS, received=1200, receive_ns=2400 * MS
    )
    split = point(windows=windows, statistics=rest).split
    assert (split.handover_ns, split.server_receive_ns) == (1 * MS, 2 * MS)
    # A total that is less than its parts says nothing.
    odd = point(windows=windows, statistics=replace(rest, total_ns=MS)).split
    assert odd.handover_ns is None


def test_answers_without_a_stage_do_not_lower_its_mean():
    windows = [window(s) for s in range(3)]
    for one in windows:
        one.split(replace(STAGES, receive_ns=2 * MS))
    assert point(windows=windows).split.server_receive_ns == 2 * MS


def test_nothing_answered_is_not_valid():
    found = point(windows=[window(s, answers=0) for s in range(3)])
    assert "little" in failed(found)
    assert found.latency_ns.max is None


@pytest.mark.parametrize(
    ("rates", "stable"),
    [
        ([100, 100], False),
        ([100, 100, 100], True),
        ([1, 100, 100, 100], True),
        ([100, 100, 130], False),
        ([95, 100, 109], True),
        ([0, 0, 0], False),
    ],
)
def test_three_windows_must_agree(rates, stable):
    windows = [Window(rate, 10.0 if rate else None, 0, 100.0) for rate in rates]
    assert is_stable(windows, "closed") is stable
    assert is_stable(windows, "open") is stable
    # The same of latencies.
    windows = [Window(100, float(rate) or None, 0, 100.0) for rate in rates]
    assert is_stable(windows, "closed") is stable


def test_what_chance_makes_due_is_no_instability_of_an_open_loop():
    windows = [Window(rate, 10.0, 0, rate) for rate in (100.0, 150.0, 80.0)]
    assert is_stable(windows, "open")
    assert not is_stable(windows, "closed")


def test_chance_that_hides_instability_leaves_a_bound_open_as_instability_does():
    def drawn(start_s, mean_ms):
        one = Slice(start_s * SECOND_NS, (start_s + 1) * SECOND_NS, due=459)
        for number in range(459):
            took_ns = (100 if number % 20 == 0 else mean_ms) * MS
            one.answer(took_ns, took_ns, 2)
            one.send(1_000)
        one.in_flight_area_ns = one.latency_sum_ns
        return one

    found = point(OPEN, [drawn(s, ms) for s, ms in enumerate((10, 10, 14))])
    (check,) = [check for check in found.checks if check.name == "stable"]
    assert check.passed is None
    assert "may differ by chance alone" in check.text
    assert found.valid
    assert judge(found, 110 * MS).met is None
    assert judge(found, 210 * MS).met is True


def test_slices_survive_json():
    found = window(errors=Counter(UNAVAILABLE=1), near_ties=2)
    again = decoded(json.loads(json.dumps(encoded(found))), Slice)
    assert encoded(again) == encoded(found)
    assert again.errors["UNAVAILABLE"] == 1


def test_slices_of_processes_add_up():
    whole = window(answers=100)
    whole.add(window(answers=300, latency_ns=20 * MS))
    assert (whole.answered, whole.rows, whole.due) == (400, 800, 400)
    assert whole.elapsed_ns == SECOND_NS
    assert whole.mean_latency_ns == pytest.approx(17.5 * MS)


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({"latency_ns": 10 * MS}, True),
        ({"latency_ns": 60 * MS}, False),
        # The client's lateness is part of the latency: met all the same, but never missed by it.
        ({"latency_ns": 10 * MS, "lag_ns": 7 * MS}, True),
        ({"latency_ns": 60 * MS, "lag_ns": 55 * MS}, None),
        ({"latency_ns": 60 * MS, "errors": Counter(UNAVAILABLE=1)}, False),
        ({"latency_ns": 10 * MS, "errors": Counter(UNAVAILABLE=1)}, False),
        ({"latency_ns": 10 * MS, "answers": 100}, None),
        ({"latency_ns": 10 * MS, "under_way": 9}, None),
    ],
)
def test_a_bound_is_met_missed_or_cannot_be_told(fields, met):
    trial = judge(point(OPEN, [window(s, **fields) for s in range(3)]), 50 * MS)
    assert trial.met is met
    assert trial.because


@pytest.mark.parametrize(("p99_ms", "met"), [(10, False), (15, None), (25, None), (30, True)])
def test_windows_that_disagree_leave_a_bound_open_unless_it_is_far_away(p99_ms, met):
    found = point(OPEN, [window(s, latency_ns=ms * MS) for s, ms in enumerate((5, 5, 14))])
    assert failed(found) == {"stable"}
    assert judge(found, p99_ms * MS).met is met


def test_a_rate_that_was_not_kept_up_misses_any_bound():
    windows = [window(s) for s in range(3)]
    for one in windows:
        one.due = 800
    assert judge(point(OPEN, windows), 50 * MS).met is False
