from dataclasses import replace

import plan_calibrations
import pytest
import report_records

from client.errors import UsageError
from measure.core import record_files
from measure.core.comparison import COMPARE_SCHEMA, LOAD_SCHEMA
from measure.core.record import read
from measure.load.record import LoadRecord
from measure.loadgen.record import LONG, QUICK
from measure.report import kinds, load_charts, page, percentiles, trust


def sections(*records):
    return [kinds.section(content) for content in records]


def answers(*records):
    return {answer.name: answer for answer in trust.answers(sections(*records))}


def test_every_kind_of_result_gets_a_section():
    records = [make() for make in report_records.EVERY.values()]
    html = page.render(sections(*records))
    for number, content in enumerate(records, 1):
        assert f'<section class="result" id="result-{number}">' in html
        assert f"Made from a record of schema {content['schema']}." in html
    for title in (
        "Batch size sweep",
        "Execution providers side by side",
        "Under load",
        "Highest rate, p99 within 50 ms",
        "Roofs of the machine",
        "Driven by MLCommons LoadGen",
        "Servers for 5,000 requests/s, p99 within 100 ms",
        "Side by side",
        "Beyond capacity",
    ):
        assert html.count(f">{title}</a></li>") == html.count(f"<h2>{title}</h2>") == 1


def test_what_was_not_measured_is_said_to_be():
    told = answers(report_records.sweep())
    assert {name: answer.passed for name, answer in told.items()} == {
        trust.LABELS: True,
        trust.AA: None,
        trust.CEILING: None,
        trust.SEND_LAG: None,
        trust.LITTLE: None,
        trust.STEAL: True,
    }
    html = page.render(sections(report_records.sweep()))
    assert html.count('<td class="word">not measured</td>') == 4
    assert all(meaning in html.replace("&#39;", "'") for meaning in trust.MEANING.values())


def test_a_load_answers_for_lag_and_littles_law():
    told = answers(report_records.load(), report_records.sweep())
    assert told[trust.SEND_LAG].passed is True
    assert told[trust.LITTLE].passed is True
    late = answers(report_records.load(lag_ns=80_000_000), report_records.sweep())
    assert late[trust.SEND_LAG].passed is False
    assert late[trust.SEND_LAG].texts[0].startswith("Under load: unary, open 100/s: p95 of late")


def test_a_provider_against_itself_is_the_a_a_test():
    assert answers(report_records.compare())[trust.AA].passed is True
    assert answers(report_records.compare(factors=(1.0, 2.0)))[trust.AA].passed is False
    other = answers(report_records.compare(specs=("cpu", "cuda"), factors=(1.0, 2.0)))
    assert other[trust.AA].passed is None


@pytest.mark.parametrize(("factor", "passed"), [(1.24, False), (1.26, True)])
def test_the_client_must_be_faster_without_the_servers_work(factor, passed):
    sweep = report_records.sweep()
    rates = {
        (point["mode"], point["batch_size"]): point["throughput_per_s"] for point in sweep["points"]
    }
    clients = {place: rate * factor for place, rate in rates.items() if place[0] != "local"}
    told = answers(report_records.limits(sweep, clients))[trust.CEILING]
    assert told.passed is passed
    assert answers(report_records.limits(sweep))[trust.CEILING].passed is None


@pytest.mark.parametrize("schema", [COMPARE_SCHEMA, LOAD_SCHEMA])
def test_an_a_a_test_of_its_own_counts_too(schema):
    told = answers(report_records.sweep(), report_records.calibrated(1, schema))[trust.AA]
    assert told.passed is True
    assert told.texts[0].endswith("itself: A/A: no difference in 9 of 10 runs")
    assert answers(report_records.calibrated(2, schema))[trust.AA].passed is False


@pytest.mark.parametrize("schema", [COMPARE_SCHEMA, LOAD_SCHEMA])
def test_a_comparison_with_itself_that_could_not_have_failed_answers_nothing(schema):
    made = report_records.calibrated(0, schema)
    for run in made["runs"]:
        run["could_differ"] = False
    assert answers(made | {"passed": False})[trust.AA].passed is None
    (table,) = kinds.section(made).tables
    assert {row[1] for rows in table.groups for row in rows} == {"could not have failed"}
    # One run that could is told of.
    made["runs"][0]["could_differ"] = True
    assert answers(made)[trust.AA].passed is True


