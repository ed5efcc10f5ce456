"""Show a comparison of execution providers in the terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client.compare import words
from client.compare.analysis import Analysis
from client.table import alarm, milliseconds, share, significant

_PROVIDER = "execution\nprovider"
# Only words may be folded where the terminal is narrow.
_TEXTS = {"mode", _PROVIDER, "verdict"}


def render(analysis: Analysis) -> Group:
    """Servers, points with verdicts, fits and crossovers, one below the other."""
    return Group(*_parts(analysis))


def _parts(analysis: Analysis) -> Iterator[RenderableType]:
    for mode in analysis.measured.modes:
        yield Text(mode, style="bold")
        yield _points(analysis, mode)
        yield ""
    yield Text(words.HOW_VERDICTS)
    yield ""
    if analysis.lines:
        yield _lines(analysis)
        yield Text(words.HOW_LINES)
        yield from (Text(words.meeting_text(meeting)) for meeting in analysis.meetings)
        yield ""
    missing = list(words.without_line(analysis))
    if missing:
        yield from map(Text, missing)
        yield ""
    if any(provider.start_ups_ns for provider in analysis.measured.providers):
        yield _servers(analysis)
        yield Text(words.HOW_START_UP)
        yield ""
    yield from (Text(line, style="bold") for line in words.summary(analysis))


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        text = heading in _TEXTS
        table.add_column(
            heading, justify="left" if text else "right", no_wrap=not text, overflow="fold"
        )
    return table


def _points(analysis: Analysis, mode: str) -> Table:
    measured = analysis.measured
    table = _table(
        "batch",
        _PROVIDER,
        "latency\np50 ms",
        "predictions\nper second",
        "ratio to\nthe first",
        "agree or\nnear tie",
        "wrong",
        "near\nties",
        "errors",
        "verdict",
    )
    for size in measured.batch_sizes:
        table.add_section()
        for number, provider in enumerate(measured.providers):
            cell = measured.cell(mode, size, provider.label)
            pair = analysis.to_first(cell)
            table.add_row(
                f"{size:,}" if number == 0 else "",
                Text(provider.label),
                milliseconds(cell.point.latency_ns.p50),
                significant(cell.point.throughput_per_s),
                Text("-" if pair is None else words.ratio_text(pair.ratio)),
                share(cell.agreement, 2),
                alarm(cell.point.wrong_labels),
                f"{cell.point.near_ties:,}",
                alarm(cell.point.errors),
                Text(analysis.verdicts[mode, size] if number == 0 else ""),
            )
    return table


def _lines(analysis: Analysis) -> Table:
    table = _table(
        "mode",
        _PROVIDER,
        "alpha ms",
        "beta ms a row",
        "half of peak\nat rows",
        "90% of peak\nat rows",
        "error: rms,\nworst",
    )
    for line in analysis.lines:
        table.add_row(
            line.mode,
            Text(line.provider),
            Text(words.estimate_text(line.alpha_ns, 1e6)),
            Text(words.estimate_text(line.beta_ns, 1e6)),
            Text(words.estimate_text(line.half_peak_rows)),
            Text(words.estimate_text(line.near_peak_rows)),
            f"{line.fit.rms_error:.1%}, {line.fit.worst_error:.1%}",
        )
    return table


def _servers(analysis: Analysis) -> Table:
    table = _table(_PROVIDER, "start-up ms", "starts", "peak memory MiB")
    for provider in analysis.measured.providers:
        start_up, peak = words.provider_texts(provider)
        table.add_row(Text(provider.label), start_up, str(len(provider.start_ups_ns)), peak)
    return table
