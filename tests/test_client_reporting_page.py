import pytest
import report_records

from client.calibration import COMPARE_SCHEMA, LOAD_SCHEMA
from client.load.record import from_json
from client.record import RecordError
from client.reporting import kinds, load_charts, page, percentiles, trust


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
    ):
        assert html.count(f">{title}</a>") == html.count(f"<h2>{title}</h2>") == 1


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
    assert "<li>unary, open 300/s: rate</li>" in html


def test_the_knee_is_the_last_rate_that_was_kept_up_with():
    points = from_json(report_records.load())
    assert load_charts.knee(points) == (200.0, 300.0)
    assert load_charts.knee(points[:2]) == (200.0, None)
    assert load_charts.knee(points[2:]) == (None, 300.0)
    assert load_charts.knee([]) == (None, None)


@pytest.mark.parametrize("change", [{"schema": "other"}, {"points": None}, {"settings": {}}])
def test_what_cannot_be_read_is_refused(change):
    with pytest.raises(RecordError):
        kinds.section(report_records.slo() | change)


def test_a_curve_is_of_nearest_ranks_as_far_as_samples_suffice():
    one = percentiles.of_times("a", range(1_000_000, 460_000_000, 1_000_000))
    assert one.samples == 459
    ((curve,), _) = percentiles.curves([one]).values()
    assert curve["customdata"][-1] == "p99"
    assert curve["y"][-1] == pytest.approx(455, abs=1)
    assert curve["y"] == sorted(curve["y"])
    assert percentiles.curves([percentiles.of_times("a", [1, 2, 3])]) is None


def test_a_histogram_has_every_sample_once():
    one = percentiles.of_times("a", [1000] * 5 + [2000] * 3 + [900_000])
    table = percentiles.histograms([one], "of")
    (rows,) = table.groups
    assert [row[3] for row in rows] == ["5", "3", "1"]
    assert rows[-1][5] == "100.00%"
    decoded = percentiles.of_histogram("b", report_records.load()["points"][0]["latency_histogram"])
    assert decoded.samples == 300
    assert len(set(decoded.times_ns)) == len(decoded.times_ns) > 100
