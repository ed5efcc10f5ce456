"""Show how often a thing that was compared with itself was called different."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from measure.core.record import decoded
from measure.core.self_test import COMPARE_SCHEMA, SAID
from measure.core.verdict import Check
from measure.report import trust
from measure.report.section import Cell, Section, Table, Verdict
from measure.report.values import place


@dataclass(frozen=True, slots=True)
class _Run:
    differs: bool
    pairs: list[Any]
    # A record made before this was kept does not say it.
    could_differ: bool = True

    @property
    def verdict(self) -> str:
        return SAID[self.differs if self.could_differ else None]


@dataclass(frozen=True, slots=True)
class _SelfTest:
    environment: dict[str, Any]
    answer: str
    passed: bool
    runs: list[_Run]


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of an A/A test's record. RecordError where it cannot be read."""
    compared = record["schema"] == COMPARE_SCHEMA
    test = decoded(record, _SelfTest)
    where = place(test.environment)
    # Of none that could have failed, it is not known.
    told = any(run.could_differ for run in test.runs)
    return Section(
        heading="A comparison with itself" if compared else "A load against itself",
        sentence=f"Each run measures the same thing twice, in turn{', on ' * bool(where)}{where}. "
        "What it calls different differs by chance alone.",
        verdicts=[Verdict("good" if test.passed else "fail", f"{test.answer}.")],
        checks=[
            Check(trust.AA, test.passed if told else None, test.answer),
            trust.steal(test.environment),
        ],
        plots=[],
        tables=[
            Table(
                heading="Runs",
                columns=("run", "verdict", "pairs"),
                groups=[
                    [
                        (
                            f"{number}",
                            Cell(run.verdict, bad=run.could_differ and run.differs),
                            f"{len(run.pairs):,}",
                        )
                        for number, run in enumerate(test.runs, 1)
                    ]
                ],
                left=[1],
            )
        ],
        record=dict(record),
        name="compare-aa.json" if compared else "load-aa.json",
    )
