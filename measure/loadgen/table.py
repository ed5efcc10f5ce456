"""Define the table of LoadGen's results, and show it in the terminal."""

from collections.abc import Callable, Iterator, Sequence

from rich.text import Text

from command_line.table import Table
from measure.core.confidence import fewest_samples
from measure.loadgen.logs import VALID, Metric, Summary
from measure.loadgen.runs import Performance, Result
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import BAD, alarm, flagged, milliseconds, share, significant
from measure.presentation.looks import looks_of

HOW = (
    "latencies are LoadGen's, from when a query was due; -: too few queries (99% "
    "confidence); wrong, near ties: labels of the performance run; accuracy: share of the accuracy "
    "run's examples whose label equals the float64 reference's"
)
_NANOSECONDS = " (ns)"


def reasons(results: Sequence[Result]) -> Iterator[str]:
    """Lines with the failures of the runs, and LoadGen's reasons for INVALID."""
    for result in results:
        for mode, text in result.failures.items():
            yield f"{result.scenario}, {mode}: failed: {text}"
        if result.performance is not None:
            verdict = result.performance.verdict
            for text in (*verdict.reasons, *verdict.errors):
                yield f"{result.scenario}: {text}"


def told_ns(verdict: Summary, percentile: str) -> int | None:
    """Latency at a percentile, formatted as LoadGen does; None with too few queries."""
    enough = verdict.queries >= fewest_samples(float(percentile))
    return verdict.percentiles_ns.get(percentile) if enough else None


def metric(result: Metric) -> tuple[str, str]:
    """The value, in milliseconds if it is a time, and its name."""
    name = result.name
    if name.endswith(_NANOSECONDS):
        # LoadGen writes ordinals like 90.0th.
        name = name.removesuffix(_NANOSECONDS).replace(".0th", "th")
        return milliseconds(result.value), f"ms {name}"
    return significant(result.value), f"{name[0].lower()}{name[1:]}"


def _verdict(result: Result) -> Text:
    if result.performance is None:
        return flagged("failed", bad=True)
    said = result.performance.verdict.verdict
    return Text(said, "green" if said == VALID else BAD)


def _of_run(cell: Callable[[Performance], str | Text]) -> Callable[[Result], str | Text]:
    """Cell that a scenario without a performance run leaves as `-`."""
    return lambda result: "-" if result.performance is None else cell(result.performance)


def _time(heading: str, percentile: str, rank: int = 0) -> Column[Result]:
    time = _of_run(lambda run: milliseconds(told_ns(run.verdict, percentile)))
    return Column(f"{heading}\nms", time, f"{heading}, ms", rank=rank)


def _accuracy(result: Result) -> Text:
    if result.accuracy is None:
        return Text("-")
    return flagged(share(result.accuracy.agreement, 2), bad=result.accuracy.wrong > 0)


def columns(results: Sequence[Result]) -> tuple[Column[Result], ...]:
    """Columns of the scenarios; each has its colour among the results."""
    looks = looks_of([result.scenario for result in results])
    return (
        Column(
            "scenario", lambda r: r.scenario, words=True, colour=lambda r: looks[r.scenario].colour
        ),
        Column("LoadGen\nsays", _verdict, words=True),
        Column(
            "result",
            _of_run(lambda r: " ".join(metric(r.verdict.metric))),
            words=True,
            only="terminal",
        ),
        Column("result", _of_run(lambda r: metric(r.verdict.metric)[0]), only="page"),
        Column("of", _of_run(lambda r: metric(r.verdict.metric)[1]), words=True, only="page"),
        _time("p50", "50.00", rank=4),
        _time("p90", "90.00", rank=3),
        _time("p99", "99.00"),
        _time("p99.9", "99.90", rank=5),
        Column("samples", _of_run(lambda r: f"{r.labels.rows:,}"), rank=2),
        Column("wrong", _of_run(lambda r: alarm(r.labels.wrong))),
        Column("near\nties", _of_run(lambda r: f"{r.labels.near_ties:,}"), rank=6),
        Column("accuracy", _accuracy, rank=1),
    )


def render(results: Sequence[Result], label: str) -> Table:
    """Table of scenarios, one row each; `label` stands above it."""
    return in_terminal(
        columns(results),
        [results],
        title=label,
        caption=HOW,
        elsewhere="loadgen.json",
    )
