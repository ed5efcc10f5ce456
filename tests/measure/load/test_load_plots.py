from dataclasses import replace

import report_records

from measure.core.record import read
from measure.load.plots import latency_figure, ticks
from measure.load.record import LoadRecord
from measure.presentation.looks import MODES, OTHERS, looks_of
from measure.report import load_charts
from measure.report.sections import sweep
from measure.side_by_side.plot import LOOKS as BENCH


def points(loop, levels, mode="unary"):
    """Sound points of one loop at these loads."""
    one = next(p for p in read(report_records.load(), LoadRecord).points if p.asked.loop == "open")
    fields = {"loop": loop, "mode": mode}
    return [
        replace(
            one,
            asked=replace(
                one.asked,
                **fields,
                concurrency=level if loop == "closed" else None,
                rate_per_s=float(level) if loop == "open" else None,
            ),
        )
        for level in levels
    ]


def labels(figure):
    (axes,) = figure.axes
    return [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]


def test_titles_and_ticks_are_those_of_the_loop():
    closed, opened = points("closed", (1, 2, 3)), points("open", (100, 300, 700))
    for loop, chosen, title, told in (
        ("closed", closed, "Latency as Concurrency Changes", ["1", "2", "3"]),
        ("open", opened, "Latency as Offered Rate Changes", ["100", "300", "700"]),
    ):
        figure = latency_figure(chosen, loop)
        (axes,) = figure.axes
        assert axes.get_title() == title
        assert labels(figure) == told
        described = load_charts.latency(chosen, loop, {}, None)["layout"]
        assert described["title"]["text"] == title
        assert described["xaxis"]["ticktext"] == told


def test_only_measured_loads_are_labelled_and_none_on_another():
    many = points("closed", range(1, 65))
    placed = ticks(many, "closed")
    assert placed[-1] == 64
    assert set(placed) <= set(range(1, 65))
    assert len(placed) < 14
    assert ticks(points("open", (100, 200, 400, 3000)), "open") == [100, 200, 400, 3000]
    assert ticks([], "open") == []


def test_a_mode_has_one_colour_in_every_picture():
    both = [*points("closed", (1, 2)), *points("closed", (1, 2), "stream")]
    (axes,) = latency_figure(both, "closed").axes
    drawn = {line.get_color() for line in axes.lines}
    assert drawn == {MODES["unary"].colour, MODES["stream"].colour}
    traces = load_charts.latency(both, "closed", {}, None)["data"]
    assert {trace["line"]["color"] for trace in traces} == drawn
    for mode, look in MODES.items():
        assert BENCH[mode] == look
    plots = {plot.name: plot.figure for plot in sweep.section(report_records.sweep()).plots}
    for name in ("latency", "throughput", "percentiles"):
        for trace in plots[name]["data"]:
            mode = trace.get("name", "").partition(",")[0]
            if mode in MODES:
                assert trace["line"]["color"] == MODES[mode].colour, (name, mode)


def test_what_is_no_mode_has_no_modes_colour():
    names = ["unary", *(f"provider {number}" for number in range(len(OTHERS)))]
    found = looks_of(names)
    assert len({look.colour for look in found.values()}) == len(names)
    assert not {look.colour for name, look in found.items() if name not in MODES} & {
        look.colour for look in MODES.values()
    }
