"""The job of a LoadGen process, and its outcome."""

from dataclasses import dataclass
from typing import Literal, get_args

from client.connection.credentials import CredentialFiles
from measure.core.verification import Experiment
from transport.calling.resolving import Resolving
from transport.calling.servers import POLICIES, Policy

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
Mode = Literal["performance", "accuracy"]
Transport = Literal["stream", "unary"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
MODES: tuple[Mode, ...] = get_args(Mode)
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
# A query of more than this is sent as several batches.
_MOST_ROWS, _MOST_BYTES = 128, 32 * 2**20


def rows_of_batch(row_bytes: int) -> int:
    """Most rows that are sent together."""
    return min(_MOST_ROWS, max(1, _MOST_BYTES // row_bytes))


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings that are not in LoadGen's own configuration.

    `quick_s` is the shortest time of a performance run; None keeps LoadGen's. `server_qps` and
    `offline_qps` are samples per second; None: derived from the warm-up.
    """

    quick_s: float | None
    server_latency_ms: float
    server_qps: float | None
    offline_qps: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """One LoadGen run against one model; its logs go to `folder`.

    `input_name` is the name of the input that takes the experiment's examples. `in_flight` is the
    most unary requests in flight; a query without an answer for `timeout_s` ends the run.
    `credential_files` authenticate the server and the client. `servers`: how many there are, each
    of which gets a stream; `balance` and `resolve_s`: how they share the requests, and after how
    long their names are looked up again.
    """

    scenario: Scenario
    mode: Mode
    address: str
    model: str
    input_name: str
    transport: Transport
    in_flight: int
    timeout_s: float
    rules: Rules
    experiment: Experiment
    folder: str
    credential_files: CredentialFiles
    balance: Policy = POLICIES[0]
    resolve_s: float = Resolving().every_s
    servers: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a process's run.

    `labels` counts the labels returned for each example: (index, label, count).
    `expected_qps` and `expected_latency_ns` are LoadGen's settings.
    """

    labels: tuple[tuple[int, int, int], ...]
    expected_qps: float
    expected_latency_ns: float
