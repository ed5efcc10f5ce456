"""Make the HTML report of a sweep from its JSON record."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client import charts, page
from client.plots import looks, of_mode
from client.record import from_json
from client.summary import Finding, Point, warnings
from client.table import milliseconds, significant


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader must know first: `level` is "fail", "warn" or "good"."""

    level: str
    headline: str
    findings: list[str]


@dataclass(frozen=True, slots=True)
class Best:
    """The best of one mode: its colour, highest throughput, shortest wait; `-` where it failed."""

    mode: str
    colour: str
    throughput_per_s: str
    throughput_at: str
    first_prediction_ms: str
    first_prediction_at: str


def render(record: Mapping[str, Any]) -> str:
    """One HTML page that needs nothing else, made from a record and from nothing else.

    Raises `client.record.RecordError` where `from_json` does.
    """
    points = from_json(record)
    settings, environment = record["settings"], record["environment"]
    plots = {
        "latency": charts.latency(points),
        "throughput": charts.throughput(points),
        "first-and-last": charts.first_and_last(points),
        "stages": charts.stage_split(points),
    }
    modes = looks(points)
    return page.render(
        "report.html.j2",
        {name: figure for name, figure in plots.items() if figure},
        modes=list(modes),
        looks=modes,
        verdicts=verdicts(points, _findings(record, points), _wire(settings)),
        sentence=sentence(points, settings, environment),
        bests=[_best(of_mode(points, mode), look.colour) for mode, look in modes.items()],
        points=[point for mode in modes for point in of_mode(points, mode)],
        tables={"Settings": rows(settings), "Environment": rows(environment)},
        schema=record["schema"],
    )


def verdicts(
    points: Sequence[Point], findings: Sequence[Finding], wire: str | None = None
) -> list[Verdict]:
    """Verdicts in the order of their weight, at least one.

    `wire`: what the examples were rounded to on their way, if they were.
    """
    failures = [finding.text for finding in findings if finding.level == "fail"]
    doubts = [finding.text for finding in findings if finding.level != "fail"]
    answer = []
    if failures:
        answer.append(Verdict("fail", "Failed: do not trust these numbers.", failures))
    else:
        answer.append(Verdict("warn" if doubts else "good", _agreement(points, wire), []))
    if doubts:
        answer.append(Verdict("warn", "Read with care.", doubts))
    # One amber box, not two.
    if len(answer) == 2 and not failures:
        return [Verdict("warn", f"{answer[0].headline} Read with care:", doubts)]
    return answer


def sentence(
    points: Sequence[Point], settings: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """What was measured, in one sentence; what the record does not say is left out."""
    sizes = sorted({point.batch_size for point in points})
    of = ""
    classes, features = settings.get("classes"), settings.get("features")
    if classes and features:
        of = f" of argmax(Wx) with {classes:,} classes, {features:,} features"
    if settings.get("dtype"):
        of += f" in {settings['dtype']}"
    if _wire(settings):
        of += f", sent as {_wire(settings)}"
    swept = "no batch size"
    if sizes:
        swept = f"{len(sizes)} batch sizes from {sizes[0]:,} to {sizes[-1]:,}"
        swept = f"batch size {sizes[0]:,}" if len(sizes) == 1 else swept
    providers = sorted({point.stages.execution_provider for point in points if point.stages})
    places = [
        environment.get("cpu_model"),
        f"{environment['cores']} cores" if environment.get("cores") else None,
        *providers,
    ]
    where = ", ".join(str(place) for place in places if place)
    return (
        f"Latency and throughput{of}, over {_listed(list(looks(points)))}, at {swept}"
        + (f", on {where}" if where else "")
        + "."
    )


def rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names beside values as text; nested names are joined by dots."""
    answer: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            answer += rows(value, f"{prefix}{name}.")
        else:
            answer.append((f"{prefix}{name}", _value(name, value)))
    return answer


def _findings(record: Mapping[str, Any], points: Sequence[Point]) -> list[Finding]:
    judged = warnings(points, record["environment"])
    stored = [Finding(f["level"], f["text"]) for f in record.get("findings", [])]
    return judged + [finding for finding in stored if finding not in judged]


def _wire(settings: Mapping[str, Any]) -> str | None:
    wire = settings.get("wire")
    return None if wire == settings.get("dtype") else wire


def _agreement(points: Sequence[Point], wire: str | None) -> str:
    total = sum(point.rows for point in points)
    differ = sum(round((1 - p.agreement) * p.rows) for p in points if p.agreement is not None)
    if not differ:
        return f"All {total:,} labels agree with the float64 reference."
    return (
        f"No wrong label: {total - differ:,} of {total:,} labels agree with the float64 "
        f"reference, the other {differ:,} are near ties"
        + (f" or were changed by rounding to {wire}." if wire else ".")
    )


def _best(points: Sequence[Point], colour: str) -> Best:
    fastest = max(points, key=lambda point: point.throughput_per_s)
    timed = [(p.first_prediction_ns.p50, p) for p in points if p.first_prediction_ns.p50]
    wait_ns, soonest = min(timed, key=lambda pair: pair[0], default=(None, None))
    return Best(
        mode=fastest.mode,
        colour=colour,
        throughput_per_s=significant(fastest.throughput_per_s),
        throughput_at=f"{fastest.batch_size:,}",
        first_prediction_ms=milliseconds(wait_ns),
        first_prediction_at="-" if soonest is None else f"{soonest.batch_size:,}",
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "no mode"


def _value(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith("_bytes"):
        return f"{value:,} ({significant(value / 2**20)} MiB)"
    if isinstance(value, float) and name.endswith("_fraction"):
        return f"{value:.2%}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(str(inner) for inner in value)
    return str(value)
