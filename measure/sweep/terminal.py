"""Show a sweep's progress, live in a terminal, line by line elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from command_line.terminal import Shown, is_live
from measure.sweep.summary import Point
from measure.sweep.sweep import Progress


class SweepProgress(Shown):
    """Shows a bar below the points measured so far; call it with every step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not is_live(console),
        )
        self._task = self._bar.add_task("", total=None)
        super().__init__(self._bar)

    def __call__(self, step: Progress) -> None:
        """Show a step."""
        self._bar.update(self._task, description=step.text, completed=step.done, total=step.total)
        if step.point is not None:
            self._console.print(_line(step.point), highlight=False)
        elif step.preparation and not is_live(self._console):
            self._console.print(step.text)


def _line(point: Point) -> str:
    p50 = point.latency_ns.p50
    latency = "-" if p50 is None else f"{p50 / 1e6:,.2f} ms"
    trouble = f"  [red]{point.wrong_labels} wrong[/]" if point.wrong_labels else ""
    trouble += f"  [red]{point.errors} errors[/]" if point.errors else ""
    return (
        f"{point.mode:>7} {point.batch_size:>5}  {latency:>12}"
        f"  {point.throughput_per_s:>9,.0f}/s{trouble}"
    )
