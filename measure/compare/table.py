"""Define the tables of a comparison of execution providers, and show them in the terminal."""

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from measure.compare import words
from measure.compare.analysis import Analysis, Line
from measure.compare.runs import Cell, Provider
from measure.presentation.columns import Column, Item, in_terminal
from measure.presentation.format import alarm, mebibytes, milliseconds, share, significant
from measure.presentation.looks import looks_of

_ELSEWHERE = "compare.json"


def render(analysis: Analysis) -> Group:
    """Servers, points with verdicts, fits and crossovers, one below the other."""
    return Group(*_parts(analysis))


def _parts(analysis: Analysis) -> Iterator[RenderableType]:
    for mode in analysis.measured.modes:
        yield Text(mode, style="bold")
        groups = point_groups(analysis, mode)
        yield in_terminal(point_columns(analysis), groups, keys=2, elsewhere=_ELSEWHERE)
        yield ""
    yield Text(words.HOW_VERDICTS)
    yield ""
    if analysis.lines:
        yield in_terminal(line_columns(analysis), [analysis.lines], keys=2)
        yield Text(words.HOW_LINES)
        yield from (Text(words.meeting_text(meeting)) for meeting in analysis.meetings)
        yield ""
    missing = list(words.without_line(analysis))
    if missing:
        yield from map(Text, missing)
        yield ""
    if any(provider.start_ups_ns for provider in analysis.measured.providers):
        yield in_terminal(server_columns(analysis), [analysis.measured.providers])
        yield Text(words.HOW_START_UP)
        yield ""
    yield from (Text(line, style="bold") for line in words.summary(analysis))


def point_groups(analysis: Analysis, mode: str) -> list[list[Cell]]:
    """Cells of a mode: a group for each batch size, in it the providers in their order."""
    measured = analysis.measured
    return [
        [measured.cell(mode, size, provider.label) for provider in measured.providers]
        for size in measured.batch_sizes
    ]


def point_columns(analysis: Analysis) -> tuple[Column[Cell], ...]:
    """Columns of the cells of a comparison; the first provider's row has the verdict."""
    first = analysis.measured.providers[0].label

    def ratio(cell: Cell) -> str:
        pair = analysis.to_first(cell)
        return f"{pair.ratio:.2f}" if pair else "-"

    def verdict(cell: Cell) -> str:
        place = (cell.point.mode, cell.point.batch_size)
        return analysis.verdicts[place] if cell.provider == first else ""

    return (
        Column("mode", lambda c: c.point.mode, only="page"),
        Column("batch", lambda c: f"{c.point.batch_size:,}"),
        _provider(analysis, lambda c: c.provider),
        Column(
            "latency\np50 ms", lambda c: milliseconds(c.point.latency_ns.p50), "latency p50, ms"
        ),
        Column("p90, ms", lambda c: milliseconds(c.point.latency_ns.known_p90), only="page"),
        Column(
            "predictions\nper second",
            lambda c: significant(c.point.throughput_per_s),
            "predictions/s",
            rank=2,
        ),
        Column("ratio to\nthe first", ratio),
        Column("agree or\nnear tie", lambda c: share(c.agreement, 2), rank=3, only="terminal"),
        Column("agree or near tie", lambda c: share(c.agreement), only="page"),
        Column("wrong", lambda c: alarm(c.point.wrong_labels)),
        Column("near\nties", lambda c: f"{c.point.near_ties:,}", rank=4),
        Column("rows", lambda c: f"{c.point.rows:,}", only="page"),
        Column("errors", lambda c: alarm(c.point.errors)),
        Column("verdict", verdict, words=True, rank=1),
    )


def line_columns(analysis: Analysis) -> tuple[Column[Line], ...]:
    """Columns of the fits."""
    text = words.estimate_text
    return (
        Column("mode", lambda line: line.mode, words=True),
        _provider(analysis, lambda line: line.provider),
        Column("alpha ms", lambda line: text(line.alpha_ns, 1e6), "alpha, ms"),
        Column("beta ms a row", lambda line: text(line.beta_ns, 1e6), "beta, ms a row"),
        Column("half of peak\nat rows", lambda line: text(line.half_peak_rows)),
        Column("90% of peak\nat rows", lambda line: text(line.near_peak_rows)),
        Column(
            "error: rms,\nworst",
            lambda line: f"{line.fit.rms_error:.1%}, {line.fit.worst_error:.1%}",
            only="terminal",
        ),
        Column("error, rms", lambda line: f"{line.fit.rms_error:.1%}", only="page"),
        Column("worst", lambda line: f"{line.fit.worst_error:.1%}", only="page"),
    )


def server_columns(analysis: Analysis) -> tuple[Column[Provider], ...]:
    """Columns of the providers' servers."""
    return (
        _provider(analysis, lambda provider: provider.label),
        Column("start-up ms", lambda provider: milliseconds(provider.start_up_ns), "start-up, ms"),
        Column("starts", lambda provider: f"{len(provider.start_ups_ns):,}"),
        Column(
            "peak memory MiB",
            lambda provider: mebibytes(provider.server_peak_rss_bytes),
            "peak memory, MiB",
        ),
    )


def _provider(analysis: Analysis, label: Callable[[Item], str]) -> Column[Item]:
    looks = looks_of([provider.label for provider in analysis.measured.providers])
    return Column(
        "execution\nprovider", label, words=True, colour=lambda item: looks[label(item)].colour
    )
