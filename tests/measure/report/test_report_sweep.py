import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import plotly.graph_objects
import pytest

from measure.core.record import RecordError, dumps
from measure.core.stages import Sample, Stages
from measure.presentation.format import share
from measure.report import charts, page, stages
from measure.report.sections import sweep as reported
from measure.report.values import rows
from measure.sweep import record
from measure.sweep.summary import summarise

HOSTILE = "</script><img src=http://evil.example/x onerror=alert(1)>\"'&{{ 7 * 7 }}"
STAGES = Stages(100_000, 200_000, 300_000, 400_000, 2.0, "CPUExecutionProvider")


def point(mode="unary", batch_size=2, samples=5, **fields):
    one = Sample(mode, batch_size, 0, 1_000_000, 2_000_000, batch_size, stages=STAGES, **fields)
    return summarise(mode, batch_size, [one] * samples)


def sweep(**fields):
    modes = ("local", "unary", "stream")
    return [point(mode, size, **fields) for mode in modes for size in (1, 2, 1024)]


def recorded(points, settings=None, environment=None):
    whole = record.to_json(settings or {"seed": 7}, environment or {"cores": 2}, points)
    return json.loads(dumps(whole))


def render(content):
    return page.render([reported.section(content)])


class Page(HTMLParser):
    """The page as a browser sees it: what it names, what it shows, its scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.classes, self.text, self.scripts = [], [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            fetched = name in {"src", "href", "action", "data", "srcset", "poster"}
            if fetched and not (value or "").startswith("#"):
                self.links.append(value)
            if name == "class":
                self.classes += (value or "").split()

    def handle_data(self, data):
        target = self.scripts if self.tags[-1:] == ["script"] else self.text
        target.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def own_scripts(self):
        return "\n".join(script for script in self.scripts if len(script) < 500_000)


def test_the_page_needs_nothing_from_elsewhere():
    page = Page(render(recorded(sweep())))
    assert page.links == ["data:,"]
    assert not {"iframe", "object", "embed", "form"} & set(page.tags)
    assert "http" not in page.own_scripts
    assert any(len(script) > 500_000 for script in page.scripts)


def test_the_browser_is_told_to_fetch_nothing():
    head = render(recorded(sweep())).partition("<script")[0]
    assert "default-src 'none'" in head
    assert 'name="viewport" content="width=device-width' in head
    assert "prefers-color-scheme: dark" in head


def test_the_page_has_the_asked_plots():
    scripts = Page(render(recorded(sweep()))).own_scripts
    for words in (
        "Latency as Batch Size Changes",
        "latency (seconds before first prediction)",
        "Throughput as Batch Size Changes",
        "throughput (predictions\\u002fsecond)",
        charts.FIRST_AND_LAST_TITLE,
        stages.SHARES_TITLE,
        "batch size",
    ):
        assert words in scripts


def test_plots_for_which_nothing_was_measured_are_left_out():
    local = summarise("local", 1, [Sample("local", 1, 0, 1, 1, 1)] * 5)
    scripts = Page(render(recorded([local]))).own_scripts
    assert "Latency as Batch Size Changes" in scripts
    assert charts.FIRST_AND_LAST_TITLE not in scripts
    assert stages.SHARES_TITLE not in scripts


def test_agreement_is_said_first_in_green():
    page = Page(render(recorded(sweep())))
    assert [name for name in page.classes if name in {"good", "fail"}] == ["good"]
    assert "All 15,405 labels agree with the float64 reference." in page.words


def test_near_ties_that_differ_are_not_called_agreement():
    page = Page(render(recorded([point(near_ties=1, disagreements=1)])))
    assert "All" not in page.words.split("Latency")[0]
    assert "No wrong label: 5 of 10 labels agree" in page.words


@pytest.mark.parametrize("fields", [{"wrong_labels": 1}, {"error": "UNAVAILABLE: gone"}])
def test_failures_are_said_first_in_red(fields):
    page = Page(render(recorded([point(), point(batch_size=4, **fields)])))
    assert page.classes[:2] == ["verdict", "fail"]
    assert "good" not in page.classes
    assert "batch size 4" in page.words


def test_warnings_are_amber():
    page = Page(render(recorded([point(samples=2)])))
    assert page.classes[:2] == ["verdict", "warn"]
    assert "good" not in page.classes
    assert "fewer than 3 samples" in page.words


def test_failures_show_although_the_record_lost_its_findings():
    written = recorded([point(wrong_labels=1)]) | {"findings": []}
    assert "fail" in Page(render(written)).classes


def test_findings_that_the_record_adds_are_shown():
    written = recorded([*sweep(), point(batch_size=8, samples=2)])
    written["findings"].append({"level": "fail", "text": "the client was the bottleneck"})
    page = Page(render(written))
    assert page.classes[:2] == ["verdict", "fail"]
    assert "the client was the bottleneck" in page.words
    assert page.words.partition("Record:")[0].count("fewer than 3 samples") == 1


def test_hostile_text_stays_text():
    points = [*sweep(), point(mode=HOSTILE), point(batch_size=8, error=HOSTILE)]
    written = recorded(points, {HOSTILE: HOSTILE}, {"cpu_model": HOSTILE, "cores": 2})
    page, plain = Page(render(written)), Page(render(recorded(sweep())))
    assert page.links == ["data:,"]
    assert "img" not in page.tags
    assert page.tags.count("script") == plain.tags.count("script")
    assert HOSTILE in page.words
    # Plotly reads names as its own small HTML, so they are escaped once more there.
    assert "<img" not in page.own_scripts
    assert "\\u003cimg" not in page.own_scripts


def test_the_table_holds_every_point():
    html = render(recorded(sweep()))
    table = html.partition(">Points</h3>")[2].partition("</table>")[0]
    assert len(re.findall(r'<th scope="row">', table)) == 9
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    # Too few samples for a p90.
    assert cells[:5] == ["1", "1.00", "1.00", "-", "1.00"]
    assert cells[5:10] == ["2.00", "2.00", "-", "2.00", "500"]
    assert "1,024" in cells
    assert "512,000" in cells


def test_the_percentile_definition_is_stated():
    assert "nearest rank" in Page(render(recorded(sweep()))).words


def test_settings_and_environment_are_shown_flat():
    settings = {"classes": 64, "features": 262144, "dtype": "float32", "server": {"threads": 2}}
    environment = {"cpu_model": "A chip", "cores": 2, "steal_fraction": 0.001}
    words = Page(render(recorded(sweep(), settings, environment))).words
    assert "server.threads 2" in words
    assert "steal_fraction 0.10%" in words
    assert "64 classes, 262,144 features in float32" in words
    assert "local, unary and stream, at 3 batch sizes from 1 to 1,024, on A chip, 2 cores" in words


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("a", None, "-"),
        ("a", True, "yes"),
        ("a_bytes", 1048576, "1,048,576 (1.00 MiB)"),
        ("a", [1, 2], "1, 2"),
        ("a", 1.5, "1.5"),
    ],
)
def test_values_are_shown_as_text(name, value, text):
    assert rows({name: value}) == [(name, text)]


def test_a_share_never_rounds_up_to_everything():
    assert share(1.0) == "100%"
    assert share(1 - 1e-9) == "99.9999%"
    assert share(None) == "-"


def test_a_record_of_nothing_still_makes_a_page():
    assert "nothing was measured" in Page(render(recorded([]))).words


def test_a_record_of_failures_alone_still_makes_a_page():
    assert "fail" in Page(render(recorded(sweep(error="CANCELLED")))).classes


def test_another_schema_is_refused():
    with pytest.raises(RecordError):
        render({"schema": "other/1"})


def test_plotly_knows_every_attribute_that_the_charts_use():
    for figure in (charts.latency, charts.throughput, charts.first_and_last, stages.shares):
        described = figure(sweep())
        # What older versions of plotly ignore.
        described["layout"]["xaxis"].pop("unifiedhovertitle")
        plotly.graph_objects.Figure(described)


def test_charts_show_the_numbers_in_seconds_on_log_axes():
    figure = charts.latency(sweep())
    lines = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    assert lines["stream"]["x"] == [1, 2, 1024]
    assert lines["stream"]["y"] == [0.001] * 3
    assert lines["stream"]["customdata"][2] == ["1.00", "-", "512,000"]
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
    assert figure["layout"]["xaxis"]["ticktext"][-1] == "1024"


def test_first_is_drawn_against_last():
    _, last, first = charts.first_and_last(sweep())["data"]
    assert (last["y"], first["y"]) == ([0.002] * 3, [0.001] * 3)


def test_the_stages_make_up_the_whole_of_the_latency():
    data = stages.shares(sweep())["data"]
    assert [trace["name"] for trace in data] == ["decode", "queue", "assemble", "compute", "other"]
    assert [trace["y"][0] for trace in data] == pytest.approx([5, 10, 15, 20, 50])
    assert data[4]["customdata"][0] == "1.00"


def test_of_stages_that_overlap_only_what_one_is_longer_by_is_drawn():
    times = stages.split(
        {
            **{"send_ns": 3.0, "server_receive_ns": 5.0, "network_ns": 1.0, "decode_ns": 2.0},
            **{"server_send_ns": 4.0, "answer_receive_ns": 1.0, "receive_ns": 7.0},
        }
    )
    assert (times["send"], times["server receive"]) == (3, 2)
    assert (times["server send"], times["answer receive"]) == (4, 0)
    # Decoding at the server is not decoding at the client.
    assert (times["decode"], times["client decode"]) == (2, 7)
    data = stages.waterfall([("a", times)])["data"]
    assert sum(trace["x"][0] for trace in data) * 1e6 == pytest.approx(3 + 2 + 1 + 2 + 4 + 7)


@pytest.mark.parametrize("receive_ns", [None, 0, 1000])
def test_the_page_says_where_receiving_is_unknown(receive_ns):
    points = [
        replace(one, stages=replace(one.stages, server_receive_ns=receive_ns)) for one in sweep()
    ]
    plots = {plot.name: plot.caption for plot in reported.section(recorded(points)).plots}
    told = "the server reports no time for receiving messages" in plots["stages"]
    assert told is (receive_ns is None)


def test_every_stage_has_a_colour_of_its_own():
    assert len(set(stages.COLOURS.values())) == len(stages.COLOURS)
