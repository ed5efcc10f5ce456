"""Make one HTML page of an inspection that needs nothing else."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model.inspect.contents import Inspection
from model.inspect.picture import LINE, PADDING, picture
from model.inspect.text import facts, size


def render(found: Inspection) -> str:
    """Draw the graph, then show what the text of the inspection says, as HTML.

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
        found=found,
        facts=facts(found),
        picture=picture(found),
        line=LINE,
        padding=PADDING,
    )
