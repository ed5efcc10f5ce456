"""Make an HTML page that needs nothing else out of a template and plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.io
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from client import table
from client.charts import Figure

_PLOT_HEIGHT = "460px"
_PLOT_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # Named one by one: newer versions of plotly add a button that sends the data to its cloud.
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "plotlyServerURL": "",
}


def render(template: str, plots: Mapping[str, Figure], **values: Any) -> str:
    """Return the page that a template of this folder makes of plots and other values."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"ms": table.milliseconds, "significant": table.significant}
    page.filters |= {"share": table.share, "mean_rows": table.rows}
    return page.get_template(template).render(
        plotlyjs=Markup(get_plotlyjs()),
        plots={name: _plot(name, figure) for name, figure in plots.items()},
        **values,
    )


def _plot(name: str, figure: Figure) -> Markup:
    html = plotly.io.to_html(
        figure,
        config=_PLOT_CONFIG,
        include_plotlyjs=False,
        full_html=False,
        default_height=_PLOT_HEIGHT,
        div_id=name,
        validate=False,
    )
    return Markup(html)
