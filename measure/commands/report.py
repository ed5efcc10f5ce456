"""The command `report`: one page of any set of results."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from jinja2 import TemplateError

from client.errors import UsageError
from command_line.parser import add_option, exit_codes
from command_line.paths import path
from measure.core import record_files
from measure.core.record import write_text_atomically
from measure.report import kinds, page
from measure.report.section import Section

# Errors of rendering a value of another type than the page takes.
_UNSHOWN = (AttributeError, TypeError, ValueError, TemplateError)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes(None)
    parser.set_defaults(command=_report)
    parser.add_argument(
        "places",
        nargs="+",
        type=path,
        metavar="DIR",
        help="folders with results of other commands, or their JSON files",
    )
    page_path = Path("results/report.html")
    add_option(parser, "--out", path, page_path, "PAGE.html", "file to write")


def _report(args: argparse.Namespace) -> int:
    """Exit code 0: the page is written, whatever the results say."""
    html = _page(list(_sections(args.places)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(args.out, html)
    print(args.out)
    return 0


def _warn(text: str) -> None:
    print(f"warning: {text}; it is not on the page", file=sys.stderr)


def _page(sections: Sequence[tuple[Path, Section]]) -> str:
    """Render the page; UsageError names the file whose values cannot be shown."""
    try:
        return page.render([section for _, section in sections])
    except _UNSHOWN:
        # Sections pass on some values unchecked, and the template does not know their files.
        for path, section in sections:
            try:
                page.render([section])
            except _UNSHOWN as error:
                raise UsageError(
                    f"{path}: the record holds a value of a wrong type: {error}"
                ) from None
        raise


def _sections(places: Sequence[Path]) -> Iterator[tuple[Path, Section]]:
    """Make a section of each record; headings of one kind name their folders."""
    made = []
    for place, content in record_files.found(places, kinds.SECTIONS, _warn):
        with record_files.naming(place):
            made.append((place, kinds.section(content)))
    seen = Counter(section.heading for _, section in made)
    for place, section in made:
        several = seen[section.heading] > 1
        heading = f"{section.heading}: {place.parent}" if several else section.heading
        yield place, replace(section, heading=heading)
