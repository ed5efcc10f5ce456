"""Say in JSON what a process that makes load is to do."""

from dataclasses import dataclass, field
from typing import Literal

from client.connection.credentials import CredentialFiles
from measure.core.verification import Experiment
from measure.engine.loop import Pace, Times

Mode = Literal["unary", "stream", "shm"]
MODES: tuple[Mode, ...] = ("unary", "stream", "shm")


@dataclass(frozen=True, slots=True)
class Job:
    """Whom to send what: requests of `rows` rows to one model of the server at `address`.

    `experiment` is what the model's right labels are known by; None: they are not known, and
    `examples` rows are drawn from `seed`. A request that takes longer than `timeout_s` failed. The
    server is known, and shown, what is in `credential_files`. In mode `stream` the requests go over
    so many `streams`. With `timings` a server that knows the parameter tells its stages.
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
    """One point's load, as one process makes it."""

    pace: Pace
    times: Times
