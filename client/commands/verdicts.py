"""Say in the terminal what a page says first."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from client.reporting.section import Verdict

_STYLES = {"fail": "bold red", "warn": "yellow"}


def show(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print verdicts, each with its findings below."""
    for verdict in verdicts:
        style = _STYLES.get(verdict.level, "")
        console.print(Text(verdict.headline, style=style))
        for finding in verdict.findings:
            console.print(Text(f"- {finding}", style=style))
