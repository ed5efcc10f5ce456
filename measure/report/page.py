"""Render any number of sections as one self-contained HTML page."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import plotly.io
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from measure.core.record import dumps
from measure.report import trust, values
from measure.report.axes import Figure
from measure.report.section import Cell, Linked, Section, Verdict

_TEMPLATE = "page.html.j2"
# A plot with a legend of a few entries below it; every two more entries take one more row.
_PLOT_HEIGHT, _ROW_HEIGHT, _LINES = 460, 20, 6
_PLOT_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # Named one by one: newer versions of plotly add a button that sends the data to its cloud.
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "plotlyServerURL": "",
}


def render(sections: Sequence[Section], heading: str | None = None) -> str:
    """Return the page; one section is a page of its own, several get an index."""
    sections = [_marked(section) for section in sections]
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"pairs": values.rows, "json": dumps, "cell": _cell, "linked": _linked}
    return page.get_template(_TEMPLATE).render(
        plotlyjs=Markup(get_plotlyjs()),
        heading=heading or (sections[0].heading if len(sections) == 1 else "Results"),
        verdicts=_verdicts(sections),
        sections=sections,
        answers=trust.answers(sections),
        plot=_plot,
    )


def _marked(section: Section) -> Section:
    """Put a verdict on a partial record before the others."""
    if not section.record.get("partial"):
        return section
    because = section.record.get("partial_because", "the record does not say why")
    verdict = Verdict("warn", f"Partial: {because}.")
    return replace(section, verdicts=(verdict, *section.verdicts))


def _verdicts(sections: Sequence[Section]) -> Sequence[Verdict]:
    """Verdicts at the top of the page: those of a lone section, or a summary of several."""
    if len(sections) == 1:
        return sections[0].verdicts
    by_level: dict[str, list[Linked]] = {"fail": [], "warn": []}
    for number, section in enumerate(sections, 1):
        for level, found in by_level.items():
            headlines = [one.headline for one in section.verdicts if one.level == level]
            if headlines:
                found.append(Linked(f"{section.heading}: {headlines[0]}", f"result-{number}"))
                break
    summary = []
    if failed := by_level["fail"]:
        summary.append(Verdict("fail", f"Failed: do not trust {_of(failed, sections)}.", failed))
    if doubted := by_level["warn"]:
        summary.append(Verdict("warn", f"Read {_of(doubted, sections)} with care.", doubted))
    return summary or [Verdict("good", f"None of {len(sections)} results failed.")]


def _of(some: Sequence[Linked], every: Sequence[Section]) -> str:
    return f"{len(some)} of {len(every)} results"


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def _linked(finding: Linked | str) -> Linked:
    return Linked(finding, "") if isinstance(finding, str) else finding


def _plot(name: str, figure: Figure) -> Markup:
    listed = sum(trace.get("showlegend", True) for trace in figure["data"])
    rows = max(0, math.ceil((listed - _LINES) / 2))
    html = plotly.io.to_html(
        figure,
        config=_PLOT_CONFIG,
        include_plotlyjs=False,
        full_html=False,
        default_height=f"{_PLOT_HEIGHT + _ROW_HEIGHT * rows}px",
        div_id=name,
        validate=False,
    )
    return Markup(html)
