"""Make one self-contained HTML page of an inspection."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model.inspect.contents import Inspection
from model.inspect.picture import LINE, PADDING, picture
from model.inspect.text import facts, size


def render(inspection: Inspection) -> str:
    """Render the picture of the graph and the text of the inspection as HTML.

    Raises:
        ModelError: the graph runs in a circle.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters["size"] = size
    return page.get_template("page.html.j2").render(
        inspection=inspection,
        facts=facts(inspection),
        picture=picture(inspection),
        line=LINE,
        padding=PADDING,
    )
