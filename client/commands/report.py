"""The command `report`: one page of any set of results."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from client import record_files
from client.errors import UsageError
from client.record import RecordError, write_text_atomically
from client.reporting import kinds, page
from client.reporting.section import Section
from command_line.parser import exit_codes
from command_line.paths import path


def add(commands: "argparse._SubParsersAction[Any]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "report", help="one HTML page of any set of results", epilog=exit_codes(None)
    )
    parser.set_defaults(command=_report)
    parser.add_argument(
        "places",
        nargs="+",
        type=path,
        metavar="DIR",
        help="folders with results of other commands, or their JSON files",
    )
    parser.add_argument(
        "--out",
        type=path,
        default=Path("results/report.html"),
        metavar="PAGE.html",
        help="file to write (default: %(default)s)",
    )


def _report(args: argparse.Namespace) -> int:
    """Exit code 0: the page is written, whatever the results say."""
    sections = list(_sections(args.places))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(args.out, page.render(sections))
    print(args.out)
    return 0


def _sections(places: Sequence[Path]) -> Iterator[Section]:
    """Make a section of each record; those of one kind are told apart by where they lie."""
    made = []
    for place, content in record_files.found(places, kinds.SECTIONS):
        try:
            made.append((place, kinds.section(content)))
        except RecordError as error:
            raise UsageError(f"{place}: {error}") from None
    seen = Counter(section.heading for _, section in made)
    for place, section in made:
        several = seen[section.heading] > 1
        yield replace(section, heading=f"{section.heading}: {place.parent}") if several else section
