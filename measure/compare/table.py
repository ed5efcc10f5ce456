"""Show a comparison of execution providers in the terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from command_line.table import Column, Row, Table
from measure.compare import words
from measure.compare.analysis import Analysis
from measure.compare.runs import Provider
from measure.presentation.format import alarm, milliseconds, share, significant

_ELSEWHERE = "compare.json"
_PROVIDER = Column("execution\nprovider", words=True)
_POINTS = (
    Column("batch"),
    _PROVIDER,
    Column("latency\np50 ms"),
    Column("predictions\nper second", rank=2),
    Column("ratio to\nthe first"),
    Column("agree or\nnear tie", rank=3),
    Column("wrong"),
    Column("near\nties", rank=4),
    Column("errors"),
    Column("verdict", words=True, rank=1),
)
_LINES = (
    Column("mode", words=True),
    _PROVIDER,
    Column("alpha ms"),
    Column("beta ms a row"),
    Column("half of peak\nat rows"),
    Column("90% of peak\nat rows"),
    Column("error: rms,\nworst"),
)
_SERVERS = (_PROVIDER, Column("start-up ms"), Column("starts"), Column("peak memory MiB"))


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


def _points(analysis: Analysis, mode: str) -> Table:
    measured = analysis.measured
    return Table(
        _POINTS,
        [
            [_point(analysis, mode, size, provider) for provider in measured.providers]
            for size in measured.batch_sizes
        ],
        keys=2,
        elsewhere=_ELSEWHERE,
    )


def _point(analysis: Analysis, mode: str, size: int, provider: Provider) -> Row:
    cell = analysis.measured.cell(mode, size, provider.label)
    pair = analysis.to_first(cell)
    first = provider is analysis.measured.providers[0]
    return (
        f"{size:,}",
        provider.label,
        milliseconds(cell.point.latency_ns.p50),
        significant(cell.point.throughput_per_s),
        "-" if pair is None else f"{pair.ratio:.2f}",
        share(cell.agreement, 2),
        alarm(cell.point.wrong_labels),
        f"{cell.point.near_ties:,}",
        alarm(cell.point.errors),
        analysis.verdicts[mode, size] if first else "",
    )


def _lines(analysis: Analysis) -> Table:
    rows = [
        (
            line.mode,
            line.provider,
            words.estimate_text(line.alpha_ns, 1e6),
            words.estimate_text(line.beta_ns, 1e6),
            words.estimate_text(line.half_peak_rows),
            words.estimate_text(line.near_peak_rows),
            f"{line.fit.rms_error:.1%}, {line.fit.worst_error:.1%}",
        )
        for line in analysis.lines
    ]
    return Table(_LINES, [rows], keys=2)


def _servers(analysis: Analysis) -> Table:
    rows = []
    for provider in analysis.measured.providers:
        start_up, peak = words.provider_texts(provider)
        rows.append((provider.label, start_up, str(len(provider.start_ups_ns)), peak))
    return Table(_SERVERS, [rows])
