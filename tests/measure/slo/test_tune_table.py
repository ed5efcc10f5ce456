import io

import pytest
from rich.console import Console

from measure.core.comparison import Comparison, Ratio
from measure.load.paired import Duel
from measure.slo.elimination import Race
from measure.slo.tune import DEFAULTS, Candidate, Search, Tuning
from measure.slo.tune_table import answer, render

OTHER = Candidate("64", 1000)
OPTIONS = "--group-rows 64 --queue-delay-us 1000"


def tuning(met=(100.0, 150.0), best=OTHER, ratio=(0.5, 0.4, 0.6), pairs=10, differs=True):
    """A search of which nothing but its outcome is known."""
    told = {"p99": Comparison(Ratio(*ratio, pairs), 0.002, differs)} if ratio else {}
    search = Search((DEFAULTS, OTHER), 100.0, 1.5, 1000.0, 10, pairs)
    held = None if best in (None, DEFAULTS) else Duel((), (), told)
    return Tuning(search, Race(met, ended=met[0] is not None), (), best, held)


@pytest.mark.parametrize(
    ("found", "advice", "text"),
    [
        (tuning(), OTHER, f"start the server with {OPTIONS}: p99 over that of the defaults 0.5"),
        (tuning(ratio=(1.5, 1.2, 1.9)), DEFAULTS, "is not significantly better"),
        (tuning(ratio=(0.9, 0.7, 1.1), differs=False), DEFAULTS, "is not significantly better"),
        (
            tuning(pairs=9, differs=False),
            DEFAULTS,
            "too few: a claim needs 10",
        ),
        (tuning(ratio=None), DEFAULTS, "no pair has a p99"),
        (tuning(best=DEFAULTS), DEFAULTS, "no tried options met a higher rate"),
        (tuning(met=(None, None), best=None), DEFAULTS, "no options that were tried met it"),
    ],
)
def test_options_are_advised_only_where_they_are_better_beyond_chance(found, advice, text):
    assert found.advice == advice
    assert found.to_json()["server_options"] == list(advice.options)
    said = answer(found, 50)
    assert said.startswith("p99 <= 50 ms: ")
    assert text in said
    assert ("keep the defaults (--group-rows auto --queue-delay-us 0)" in said) is (
        advice == DEFAULTS
    )


def test_a_search_that_was_cut_short_says_so():
    file = io.StringIO()
    console = Console(file=file, width=120)
    for part in render(tuning(met=(None, None), best=None), 50):
        console.print(part)
    assert f"{OPTIONS} none" in " ".join(file.getvalue().split())
    assert "used up its trials" in file.getvalue()
