"""Find the server's batching options with the highest rate within a latency bound."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from measure.core.record import encoded
from measure.core.verification import Experiment
from measure.load.paired import Duel, duel
from measure.load.runs import loading
from measure.load.settings import Progress, Report, Settings, open_loop
from measure.load.summary import LoadPoint
from measure.load.target import own_target
from measure.slo.elimination import Race, race
from measure.slo.slo import Trial, for_p99, judge


@dataclass(frozen=True, slots=True)
class Candidate:
    """Rows gathered per execution (`auto`: measured at start), and the queue delay.

    `more_options`: words of the server's command line, those that are not its defaults.
    """

    group_rows: str
    queue_delay_us: int
    more_options: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The server's command-line options."""
        delay_us = str(self.queue_delay_us)
        return ("--group-rows", self.group_rows, "--queue-delay-us", delay_us, *self.more_options)


# The server's defaults.
DEFAULTS = Candidate("auto", 0)


@dataclass(frozen=True, slots=True)
class Search:
    """The search: candidates, the first of them `DEFAULTS`, and its limits.

    The rate starts at `start` and grows by `factor` up to `most`, in at most `trials` trials. The
    best is then compared with the defaults in `pairs` pairs, each with fresh servers.
    """

    candidates: tuple[Candidate, ...]
    start: float
    factor: float
    most: float
    trials: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of the search.

    `trials` are in order, each with its candidate. `best` met the highest rate, with the lowest p99
    among those that did; None: no candidate met any rate. `duel` compares the best with the
    defaults at that rate; None if the best are the defaults.
    """

    search: Search
    race: Race
    trials: tuple[tuple[Candidate, Trial], ...]
    best: Candidate | None
    duel: Duel | None

    @property
    def highest_per_s(self) -> float | None:
        """Highest rate that any candidate met."""
        return max((rate for rate in self.race.met if rate is not None), default=None)

    @property
    def better(self) -> bool:
        """Whether the best has a significantly lower p99 than the defaults."""
        p99 = self.duel.comparisons.get("p99") if self.duel is not None else None
        return p99 is not None and p99.differs and p99.ratio.median < 1

    @property
    def advice(self) -> Candidate:
        """The options to start a server with."""
        return self.best if self.best is not None and self.better else DEFAULTS

    def to_json(self) -> dict[str, Any]:
        """Every trial, the pairs with the defaults, and the options to give to the server."""
        return {
            "search": self.search,
            "highest_per_s": self.highest_per_s,
            "trials_sufficed": self.race.ended,
            "candidates": [
                encoded(candidate) | {"met_per_s": met}
                for candidate, met in zip(self.search.candidates, self.race.met, strict=True)
            ],
            "trials": trials_to_json(self.trials),
            "best": self.best,
            "against_defaults": None if self.duel is None else self.duel.to_json(),
            "server_options": list(self.advice.options),
        }


def trials_to_json(trials: Sequence[tuple[Candidate, Trial]]) -> list[dict[str, Any]]:
    """A row for each trial."""
    return [
        encoded(candidate)
        | {
            "asked_rate_per_s": trial.point.asked.rate_per_s,
            "met": trial.met,
            "because": trial.because,
            "latency_ns": trial.point.latency_ns,
            "wrong_labels": trial.point.wrong_labels,
            "errors": trial.point.errors,
        }
        for candidate, trial in trials
    ]


def tune(
    settings: Settings,
    experiment: Experiment,
    p99_ns: int,
    search: Search,
    report: Report,
    trials: list[tuple[Candidate, Trial]],
) -> Tuning:
    """Eliminate candidates, each trial on a fresh server; then compare the best with the defaults.

    The servers serve the model of `experiment`, as it was exported. Each trial is appended to
    `trials` when it ends.
    """
    settings = for_p99(settings)

    def meets(index: int, rate_per_s: float) -> bool | None:
        candidate = search.candidates[index]
        report(Progress(f"{' '.join(candidate.options)}: starting"))
        with _serving(settings, experiment, candidate, rate_per_s, report) as measure:
            trial = judge(measure(), p99_ns)
        trials.append((candidate, trial))
        return trial.met

    found = race(
        len(search.candidates), meets, search.start, search.factor, search.most, search.trials
    )
    best = _best(found, search.candidates, trials)
    if best in (None, DEFAULTS):
        return Tuning(search, found, tuple(trials), best, None)
    rate_per_s = max(rate for rate in found.met if rate is not None)
    sides = [
        partial(_serving, settings, experiment, candidate, rate_per_s, report)
        for candidate in (DEFAULTS, best)
        if candidate is not None
    ]
    held = duel((sides[0], sides[1]), search.pairs)
    return Tuning(search, found, tuple(trials), best, held)


@contextlib.contextmanager
def _serving(
    settings: Settings,
    experiment: Experiment,
    candidate: Candidate,
    rate_per_s: float,
    report: Report,
) -> Iterator[Callable[[], LoadPoint]]:
    """Start a server with a candidate's options; yield a function that loads it once at a rate."""
    (mode, *_) = settings.modes
    one = open_loop(settings, mode, rate_per_s)
    with (
        own_target(settings, experiment, candidate.options) as found,
        loading(settings, found, mode) as one_mode,
    ):
        yield lambda: one_mode.measure(one, report)


def _best(
    found: Race, candidates: Sequence[Candidate], trials: Sequence[tuple[Candidate, Trial]]
) -> Candidate | None:
    """The candidate with the lowest p99 among those that met the highest rate."""

    def p99_ns(index: int) -> float:
        times = [
            trial.point.latency_ns.p99
            for candidate, trial in trials
            if (candidate, trial.point.asked.rate_per_s) == (candidates[index], found.met[index])
            and trial.met
        ]
        return min(time_ns for time_ns in times if time_ns is not None)

    return candidates[min(found.best, key=p99_ns)] if found.best else None
