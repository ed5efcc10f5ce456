"""Drive a server with MLCommons LoadGen, each run in a separate process."""

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
from measure.servers.replicas import connected, naming, replicas_of
from measure.sweep.sweep import Progress, check_model
from transport.calling.resolving import Resolving
from transport.calling.servers import POLICIES, Policy

# The input of the models that we export.
_INPUT = "x"


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs: for every scenario a performance run, then an accuracy run.

    `address` None: a local server, on `threads` and the execution provider `ep`. LoadGen's logs go
    below `out`, to SCENARIO/performance and SCENARIO/accuracy. Every process that connects to the
    server reads `credential_files`. `balance` and `resolve_s` are for several servers.
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
    balance: Policy = POLICIES[0]
    resolve_s: float = Resolving().every_s

    @property
    def quick(self) -> bool:
        """Whether the runs are shorter than LoadGen's rules require."""
        return self.rules.quick_s is not None


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of `rows` samples, compared with the float64 reference.

    `agreement` is the share equal to the reference's, None without rows.
    """

    rows: int
    wrong: int
    near_ties: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """A performance run: LoadGen's verdict, the labels of all samples, LoadGen's settings."""

    verdict: Summary
    labels: Labels
    expected_qps: float
    expected_latency_ns: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one scenario; `failures` gives the reason for each run that did not end.

    `accuracy` are the labels that LoadGen logged in the run that queries every example once.
    """

    DERIVED: ClassVar = ("good",)

    scenario: Scenario
    performance: Performance | None
    accuracy: Labels | None
    failures: dict[str, str]

    @property
    def good(self) -> bool:
        """Whether LoadGen's verdict is VALID, no label is wrong, and nothing failed."""
        if self.failures or self.performance is None or self.accuracy is None:
            return False
        verdict = self.performance.verdict
        wrong = self.performance.labels.wrong + self.accuracy.wrong
        return verdict.verdict == loadgen_logs.VALID and not verdict.errors and not wrong


@dataclass(frozen=True, slots=True)
class Target:
    """The servers, how many they are, the name of their input, and the expected labels."""

    address: str
    servers: int
    input_name: str
    reference: Truth


Report = Callable[[Progress], None]


def loadgen(plan: Plan, report: Report) -> Iterator[Result]:
    """Run every scenario of a plan, one after another, and yield the results.

    A run whose requests fail becomes a failure of its scenario; UsageError if the server cannot be
    reached, or serves another model than the one whose labels are known.
    """
    total = len(plan.scenarios) * len(MODES)
    if plan.address is not None:
        # Fail on a wrong address now, not after computing the reference.
        credentials = plan.credential_files.read()
        with Client(plan.address, plan.model, credentials=credentials) as client:
            client.check_reachable()
    with contextlib.ExitStack() as stack:
        address = plan.address
        if address is None:
            report(Progress("exporting the model", 0, total, preparation=True))
            local_server.export(plan.experiment, plan.model, plan.out / "models")
        report(Progress("computing the float64 reference", 0, total, preparation=True))
        # The processes draw the examples themselves.
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
        replicas = replicas_of(address)
        for replica in replicas:
            credentials = plan.credential_files.read()
            one = connected(replica, plan.model, "", credentials)
            with naming(replica, replicas), one as client:
                client.wait_until_ready(READY_TIMEOUT_S)
                input_name = _input_name(client, plan.experiment, reference)
        where = Target(address, len(replicas), input_name, reference)
        for number, scenario in enumerate(plan.scenarios):
            begun = partial(_begun, report, scenario, number * len(MODES), total)
            yield _result(plan, where, scenario, begun)


def _input_name(client: Client, experiment: Experiment, reference: Truth) -> str:
    """Name of the model's input; UsageError if its input or its weights differ from the expected.

    The protocol lets a server omit its inputs, as KServe's does: then it is the name in our models,
    and only the labels can show which weights it has.
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
    """Run LoadGen once; RequestFailed or UsageError if it does not finish."""
    folder.mkdir(parents=True, exist_ok=True)
    # A failed run must not leave the logs of an earlier one.
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
        plan.balance,
        plan.resolve_s,
        target.servers,
    )
    command = (sys.executable, "-m", "measure.loadgen.worker")
    with talking_to(command, "LoadGen's process") as worker:
        return decoded(worker.ask(encoded(job)), Outcome)


def _columns(outcome: Outcome) -> Iterator[NDArray[Any]]:
    """Examples, labels and their counts: int64 `[n]` each."""
    yield from np.array(outcome.labels, np.int64).reshape(-1, 3).T


def _every_example(folder: Path, examples: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Examples and labels that LoadGen logged; LogError unless every example is there."""
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
