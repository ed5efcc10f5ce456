"""Have MLCommons LoadGen drive a server, each run in a process of its own."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from client.client import READY_TIMEOUT_S, Client
from client.connection.credentials import CredentialFiles
from client.errors import ClientError
from measure.core import local_server
from measure.core.child_process import talking_to
from measure.core.local_server import running_server
from measure.core.record import decoded, encoded
from measure.core.verification import Experiment, Truth, check_counted, truth
from measure.loadgen import logs as loadgen_logs
from measure.loadgen.logs import LogError, Summary
from measure.loadgen.worker_job import (
    MODES,
    Job,
    Mode,
    Outcome,
    Rules,
    Scenario,
    Transport,
    rows_of_batch,
)
from measure.sweep.sweep import Progress, check_model

# The input of the models that we export.
_INPUT = "x"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: every scenario, for its performance and then for its accuracy.

    `address` None: a local server, on `threads` and the execution provider `ep`. LoadGen's
    logs go below `out`, to SCENARIO/performance and SCENARIO/accuracy. Every process that talks to
    the server reads `credential_files`.
    """

    scenarios: tuple[Scenario, ...]
    experiment: Experiment
    rules: Rules
    transport: Transport
    in_flight: int
    timeout_s: float
    address: str | None
    model: str
    threads: int
    ep: str
    out: Path
    credential_files: CredentialFiles

    @property
    def quick(self) -> bool:
        """Whether the runs are shorter than LoadGen's rules ask for."""
        return self.rules.quick_s is not None


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels that came, against the float64 reference: of `rows` samples so many.

    `agreement` is the share that equals the reference's, None without rows.
    """

    rows: int
    wrong: int
    near_ties: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """A performance run: LoadGen's verdict, the labels of all samples, what LoadGen was told."""

    verdict: Summary
    labels: Labels
    expected_qps: float
    expected_latency_ns: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one scenario; `failures` say which runs did not end, and why.

    `accuracy` are the labels that LoadGen logged when it asked for every example once.
    """

    DERIVED: ClassVar = ("good",)

    scenario: Scenario
    performance: Performance | None
    accuracy: Labels | None
    failures: dict[str, str]

    @property
    def good(self) -> bool:
        """Whether LoadGen calls it VALID, no label is wrong, and nothing failed."""
        if self.failures or self.performance is None or self.accuracy is None:
            return False
        verdict = self.performance.verdict
        wrong = self.performance.labels.wrong + self.accuracy.wrong
        return verdict.verdict == loadgen_logs.VALID and not verdict.errors and not wrong


@dataclass(frozen=True, slots=True)
class Target:
    """The server that is driven, what it calls its input, and the labels that are right."""

    address: str
    input_name: str
    reference: Truth


Report = Callable[[Progress], None]


def loadgen(plan: Plan, report: Report) -> Iterator[Result]:
    """Run every scenario of a plan, one after another, and yield what came of each.

    A run whose requests fail becomes a failure of its scenario; UsageError when there is no such
    server, or it serves another model than the one whose labels are known.
    """
    total = len(plan.scenarios) * len(MODES)
    if plan.address is not None:
        # A wrong address is known now, not after the reference is computed.
        credentials = plan.credential_files.read()
        with Client(plan.address, plan.model, credentials=credentials) as client:
            client.check_reachable()
    with contextlib.ExitStack() as stack:
        address = plan.address
        if address is None:
            report(Progress("exporting the model", 0, total, preparation=True))
            local_server.export(plan.experiment, plan.model, plan.out / "models")
        report(Progress("computing the float64 reference", 0, total, preparation=True))
        # The processes draw their own examples.
        reference = truth(plan.experiment)
        reference = replace(reference, x=reference.x[:0].copy())
        if address is None:
            report(Progress("starting the server", 0, total, preparation=True))
            options = local_server.options(
                plan.experiment,
                (rows_of_batch(plan.experiment.row_bytes),),
                plan.threads,
                plan.ep,
                whole=plan.transport == "unary",
            )
            address = stack.enter_context(
                running_server(plan.out / "models", list(options))
            ).address
        with Client(address, plan.model, credentials=plan.credential_files.read()) as client:
            client.wait_until_ready(READY_TIMEOUT_S)
            input_name = _input_name(client, plan.experiment, reference)
        where = Target(address, input_name, reference)
        for number, scenario in enumerate(plan.scenarios):
            begun = partial(_begun, report, scenario, number * len(MODES), total)
            yield _result(plan, where, scenario, begun)


def _input_name(client: Client, experiment: Experiment, reference: Truth) -> str:
    """Name of the model's input; UsageError when it takes, or holds, something else.

    The protocol lets a server keep its inputs to itself, as KServe's does: then it is what our
    models have, and the labels alone can tell which weights are there.
    """
    if not client.metadata().inputs:
        return _INPUT
    check_model(client, experiment, reference)
    return client.input().name


def _begun(report: Report, scenario: Scenario, before: int, total: int, mode: Mode) -> None:
    done = before + MODES.index(mode)
    report(Progress(f"{scenario}, {mode}", done, total, preparation=True))


def _result(
    plan: Plan, target: Target, scenario: Scenario, begun: Callable[[Mode], None]
) -> Result:
    performance: Performance | None = None
    accuracy: Labels | None = None
    failures: dict[str, str] = {}
    for mode in MODES:
        begun(mode)
        folder = plan.out / scenario / mode
        try:
            outcome = _run(plan, target, scenario, mode, folder)
            if mode == "performance":
                performance = Performance(
                    loadgen_logs.verdict(folder),
                    _judged(target.reference, *_columns(outcome)),
                    outcome.expected_qps,
                    outcome.expected_latency_ns,
                )
            else:
                indices, labels = _every_example(folder, plan.experiment.examples)
                accuracy = _judged(target.reference, indices, labels, np.ones_like(indices))
        except (ClientError, LogError, OSError) as error:
            failures[mode] = str(error)
    return Result(scenario, performance, accuracy, failures)


def _run(plan: Plan, target: Target, scenario: Scenario, mode: Mode, folder: Path) -> Outcome:
    """Run LoadGen once; RequestFailed or UsageError when it does not come to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    # A run that fails must not leave those of an earlier one.
    for path in folder.glob("mlperf_log_*"):
        path.unlink()
    job = Job(
        scenario,
        mode,
        target.address,
        plan.model,
        target.input_name,
        plan.transport,
        plan.in_flight,
        plan.timeout_s,
        plan.rules,
        plan.experiment,
        str(folder.resolve()),
        plan.credential_files,
    )
    command = (sys.executable, "-m", "measure.loadgen.worker")
    with talking_to(command, "LoadGen's process") as worker:
        return decoded(worker.ask(encoded(job)), Outcome)


def _columns(outcome: Outcome) -> Iterator[NDArray[Any]]:
    """Examples, labels, how often they came: int64 `[n]` each."""
    yield from np.array(outcome.labels, np.int64).reshape(-1, 3).T


def _every_example(folder: Path, examples: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Examples and labels that LoadGen logged; LogError unless each example came."""
    indices, labels = loadgen_logs.labels(folder)
    missing = examples - len(np.intersect1d(indices, np.arange(examples)))
    if missing:
        raise LogError(f"LoadGen logged no label of {missing} of {examples} examples")
    return indices, labels


def _judged(
    reference: Truth, indices: NDArray[Any], labels: NDArray[Any], counts: NDArray[Any]
) -> Labels:
    check = check_counted(reference, indices, labels, counts)
    rows = int(counts.sum())
    agreement = 1 - check.disagreements / rows if rows else None
    return Labels(rows, check.wrong_labels, check.near_ties, agreement)
