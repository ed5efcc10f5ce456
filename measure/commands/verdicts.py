"""Print verdicts, findings, and the files that were written."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from command_line.interruption import Kept
from measure.core.verdict import Finding
from measure.report.section import Verdict

_STYLES = {"fail": "bold red", "warn": "yellow"}


def show(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print verdicts, each with its findings below."""
    for verdict in verdicts:
        style = _STYLES.get(verdict.level, "")
        console.print(Text(verdict.headline, style=style))
        for finding in verdict.findings:
            console.print(Text(f"- {finding}", style=style))


def show_findings(console: Console, findings: Iterable[Finding], before: str = "") -> None:
    """Print findings, a line each, with the same words `before` all of them."""
    for finding in findings:
        text = Text(f"{before}{finding.text}", style=_STYLES.get(finding.level, ""))
        console.print(text, soft_wrap=True)


def end(console: Console, paths: Iterable[Path], kept: Kept, folder: Path) -> None:
    """Print the files that were written; Interrupted if a signal ended the measurement."""
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    kept.end(folder)