def test_a_load_shows_the_clients_own_part():
    section = kinds.section(report_records.load())
    (table,) = [one for one in section.tables if one.heading == "The client's own part"]
    assert [row[0] for row in table.groups[0]] == [
        *(f"unary, open {rate}/s" for rate in (100, 200, 300)),
        "stream, closed 2",
    ]


def test_steal_of_any_result_counts():
    stolen = report_records.sweep()
    stolen["environment"]["steal_fraction"] = 0.5
    told = answers(report_records.sweep(), stolen)
    assert told[trust.STEAL].passed is False
    assert told[trust.STEAL].texts == ["Batch size sweep: 50.0%"]


def test_labels_that_nobody_knows_are_not_measured():
    unchecked = report_records.load() | {"unchecked_because": "another model"}
    assert answers(unchecked)[trust.LABELS].passed is None


def test_points_beyond_what_a_search_found_speak_against_nothing():
    content = report_records.slo()
    content["points"][1]["checks"][0]["passed"] = False
    assert answers(content)[trust.LABELS].passed is True
    content["trials"][1]["met"] = True
    assert answers(content)[trust.LABELS].passed is False


def test_a_failed_result_among_others_is_said_first():
    broken = report_records.load()
    html = page.render(sections(report_records.sweep(), broken))
    header = html.partition("<header>")[2].partition("</header>")[0]
    assert header.index("Failed: do not trust 1 of 2 results.") < header.index('class="index"')
    assert "1 of 4 points are not valid: do not trust these." in html
    why = "rate: 660 answered of 900 due"
    assert f'<li><a href="#result-2-checks">unary, open 300/s</a>: {why}</li>' in html
    assert '<details id="result-2-checks">' in html
    assert '<a href="#result-2">Under load</a>: 1 of 4 points are not valid' in header


def test_a_knee_is_claimed_only_where_it_was_seen():
    points = read(report_records.load(), LoadRecord).points
    seen, above, below = points, points[:2], points[2:]
    assert load_charts.knees(seen) == {"unary": (200.0, 300.0)}
    assert load_charts.knees(above) == {"unary": (200.0, None)}
    assert load_charts.knees(below) == {"unary": (None, 300.0)}
    assert load_charts.knees([]) == load_charts.knees(points[3:]) == {}
    told = {
        name: [load_charts.knee_text(*knee) for knee in load_charts.knees(some).items()]
        for name, some in (("seen", seen), ("above", above), ("below", below))
    }
    assert told == {
        "seen": ["unary: 200 requests/s was kept up with, 300 was not; the knee is between."],
        "above": ["unary: every rate up to 200 requests/s was kept up with; no knee was seen."],
        "below": ["unary: not even the lowest rate, 300 requests/s, was kept up with."],
    }
    for some, marks in ((seen, 1), (above, 0), (below, 0)):
        chosen = [point for point in some if point.asked.loop == "open"]
        figure = load_charts.latency(chosen, "open", load_charts.knees(chosen), None)
        assert len(figure["layout"]["shapes"]) == marks


def test_each_mode_has_a_knee_of_its_own():
    points = read(report_records.load(), LoadRecord).points[:3]
    slow = [replace(p, asked=replace(p.asked, mode="stream")) for p in points]
    fast = [replace(p, checks=()) for p in points]
    assert (
        load_charts.knees([*fast, *slow])
        == load_charts.knees([*slow, *fast])
        == {
            "unary": (300.0, None),
            "stream": (200.0, 300.0),
        }
    )


@pytest.mark.parametrize("change", [{"schema": "other"}, {"points": None}, {"settings": {}}])
def test_what_cannot_be_read_is_refused(change):
    with pytest.raises(UsageError, match=r"made\.json: "), record_files.naming("made.json"):
        kinds.section(report_records.slo() | change)


def test_a_curve_is_of_nearest_ranks_as_far_as_samples_suffice():
    one = percentiles.of_times("a", "#0072B2", range(1_000_000, 460_000_000, 1_000_000))
    assert one.samples == 459
    ((curve,), _) = percentiles.curves([one]).values()
    assert curve["customdata"][-1] == "p99"
    assert curve["y"][-1] == pytest.approx(455, abs=1)
    assert curve["y"] == sorted(curve["y"])
    assert percentiles.curves([percentiles.of_times("a", "#0072B2", [1, 2, 3])]) is None


