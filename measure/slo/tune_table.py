"""Show the tried options, and which to start the server with."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Column, Table
from measure.load.paired import fewest_pairs
from measure.presentation.format import milliseconds, significant
from measure.slo.tune import DEFAULTS, Candidate, Tuning

_COLUMNS = (
    Column("options", words=True),
    Column("highest rate/s"),
    Column("p50", rank=1),
    Column("p99"),
    Column("trials", rank=2),
)


def answer(tuning: Tuning, p99_ms: float) -> str:
    """The recommended options in a sentence, with the reason."""
    bound = f"p99 <= {p99_ms:g} ms"
    keep = f"keep the defaults ({' '.join(DEFAULTS.options)})"
    if tuning.best is None:
        return f"{bound}: no options that were tried met it; {keep}"
    if tuning.duel is None:
        return f"{bound}: no tried options met a higher rate than the defaults; {keep}"
    best = " ".join(tuning.best.options)
    p99 = tuning.duel.comparisons.get("p99")
    if p99 is None:
        return f"{bound}: {best} met the highest rate, but no pair has a p99; {keep}"
    ratio = p99.ratio
    against = (
        f"p99 over that of the defaults {ratio:.3g}, "
        f"{ratio.pairs} pairs at {significant(tuning.highest_per_s or 0)} requests/s"
    )
    if tuning.better:
        return f"{bound}: start the server with {best}: {against}"
    needed = fewest_pairs()
    few = f", too few: a claim needs {needed}" if ratio.pairs < needed else ""
    return (
        f"{bound}: {best} met the highest rate, but is not significantly better: "
        f"{against}{few}; {keep}"
    )


def render(tuning: Tuning, p99_ms: float) -> list[Table | Text]:
    """A row for each candidate, and the recommendation."""
    candidates = zip(tuning.search.candidates, tuning.race.met, strict=True)
    table = Table(
        _COLUMNS,
        [[(" ".join(one.options), *_row(tuning, one, met)) for one, met in candidates]],
        caption="each trial on a fresh server; latency in ms at the highest rate met",
        elsewhere="slo.json",
    )
    parts: list[Table | Text] = [table]
    if not tuning.race.ended:
        parts.append(Text("the search used up its trials; higher rates were not tried"))
    parts.append(Text(answer(tuning, p99_ms)))
    return parts


def _row(tuning: Tuning, candidate: Candidate, met: float | None) -> Sequence[str]:
    tried = [trial for tried, trial in tuning.trials if tried == candidate]
    if met is None:
        return "none", "-", "-", str(len(tried))
    latency = next(
        trial.point.latency_ns for trial in tried if trial.met and trial.point.asked.level == met
    )
    times = (milliseconds(latency.p50), milliseconds(latency.p99))
    return significant(met), *times, str(len(tried))
