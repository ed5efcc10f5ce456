"""Measure one phase of an overload: a load, and its 99th percentiles."""

from collections.abc import Sequence
from contextlib import ExitStack

from measure.core.comparison import ratio
from measure.core.confidence import fewest_samples
from measure.core.verdict import Criterion, Goal
from measure.core.verification import Experiment
from measure.engine.histogram import Histogram
from measure.engine.pace import Pace
from measure.engine.processes import LoadProcesses, RunningLoad, load_processes
from measure.engine.slice import Slice
from measure.engine.worker_job import Job, Mode

REFUSED, LATE = "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"
# A percentile with too few samples by then is omitted.
_MOST_S = 20.0
_PIECE_S = 0.25
# A background load, whose results are not read, is one slice.
_WITHOUT_END_S = 3600.0
# Number of distinct requests, sent in turn.
_REQUESTS = 4


def open_client(
    stack: ExitStack,
    address: str,
    model: str,
    shape: tuple[int, int, int],
    deadline_s: float,
    mode: Mode = "unary",
    streams: int = 1,
) -> LoadProcesses:
    """A client in a separate process, which `stack` ends; `shape`: classes, features, rows.

    The model is the one that `Experiment` draws from seed 0.
    """
    classes, features, rows = shape
    examples = _REQUESTS * rows
    experiment = Experiment(classes, features, "float32", 0, examples)
    job = Job(
        address,
        model,
        version="",
        mode=mode,
        rows=rows,
        examples=examples,
        seed=0,
        timeout_s=deadline_s,
        experiment=experiment,
        streams=streams,
        # Timings cost the server time, and are not used here.
        timings=False,
    )
    return stack.enter_context(load_processes(job))


def run_phase(load: LoadProcesses, pace: Pace, seconds: float) -> Slice:
    """Load for half of `seconds`, which fills the queues, then measure for `seconds`.

    It measures longer if the p99 of the answers, or of the refusals if there are any, needs more
    samples. Requests in flight at the end count if they fail.
    """
    enough = fewest_samples(99)

    def is_full(window: Slice) -> bool:
        elapsed_s = window.elapsed_ns / 1e9
        refused = window.errors[REFUSED]
        sampled = window.answered >= enough and (refused >= enough or not refused)
        return elapsed_s >= seconds and (sampled or elapsed_s >= _MOST_S)

    running = load.start(pace, seconds / 2, min(seconds, _PIECE_S))
    running.slice()
    window = running.window(is_full)
    running.stop()
    return window


def in_the_background(load: LoadProcesses, pace: Pace, seconds: float) -> RunningLoad:
    """Start a load that runs until stopped; return after `seconds`."""
    running = load.start(pace, seconds, _WITHOUT_END_S)
    running.slice()
    return running


def p99_ms(times: Histogram | None) -> float | None:
    """The 99th percentile in milliseconds; None with too few samples."""
    p99_ns = None if times is None else times.percentile(99)
    return None if p99_ns is None else p99_ns / 1e6


def shown(p99_ms: float | None) -> str:
    """A p99 as text."""
    return "unknown (too few samples)" if p99_ms is None else f"{p99_ms:.1f} ms"


def goal_of_pairs(
    name: str,
    text: str,
    what: str,
    a: Sequence[float | None],
    b: Sequence[float | None],
    most: float,
) -> Goal:
    """A goal for the ratio of p99s, a/b, over the rounds that have both."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        return Goal(name, text, (), (f"{what}: too few requests in every round",))
    found = ratio([x for x, _ in pairs], [y for _, y in pairs])
    return Goal(name, text, (Criterion(what, found, most, at_most=True),))


def failures(phases: Sequence[Slice], expected: Sequence[str] = ()) -> list[str]:
    """The failures of some phases, as text; errors with `expected` codes are not failures."""
    found = []
    for one in phases:
        found += [
            f"{count} requests: {code}: {one.error_texts.get(code, 'no answer')}"
            for code, count in one.errors.items()
            if code not in expected
        ]
        if one.wrong_labels:
            found.append(f"{one.wrong_labels} wrong labels")
    return found
