"""Show LoadGen's results in the terminal."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from command_line.table import Column, Table
from measure.core.confidence import fewest_samples
from measure.loadgen.logs import VALID, Metric, Summary
from measure.loadgen.runs import Result
from measure.presentation.format import alarm, milliseconds, share, significant

PERCENTILES = ("50.00", "90.00", "99.00", "99.90")
_COLUMNS = (
    Column("scenario", words=True),
    Column("LoadGen\nsays", words=True),
    Column("result", words=True),
    Column("p50\nms", rank=4),
    Column("p90\nms", rank=3),
    Column("p99\nms"),
    Column("p99.9\nms", rank=5),
    Column("samples", rank=2),
    Column("wrong"),
    Column("near\nties", rank=6),
    Column("accuracy", rank=1),
)
_NANOSECONDS = " (ns)"


def render(results: Sequence[Result], label: str) -> Table:
    """Table of scenarios, one row each; `label` stands above it."""
    return Table(
        _COLUMNS,
        [[_cells(result) for result in results]],
        title=label,
        caption="latencies are LoadGen's, from when a query was due; wrong: labels of the "
        "performance run; accuracy: share of the examples whose label equals the float64 "
        "reference's",
        elsewhere="loadgen.json",
    )


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


def _cells(result: Result) -> list[str | Text]:
    performance, accuracy = result.performance, result.accuracy
    if performance is None:
        shown: list[str | Text] = [Text("failed", style="bold red"), *["-"] * (len(_COLUMNS) - 3)]
    else:
        verdict, labels = performance.verdict, performance.labels
        style = "green" if verdict.verdict == VALID else "bold red"
        latencies = [milliseconds(told_ns(verdict, percentile)) for percentile in PERCENTILES]
        shown = [Text(verdict.verdict, style=style), " ".join(metric(verdict.metric)), *latencies]
        shown += [f"{labels.rows:,}", alarm(labels.wrong), f"{labels.near_ties:,}"]
    agreed = "-" if accuracy is None else share(accuracy.agreement, 2)
    return [result.scenario, *shown, agreed]
