"""The job of a load process, as JSON."""

from dataclasses import dataclass, field, replace
from typing import Literal

from client.connection.credentials import CredentialFiles
from measure.core.verification import Experiment
from measure.engine.loop import Times
from measure.engine.pace import Pace
from measure.engine.schedule import Schedule
from transport.calling.resolving import Resolving
from transport.calling.servers import Policy

Mode = Literal["unary", "stream", "shm"]
MODES: tuple[Mode, ...] = ("unary", "stream", "shm")


@dataclass(frozen=True, slots=True)
class Job:
    """What to send and where: requests of `rows` rows to one model of the server at `address`.

    `experiment` defines the expected labels; None: they are unknown, and `examples` rows are drawn
    from `seed`. A request that takes longer than `timeout_s` fails. `credential_files` authenticate
    the server and the client. In mode `stream` the requests go over `streams` streams. With
    `timings` a server that knows the parameter reports its stages. A `schedule` says which requests
    are sent and when, of `model` and of others, whose labels are unknown. `balance` and
    `resolve_s`: how several servers share the requests, and after how long their names are looked
    up again; `servers`: how many there are, each of which answers a request before the load. Where
    there are several, requests that one of them leaves unanswered are sent again.
    """

    address: str
    model: str
    version: str
    mode: Mode
    rows: int
    examples: int
    seed: int
    timeout_s: float
    experiment: Experiment | None
    credential_files: CredentialFiles = field(default_factory=CredentialFiles)
    streams: int = 1
    timings: bool = True
    balance: Policy = "least_requests"
    resolve_s: float = Resolving().every_s
    servers: int = 1
    schedule: Schedule | None = None

    def among(self, parts: int) -> list["Job"]:
        """Divide it among so many processes."""
        if self.schedule is None:
            return [self] * parts
        return [replace(self, schedule=part) for part in self.schedule.among(parts)]


@dataclass(frozen=True, slots=True)
class Load:
    """One process's part of one point's load.

    `spool`: the file for what became of each request, see `spool`; None: it is not kept.
    """

    pace: Pace
    times: Times
    spool: str | None = None
