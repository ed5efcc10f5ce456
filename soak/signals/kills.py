"""Kill a supervised server under load: clients that retry see no failure and no wrong answer."""

import itertools
import signal
import time
from pathlib import Path

from client.connection.channel import RetryPolicy
from measure.core.processes import STOP_TIMEOUT_S, free_port
from soak.clients import Asking, Clients, known, wrong
from soak.known_answers import SMALL, Questions, put_model
from soak.supervisor import Supervisor
from soak.tally import Tally

UNARY, STREAMS = 2, 2
# A server restarts within two seconds on a quiet machine, and took 15 on one with a load average of
# 17; these waits add up to at least half a minute.
PATIENT = RetryPolicy(attempts=12, initial_backoff_s=1.0, max_backoff_s=5.0)
_PER_STREAM = 200
_ANSWERS_BETWEEN = 5


def run(tally: Tally, folder: Path) -> None:
    """Count kills after which every client got answers again, and no request failed."""
    put_model(folder, SMALL)
    address = f"127.0.0.1:{free_port()}"
    with Supervisor(folder, (), address) as supervisor:
        supervisor.wait_for_start(1)
        with _clients(tally, address) as clients:
            clients.wait_until_answered(_ANSWERS_BETWEEN)
            while tally.take():
                _kill_once(tally, supervisor, clients)
        tally.facts["requests"] = sum(clients.answered)
        tally.facts["starts"] = supervisor.starts


def _kill_once(tally: Tally, supervisor: Supervisor, clients: Clients) -> None:
    before, starts = tally.failed, supervisor.starts
    code = supervisor.wait_for_start(starts).signal(signal.SIGKILL)
    killed_s = time.monotonic()
    if code != -signal.SIGKILL:
        tally.fail(f"kill {starts}", f"the server had ended by itself, with {code}")
    supervisor.wait_for_start(starts + 1)
    clients.wait_until_answered(_ANSWERS_BETWEEN)
    away_s = round(time.monotonic() - killed_s, 2)
    tally.facts["longest_until_all_answered_s"] = max(
        away_s, tally.facts.get("longest_until_all_answered_s", 0.0)
    )
    if tally.failed == before:
        tally.add()


def _clients(tally: Tally, address: str) -> Clients:
    """Clients that send without a pause, and retry."""
    questions = Questions(SMALL)
    numbers = [itertools.count(client) for client in range(UNARY + STREAMS)]
    return Asking(
        address,
        lambda client: known(questions, next(numbers[client])),
        lambda client, question, labels: wrong(labels, question.known),
        tally.fail,
        unary=UNARY,
        streams=STREAMS,
        per_stream=_PER_STREAM,
        patience_s=STOP_TIMEOUT_S,
        retry=PATIENT,
    )
