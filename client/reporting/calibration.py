"""Show how often a thing that was compared with itself was called different."""

from collections.abc import Mapping
from typing import Any

from client.calibration import COMPARE_SCHEMA
from client.reporting import trust
from client.reporting.section import Cell, Check, Section, Table, Verdict
from client.reporting.values import place


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of an A/A test's record. RecordError where it cannot be read."""
    answer, passed = str(record["answer"]), bool(record["passed"])
    where = place(record["environment"])
    compared = record["schema"] == COMPARE_SCHEMA
    runs = [bool(run["differs"]) for run in record["runs"]]
    return Section(
        heading="A comparison with itself" if compared else "A load against itself",
        sentence=f"Each run measures the same thing twice, in turn{', on ' * bool(where)}{where}. "
        "What it calls different differs by chance alone.",
        verdicts=[Verdict("good" if passed else "fail", f"{answer}.")],
        checks=[Check(trust.AA, passed, answer), trust.steal(record["environment"])],
        plots=[],
        tables=[
            Table(
                heading="Runs",
                columns=("run", "verdict", "pairs"),
                groups=[
                    [
                        (
                            f"{number}",
                            Cell("a difference" if differs else "no difference", bad=differs),
                            f"{len(run['pairs']):,}",
                        )
                        for number, (differs, run) in enumerate(
                            zip(runs, record["runs"], strict=True), 1
                        )
                    ]
                ],
                left=[1],
            )
        ],
        record=dict(record),
        name="compare-aa.json" if compared else "load-aa.json",
    )
