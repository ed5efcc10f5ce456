"""Show the roofs of the machine, and the points of a result below them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from measure.core.record import read
from measure.core.verdict import Check
from measure.limits.peaks import Roof
from measure.limits.placement import CLIENT, Placed
from measure.limits.record import LimitsRecord
from measure.limits.roofline import TITLE, X_LABEL, Y_LABEL, lines, span
from measure.limits.subject import Work
from measure.limits.table import HOW_BINDING, ROOF_COLUMNS, point_columns
from measure.presentation.looks import looks_of
from measure.report import trust
from measure.report.axes import INK, LEGEND_BELOW, Figure, layout_of, log_axis
from measure.report.section import Plot, Section, Table, Verdict, table_of
from measure.report.values import on

# How much faster the client must be with a server that computes nothing.
_FASTER = 1.25
_DASHES = ("solid", "dash", "dashdot", "dot")
_NOTE = "The columns on the right: rows a second that this roof alone would allow."


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of the limits' record. RecordError where it cannot be read."""
    record = read(content, LimitsRecord)
    roofs, placed, settings = record.roofs, record.points, record.settings
    tables = [_roofs(roofs, record.skipped)]
    plots = []
    if placed and record.work is not None:
        tables.insert(0, table_of("Points", point_columns(placed), [placed], note=_NOTE))
        plots.append(
            Plot(
                "roofline",
                _roofline(roofs, placed, record.work),
                "Points: what was reached. Lines: what the machine gives, each alone; the wire's "
                "and the copy's hold for modes that send rows.",
            )
        )
    result = settings["result"]
    what = "The roofs alone" if result is None else f"What is placed under them: {result}"
    return Section(
        heading="Roofs of the machine",
        sentence=f"{what}. Best of {settings['rounds']} rounds"
        f"{on(record.environment)}. {HOW_BINDING}",
        verdicts=[
            *trust.with_care(record.environment, headline="The roofs may be too low:"),
            *_verdicts(placed, record.differences),
        ],
        checks=[*_ceilings(placed), trust.steal(record.environment)],
        plots=plots,
        tables=tables,
        record=dict(content),
        name="limits.json",
    )


def _ceilings(placed: Sequence[Placed]) -> list[Check]:
    """Whether the client could have shown more than it did."""
    verdicts = []
    for one in placed:
        if CLIENT in one.ceilings:
            factor = one.ceilings[CLIENT] / one.rate.rows_per_s
            text = f"{one.rate.label}: without a server's work {factor:.2f} times as fast"
            verdicts.append((factor >= _FASTER, text))
    return trust.gathered(trust.CEILING, verdicts)


def _verdicts(placed: Sequence[Placed], differences: Sequence[str]) -> list[Verdict]:
    verdicts = []
    if differences:
        verdicts.append(
            Verdict("warn", "The result was not measured as the roofs were:", differences)
        )
    over = [
        f"{one.rate.label}: {one.share:.0%} of {one.binding}" for one in placed if one.share > 1
    ]
    if over:
        headline = "Above a roof: that roof was measured too low, or caches hold what it counts."
        verdicts.append(Verdict("warn", headline, over))
    if placed:
        near = max(placed, key=lambda one: one.share)
        text = f"Nearest to its roof: {near.rate.label}, {near.share:.0%} of {near.binding}."
        verdicts.append(Verdict("good", text))
    return verdicts


def _roofline(roofs: Sequence[Roof], placed: Sequence[Placed], work: Work) -> Figure:
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": x,
            "y": y,
            "line": {"color": INK, "dash": dash, "width": 1.8},
            "hovertemplate": f"{name}: %{{y:.3~g}} GFLOP/s<extra></extra>",
        }
        for dash, (name, (x, y)) in zip(_DASHES, lines(roofs, work, span(placed)), strict=True)
    ]
    for mode, look in looks_of([one.rate.mode for one in placed]).items():
        chosen = [one for one in placed if one.rate.mode == mode]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(mode),
                "x": [one.intensity for one in chosen],
                "y": [one.gflop_per_s for one in chosen],
                "customdata": [
                    f"{escape(one.rate.label)}: {one.share:.1%} of {one.binding}" for one in chosen
                ],
                "marker": {"color": look.colour, "symbol": look.symbol, "size": 10},
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    layout = {
        "hovermode": "closest",
        "showlegend": True,
        "xaxis": log_axis(X_LABEL),
        "yaxis": log_axis(Y_LABEL),
    }
    return {"data": data, "layout": layout_of(TITLE) | LEGEND_BELOW | layout}


def _roofs(roofs: Sequence[Roof], skipped: Mapping[str, str]) -> Table:
    table = table_of("Roofs", ROOF_COLUMNS, [roofs])
    others = [(name, "not measured", "-", "-", why, "-") for name, why in skipped.items()]
    return replace(table, groups=[[*table.groups[0], *others]])
