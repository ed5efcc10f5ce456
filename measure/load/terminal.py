"""Show a load's progress: live in a terminal, line by line elsewhere."""

from contextlib import nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from command_line.terminal import Shown, is_live
from measure.engine.windows import Window
from measure.load.settings import Progress
from measure.load.summary import LoadPoint
from measure.load.table import name
from measure.presentation.format import milliseconds, significant

_BARS = " ▁▂▃▄▅▆▇█"


class LoadProgress(Shown):
    """Shows the current measurement below the finished points; call it with every step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._windows: list[Window] = []
        self._live: Live | None = None
        if is_live(console):
            self._live = Live(Text(""), console=console, transient=True, refresh_per_second=4)
        super().__init__(self._live or nullcontext())

    def __call__(self, step: Progress) -> None:
        """Show a step."""
        if step.point is not None:
            self._windows = []
            style = "" if step.point.valid else "red"
            self._console.print(Text(_line(step.point), style=style))
        elif step.window is not None:
            self._windows.append(step.window)
            self._show(f"{step.text}\n{_latest(self._windows)}")
        else:
            self._show(step.text)
            if self._live is None:
                self._console.print(Text(step.text))

    def _show(self, text: str) -> None:
        if self._live is not None:
            self._live.update(Text(text))


def _latest(windows: list[Window]) -> str:
    latest = windows[-1]
    most = max(window.rate_per_s for window in windows) or 1.0
    bars = "".join(_BARS[round(w.rate_per_s / most * (len(_BARS) - 1))] for w in windows)
    text = f"  {bars}  {significant(latest.rate_per_s)} requests/s"
    text += f"  mean {milliseconds(latest.mean_latency_ns)} ms"
    return text + (f"  {latest.errors:,} errors" if latest.errors else "")


def _line(point: LoadPoint) -> str:
    latency = point.latency_ns
    text = (
        f"{name(point):<32} {significant(point.requests_per_s):>8} requests/s"
        f"  p50 {milliseconds(latency.p50)}  p99 {milliseconds(latency.p99)} ms"
    )
    errors = sum(point.errors.values())
    text += f"  {errors:,} errors" if errors else ""
    return text + ("" if point.valid else "  not valid")