def test_a_histogram_has_every_sample_once():
    one = percentiles.of_times("a", "#0072B2", [1000] * 5 + [2000] * 3 + [900_000])
    table = percentiles.histograms([one], "of")
    (rows,) = table.groups
    assert [row[3] for row in rows] == ["5", "3", "1"]
    assert rows[-1][5] == "100.00%"
    decoded = percentiles.of_histogram(
        "b", "#0072B2", report_records.load()["points"][0]["latency_histogram"]
    )
    assert decoded.samples == 300
    assert len(set(decoded.times_ns)) == len(decoded.times_ns) > 100


def table(section, heading):
    (found,) = (one for one in section.tables if one.heading.startswith(heading))
    rows = [row for group in found.groups for row in group]
    return [
        dict(zip(found.columns, (getattr(cell, "text", cell) for cell in row), strict=True))
        for row in rows
    ]


@pytest.mark.parametrize(("quick_s", "label"), [(5.0, QUICK), (None, LONG)])
def test_what_loadgen_drove_is_said_to_be_no_mlperf_result(quick_s, label):
    (told,) = sections(report_records.loadgen(quick_s))
    levels = {verdict.level for verdict in told.verdicts}
    assert levels == ({"good"} if quick_s is None else {"good", "warn"})
    header = page.render([told]).partition('<div class="table trust"')[0]
    assert label in header.replace("&#39;", "'")
    assert told.tables[0].heading == f"Scenarios ({label})"
    assert told.plots[0].caption.startswith(label)


def test_loadgens_latencies_are_shown_as_far_as_its_queries_tell():
    (told,) = sections(report_records.loadgen())
    rows = {row["scenario"]: row for row in table(told, "Scenarios")}
    single, offline = rows["SingleStream"], rows["Offline"]
    assert (single["LoadGen says"], single["result"], single["of"]) == (
        "VALID",
        "3.00",
        "ms 90th percentile latency",
    )
    assert (single["p99, ms"], single["p99.9, ms"]) == ("5.00", "-")
    assert offline["p50, ms"] == "-"
    (plot,) = told.plots
    lines = {line["name"]: line for line in plot.figure["data"]}
    assert set(lines) == {"SingleStream", "MultiStream", "Server"}
    assert lines["Server"]["customdata"] == ["p50", "p90", "p99"]
    assert lines["Server"]["y"] == [6, 9, 15]
    assert [line["y0"] for line in plot.figure["layout"]["shapes"]] == [100]


def test_what_loadgen_calls_invalid_is_said_with_its_reasons():
    why = "Performance constraints satisfied: no"
    (told,) = sections(report_records.loadgen(reasons=(why,)))
    assert (told.verdicts[0].level, told.verdicts[0].findings) == ("fail", [f"Server: {why}"])
    assert [card.heading for card in told.cards] == ["SingleStream", "MultiStream", "Offline"]
    # The labels are right all the same.
    assert answers(report_records.loadgen(reasons=(why,)))[trust.LABELS].passed is True


@pytest.mark.parametrize(
    ("wrong", "failures", "text"),
    [
        (3, None, "Server: 2,256 labels, 3 wrong"),
        (0, {"performance": "UNAVAILABLE"}, "Server: 256 labels, 0 wrong; performance failed"),
    ],
)
def test_wrong_labels_and_runs_that_fail_are_not_trusted(wrong, failures, text):
    content = report_records.loadgen(wrong=wrong, failures=failures)
    told = answers(content)
    assert (told[trust.LABELS].passed, told[trust.LABELS].texts) == (False, [text])
    assert sections(content)[0].verdicts[0].level == "fail"


def test_a_plan_is_told_with_what_it_rests_on():
    content = report_records.planned()
    (told,) = sections(content)
    assert [(one.level, one.headline) for one in told.verdicts] == [
        ("good", f"{content['answer']}.")
    ]
    assert told.cards[0].facts[0] == (str(content["plan"]["replicas"]), "replicas")
    held_out = table(told, "Loads that were held out")
    assert [row["verdict"] for row in held_out] == ["holds"] * 3
    (chosen,) = (row for row in table(told, "Ways to batch") if row[""])
    assert chosen["group rows"] == str(content["plan"]["chosen"]["limits"]["group_rows"])
    assert [row["as"] for row in table(told, "Network")] == ["float32", "float16", "int8"]
    costs = {row["what"]: row["value"] for row in table(told, "Costs")}
    assert (costs["receiving a request"], costs["speed of executing"]) == ("1.50", "40%")
    band, measured, predicted = told.plots[0].figure["data"]
    wanted = [one["load"]["p99_ns"] / 1e6 for one in content["checks"]]
    assert measured["y"] == wanted
    assert band["y"] == pytest.approx(
        [0.8 * value for value in wanted] + [1.2 * value for value in wanted[::-1]]
    )
    assert predicted["y"] == [one["predicted"]["p99_ns"] / 1e6 for one in content["checks"]]


