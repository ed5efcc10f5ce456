"""Attack a server's memory in every way at once: it stays within its bounds, and serves others."""

import contextlib
import threading
from functools import partial
from pathlib import Path

from client.client import Client
from client.errors import RequestFailed
from measure.core.local_server import ServerProcess, running_server
from soak.clients import ONCE, at_once, wrong
from soak.known_answers import MODEL, SMALL, Questions, put_model
from soak.memory.attacks import ATTACKS, MIB, Attack, put_models
from soak.tally import Tally

INFLIGHT_BYTES, STREAM_BYTES = 64 * MIB, 32 * MIB
# Beside what the options allow: what calls, connections and the allocator take.
BESIDE_BYTES = 64 * MIB
OPTIONS = (
    *("--max-inflight-bytes", str(INFLIGHT_BYTES), "--max-stream-bytes", str(STREAM_BYTES)),
    *("--max-message-bytes", str(32 * MIB), "--receive-s", "5", "--stream-idle-s", "5"),
    *("--validation", "off"),
)
_WARM_UP = 200
_PATIENCE_S = 60.0
# What a client may be told while others take all there is.
_REFUSALS = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


def run(tally: Tally, folder: Path) -> None:
    """Count rounds of attacks; memory over the bound, and a wrong answer, are failures."""
    put_model(folder, SMALL)
    put_models(folder)
    with running_server(folder, OPTIONS) as server:
        questions = Questions(SMALL)
        with Client(server.address, MODEL, deadline_s=_PATIENCE_S, retry=ONCE) as client:
            for number in range(_WARM_UP):
                client.predict(questions[number][0])
            server.forget_peak_memory()
            idle = server.peak_memory_bytes() or 0
            over = threading.Event()
            asking = threading.Thread(target=_ask, args=(tally, client, questions, over))
            asking.start()
            try:
                attacks = [partial(_attack, tally, server, *each) for each in ATTACKS.items()]
                at_once(attacks)
            finally:
                over.set()
                asking.join()
            _judge(tally, server, idle)
            # All places are free again.
            x, labels = questions[0]
            fault = wrong(client.predict(x), labels)
            if fault is not None:
                tally.fail("a request after the attacks", fault)


def _attack(tally: Tally, server: ServerProcess, name: str, attack: Attack) -> None:
    while tally.take():
        with contextlib.suppress(OSError):
            attack(server.address)
        tally.note(name)
        if not server.alive:
            tally.fail(name, f"the server ended: {server.said()}")
            return
        tally.add()


def _ask(tally: Tally, client: Client, questions: Questions, over: threading.Event) -> None:
    """Ask as an honest client, until it is over."""
    number = 0
    while not over.wait(0.01):
        number += 1
        x, labels = questions[number]
        try:
            fault = wrong(client.predict(x), labels)
        except RequestFailed as error:
            tally.note("others refused")
            if not any(code in repr(error) for code in _REFUSALS):
                tally.fail("a request of another client", repr(error))
            continue
        tally.note("others answered")
        if fault is not None:
            tally.fail("a request of another client", fault)


def _judge(tally: Tally, server: ServerProcess, idle: int) -> None:
    peak = server.peak_memory_bytes() or 0
    most = idle + INFLIGHT_BYTES + STREAM_BYTES + BESIDE_BYTES
    tally.facts |= {"idle_mib": idle // MIB, "peak_mib": peak // MIB, "most_mib": most // MIB}
    if peak > most:
        tally.fail("memory", f"got a peak of {peak // MIB} MiB, expected at most {most // MIB}")
