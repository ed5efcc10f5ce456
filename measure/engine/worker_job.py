"""The job of a load process, as JSON."""

from dataclasses import dataclass, field
from typing import Literal

from client.connection.credentials import CredentialFiles
from measure.core.verification import Experiment
from measure.engine.loop import Pace, Times

Mode = Literal["unary", "stream", "shm"]
MODES: tuple[Mode, ...] = ("unary", "stream", "shm")


@dataclass(frozen=True, slots=True)
class Job:
    """What to send and where: requests of `rows` rows to one model of the server at `address`.

    `experiment` defines the expected labels; None: they are unknown, and `examples` rows are drawn
    from `seed`. A request that takes longer than `timeout_s` fails. `credential_files` authenticate
    the server and the client. In mode `stream` the requests go over `streams` streams. With
    `timings` a server that knows the parameter reports its stages.
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


@dataclass(frozen=True, slots=True)
class Load:
    """One process's part of one point's load."""

    pace: Pace
    times: Times
