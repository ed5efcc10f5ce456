"""Stop servers by a signal under load: accepted requests are answered, and they exit with 0."""

import signal
import subprocess
import time
from pathlib import Path

from measure.core.local_server import running_server
from soak.known_answers import SMALL, Questions, put_model
from soak.signals.refused_clients import RefusedClients
from soak.tally import Tally

_ANSWERS_BEFORE = 5


def run(tally: Tally, folder: Path, number: int = signal.SIGTERM) -> None:
    """Count servers that drained correctly."""
    put_model(folder, SMALL)
    questions = Questions(SMALL)
    tally.facts |= {"requests": 0, "refused": 0, "longest_drain_s": 0.0}
    while tally.take():
        before = tally.failed
        _end_one(tally, folder, questions, number)
        if tally.failed == before:
            tally.add()


def _end_one(tally: Tally, folder: Path, questions: Questions, number: int) -> None:
    with running_server(folder) as server, RefusedClients(server.address, questions) as load:
        load.wait_until_answered(_ANSWERS_BEFORE, lambda: bool(load.wrong))
        load.signalled_s = time.monotonic()
        try:
            code = server.signal(number)
        except subprocess.TimeoutExpired as error:
            load.wrong.append(("signal", repr(error)))
            code = 0
        drained_s = time.monotonic() - load.signalled_s
        load.join()
        if code != 0:
            load.wrong.append(("exit code", f"{code}; it said {server.said()}"))
    tally.note("requests", sum(load.answered))
    tally.note("refused", load.refused)
    tally.facts["longest_drain_s"] = max(tally.facts["longest_drain_s"], round(drained_s, 2))
    if load.wrong:
        what = f"server {tally.done + tally.failed + 1}"
        tally.fail(what, "; ".join(f"{where}: {outcome}" for where, outcome in load.wrong))
