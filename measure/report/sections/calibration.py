"""Show how often a thing that was compared with itself was called different."""

from collections.abc import Mapping
from typing import Any

from measure.core.self_test import COMPARE_SCHEMA
from measure.report import trust
from measure.report.section import Cell, Check, Section, Table, Verdict
from measure.report.values import place

_DIFFERS, _POWERLESS = "a difference", "could not have failed"


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of an A/A test's record. RecordError where it cannot be read."""
    answer, passed = str(record["answer"]), bool(record["passed"])
    where = place(record["environment"])
    compared = record["schema"] == COMPARE_SCHEMA
    verdicts = [_verdict(run) for run in record["runs"]]
    # Of none that could have failed, it is not known.
    told = any(verdict != _POWERLESS for verdict in verdicts)
    return Section(
        heading="A comparison with itself" if compared else "A load against itself",
        sentence=f"Each run measures the same thing twice, in turn{', on ' * bool(where)}{where}. "
        "What it calls different differs by chance alone.",
        verdicts=[Verdict("good" if passed else "fail", f"{answer}.")],
        checks=[
            Check(trust.AA, passed if told else None, answer),
            trust.steal(record["environment"]),
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
                            Cell(verdict, bad=verdict == _DIFFERS),
                            f"{len(run['pairs']):,}",
                        )
                        for number, (verdict, run) in enumerate(
                            zip(verdicts, record["runs"], strict=True), 1
                        )
                    ]
                ],
                left=[1],
            )
        ],
        record=dict(record),
        name="compare-aa.json" if compared else "load-aa.json",
    )


def _verdict(run: Mapping[str, Any]) -> str:
    # A record made before this was kept does not say it.
    if not run.get("could_differ", True):
        return _POWERLESS
    return _DIFFERS if run["differs"] else "no difference"
