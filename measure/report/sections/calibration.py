"""Show an A/A test: how often a comparison with itself claimed a difference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from measure.core.comparison import COMPARE_SCHEMA, SAID
from measure.core.record import decoded
from measure.core.verdict import Check
from measure.presentation.columns import Column
from measure.presentation.format import flagged
from measure.report import trust
from measure.report.section import Section, Verdict, table_of
from measure.report.values import on


@dataclass(frozen=True, slots=True)
class _Run:
    differs: bool
    pairs: list[Any]
    # Older records do not have it.
    could_differ: bool = True

    @property
    def verdict(self) -> Text:
        said = SAID[self.differs if self.could_differ else None]
        return flagged(said, bad=self.could_differ and self.differs)


@dataclass(frozen=True, slots=True)
class _SelfTest:
    environment: dict[str, Any]
    answer: str
    passed: bool
    runs: list[_Run]


_RUN_COLUMNS: tuple[Column[tuple[int, _Run]], ...] = (
    Column("run", lambda row: f"{row[0]}"),
    Column("verdict", lambda row: row[1].verdict, words=True),
    Column("pairs", lambda row: f"{len(row[1].pairs):,}"),
)


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of an A/A test's record. RecordError where it cannot be read."""
    compared = content["schema"] == COMPARE_SCHEMA
    test = decoded(content, _SelfTest)
    # Without a run that could have failed, the answer is not known.
    known = any(run.could_differ for run in test.runs)
    return Section(
        heading="A comparison with itself" if compared else "A load against itself",
        sentence=f"Each run measures the same thing twice, in turn{on(test.environment)}. "
        "What it calls different differs by chance alone.",
        verdicts=[Verdict("good" if test.passed else "fail", f"{test.answer}.")],
        checks=[
            Check(trust.AA, test.passed if known else None, test.answer),
            trust.steal(test.environment),
        ],
        plots=[],
        tables=[table_of("Runs", _RUN_COLUMNS, [list(enumerate(test.runs, 1))])],
        record=dict(content),
        name="compare-aa.json" if compared else "load-aa.json",
    )
