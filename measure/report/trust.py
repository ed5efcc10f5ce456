"""Answer the questions that decide whether the numbers of a set of results can be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measure.core.verdict import Check, Finding, Passed, Standing, word
from measure.report.section import ENVIRONMENT, POINTS, Linked, Section, Verdict
from measure.sweep.summary import MOST_STEAL, disturbances

LABELS, AA, CEILING = "labels", "A/A", "client ceiling"
SEND_LAG, LITTLE, STEAL = "send lag", "Little's law", "steal"

MEANING = {
    LABELS: "Every request was answered, and no label differs from the float64 reference by more "
    "than rounding explains: what is fast but wrong is not fast.",
    AA: "A thing measured against itself shows no difference; else the differences between other "
    "things may be as empty.",
    CEILING: "The same client is faster by a quarter at least with a server that computes nothing; "
    "else it is the client that was measured.",
    SEND_LAG: "Requests of an open loop left when they were due (p99), and those of a closed loop "
    "soon after the answer before; else the client shaped the load.",
    LITTLE: "Concurrency is rate times latency (in a closed loop, with the client's time from an "
    "answer to the next send), within 5%; else some of the time or of the requests is not "
    "accounted for.",
    STEAL: f"The hypervisor gave others at most {MOST_STEAL:.0%} of the processor time.",
}
# Checks of a point of a load, by the question that each answers.
OF_A_LOAD = {"errors": LABELS, "send lag": SEND_LAG, "little": LITTLE, "steal": STEAL}
# The tables of each result have all of them.
_MOST_TEXTS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of all results to one question; `passed` None: none of them has an answer."""

    name: str
    passed: Passed
    texts: Sequence[str]

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return word(self.passed, Standing.NOT_MEASURED)

    @property
    def meaning(self) -> str:
        """The question in a sentence."""
        return MEANING[self.name]


def answers(sections: Sequence[Section]) -> list[Answer]:
    """Answer every question; one result that fails is enough to fail it."""
    return [_answer(name, sections) for name in MEANING]


def steal(environment: Mapping[str, Any]) -> Check:
    """Check the share of processor time that the hypervisor gave to others."""
    share = environment.get("steal_fraction")
    if share is None:
        return Check(STEAL, None, "not reported by the system")
    return Check(STEAL, share <= MOST_STEAL, f"{share:.1%}")


def linked(findings: Iterable[Finding], environment: Mapping[str, Any]) -> list[Linked]:
    """Findings with links: disturbances to the environment, all others to the points."""
    disturbing = {finding.text for finding in disturbances(environment)}
    return [
        Linked(finding.text, ENVIRONMENT if finding.text in disturbing else POINTS)
        for finding in findings
    ]


def split(
    findings: Iterable[Finding], environment: Mapping[str, Any]
) -> tuple[list[Linked], list[Linked]]:
    """Failures, and all other findings, with links."""
    found = list(findings)
    failures = [finding for finding in found if finding.level == "fail"]
    doubts = [finding for finding in found if finding.level != "fail"]
    return linked(failures, environment), linked(doubts, environment)


def with_care(
    environment: Mapping[str, Any],
    doubts: Iterable[str | Linked] = (),
    headline: str = "Read with care:",
) -> list[Verdict]:
    """A verdict with the doubts and the disturbances of the machine; empty without any."""
    found = [*doubts, *disturbed(environment)]
    return [Verdict("warn", headline, found)] if found else []


def disturbed(environment: Mapping[str, Any]) -> list[Linked]:
    """Disturbances of the machine during a measurement."""
    return linked(disturbances(environment), environment)


def gathered(
    name: str, verdicts: Iterable[tuple[Passed, str]], what: str = "points"
) -> list[Check]:
    """One check for the verdicts of all points: each failure, or how many passed."""
    found = list(verdicts)
    failed = [text for passed, text in found if passed is False]
    passed = sum(passed is True for passed, _ in found)
    if failed:
        return [Check(name, False, text) for text in failed]
    if passed:
        text = found[0][1] if len(found) == 1 else f"{passed} of {len(found)} {what}, none failed"
        return [Check(name, True, text)]
    return [Check(name, None, text) for _, text in found[:1]]


def _answer(name: str, sections: Sequence[Section]) -> Answer:
    answered = [
        (check, section)
        for section in sections
        for check in section.checks
        if check.name == name and check.passed is not None
    ]
    failed = [(check, section) for check, section in answered if not check.passed]
    shown = failed or answered
    where = len(sections) > 1
    texts = [
        f"{section.heading}: {check.text}" if where else check.text for check, section in shown
    ]
    if len(texts) > _MOST_TEXTS:
        texts = [*texts[: _MOST_TEXTS - 1], f"and {len(texts) - _MOST_TEXTS + 1} more"]
    return Answer(name, not failed if answered else None, texts)
