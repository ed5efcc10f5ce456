"""Show results in the terminal: rates, skipped parts, goals."""

import statistics

from rich.console import Console
from rich.text import Text

from command_line.table import Column, Table
from measure.core.verdict import Goal, Standing, lines
from measure.presentation.format import significant
from measure.side_by_side.compose import Results
from measure.side_by_side.goals import GOAL_FEATURES
from measure.side_by_side.names import label
from measure.side_by_side.rounds import Cell
from measure.side_by_side.service import Settings

_STYLES = {Standing.REACHED: "green", Standing.MISSED: "bold red"}


def show(console: Console, settings: Settings, results: Results, goals: list[Goal]) -> None:
    """Print everything, the goals last."""
    console.print(rates(results.cells))
    for text in troubles(results):
        console.print(Text(text, style="red"), soft_wrap=True)
    for name, values in results.memcpy_gib_per_s.items():
        console.print(f"memcpy, {name}: {significant(statistics.median(values))} GiB/s")
    features = settings.experiment.features
    if features != GOAL_FEATURES:
        console.print(f"the goals are for {GOAL_FEATURES:,} features; these are {features:,}")
    for goal in goals:
        first, *rest = lines(goal)
        console.print(Text(first, style=_STYLES.get(goal.verdict, "yellow")), soft_wrap=True)
        for line in rest:
            console.print(Text(line), soft_wrap=True)


def rates(cells: list[Cell]) -> Table:
    """Median examples per second of each system (rows) at each batch size (columns)."""
    sizes = sorted({cell.batch_size for cell in cells})
    by_place = {(cell.system, cell.batch_size): cell for cell in cells}
    return Table(
        (Column("system", words=True), *(Column(f"n={size:,}") for size in sizes)),
        [
            [
                (label(system), *(_rate(by_place.get((system, size))) for size in sizes))
                for system in dict.fromkeys(cell.system for cell in cells)
            ]
        ],
        title="examples per second, median over rounds",
        caption="! see below; - not measured",
    )


def troubles(results: Results) -> list[str]:
    """Skipped parts, errors and wrong labels, a line each."""
    found = [f"! {label(name)}: skipped: {reason}" for name, reason in results.skipped.items()]
    for cell in results.cells:
        where = f"! {label(cell.system)}, n={cell.batch_size}"
        if cell.error is not None:
            found.append(f"{where}: {cell.error}")
        if cell.wrong_labels:
            found.append(f"{where}: {cell.wrong_labels} of {cell.labels} labels are WRONG")
    return found


def _rate(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    mark = " !" if cell.error is not None or cell.wrong_labels else ""
    if not cell.rows_per_s:
        return f"-{mark}"
    return significant(statistics.median(cell.rows_per_s)) + mark