def test_a_plan_that_is_refused_says_why_and_shows_no_other():
    made = plan_calibrations.calibration()
    off = tuple(replace(load, p99_ns=3 * load.p99_ns) for load in made.held_out)
    (told,) = sections(report_records.planned(replace(made, held_out=off)))
    refused, others = told.verdicts
    assert refused.level == "fail"
    assert refused.headline.startswith("no plan: at 122 requests/s")
    # The lowest is in the answer already.
    assert len(others.findings) == 2
    assert not told.cards
    headings = [one.heading for one in told.tables]
    assert headings == ["Loads that were held out", "Costs", "Loads that were measured"]


def test_a_plan_answers_with_the_doubts_of_its_calibration():
    made = plan_calibrations.calibration()
    told = answers(report_records.planned(made))
    for name in (trust.LABELS, trust.SEND_LAG, trust.LITTLE, trust.STEAL):
        assert told[name].passed is True, name
    late = replace(made.fitted[0], doubts=("send lag: p99 3 ms", "stable: no", "steal: 9%"))
    busy = replace(made.busy, doubts=("little: rate x latency = 1",))
    doubted = replace(made, fitted=(late, *made.fitted[1:]), busy=busy)
    told = answers(report_records.planned(doubted))
    assert told[trust.SEND_LAG].texts == ["open 87.5/s: p99 3 ms"]
    assert told[trust.LITTLE].texts == ["concurrency 16: rate x latency = 1"]
    for name in (trust.SEND_LAG, trust.LITTLE, trust.STEAL):
        assert told[name].passed is False, name
    assert told[trust.LABELS].passed is True


@pytest.mark.parametrize("changes", [{"address": "host:1"}, {"result": "results/plan"}])
def test_a_plan_of_another_server_does_not_tell_whether_labels_were_known(changes):
    assert answers(report_records.planned(**changes))[trust.LABELS].passed is None


def test_goals_are_told_with_their_ratios():
    (told,) = sections(report_records.bench())
    assert [(verdict.level, verdict.headline) for verdict in told.verdicts] == [
        ("good", "Goals: 2 reached, 9 not measured.")
    ]
    assert table(told, "Goals")[0] == {
        "goal": "stream share of the raw socket",
        "verdict": "reached",
        "what": "stream >= 0.88 of the raw TCP socket, n=1024",
    }
    first = table(told, "Ratios")[0]
    assert (first["median"], first["pairs"], first["wanted"]) == ("0.900", "3", "at least 0.88")
    stream = {row["system"]: row for row in table(told, "Systems")}["this service, stream"]
    assert stream["predictions/s"] == "900"
    (missed,) = sections(report_records.bench(stream=800.0))[0].verdicts
    assert missed.level == "warn"
    assert missed.findings == [
        "stream share of the raw socket: stream >= 0.88 of the raw TCP socket, n=1024"
    ]
    (told,) = sections(report_records.overload())
    assert [row["verdict"] for row in table(told, "Goals")] == ["reached"] * 3


def test_goals_with_wrong_labels_or_failures_are_not_trusted():
    # That a peer fails speaks against the peer.
    assert answers(report_records.bench(peer_error="no memory"))[trust.LABELS].passed is True
    assert answers(report_records.overload())[trust.LABELS].passed is True
    for content in (report_records.bench(wrong=2), report_records.overload(["2 wrong labels"])):
        assert answers(content)[trust.LABELS].passed is False
        assert sections(content)[0].verdicts[0].level == "fail"


def test_labels_of_rows_that_were_rounded_to_be_sent_are_not_called_wrong():
    content = report_records.bench()
    content["narrow"] = [content["systems"][1]["points"][0] | {"wrong_labels": 55}]
    assert answers(content)[trust.LABELS].passed is True


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (report_records.bench, {"systems": [{}]}),
        (report_records.overload, {"goals": 3}),
        (report_records.loadgen, {"results": [{"scenario": "Server"}]}),
        (report_records.loadgen, {"results": 3}),
        (report_records.planned, {"calibration": {}}),
        (report_records.planned, {"checks": [{}]}),
        (report_records.planned, {"plan": {"replicas": 3}}),
    ],
)
def test_a_record_that_lacks_something_is_refused(make, change):
    with pytest.raises(UsageError, match=r"made\.json: "), record_files.naming("made.json"):
        kinds.section(make() | change)
