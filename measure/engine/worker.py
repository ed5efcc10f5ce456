"""Generate load in a separate process, on commands from its parent in lines of JSON."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from client.client import READY_TIMEOUT_S, Client
from client.connection import addresses
from client.connection.calls import ONCE, Connection
from client.connection.channel import Balancing
from client.connection.credentials import Credentials
from client.connection.waiting import run
from client.errors import ClientError, RequestFailed
from command_line.parser import positionals
from measure.core import record
from measure.core.child_process import Parent
from measure.engine.loop import Inbox, Stop, Traffic
from measure.engine.requests import Examples, Requests, models_of
from measure.engine.senders import Outcome, Sender, StreamSender, UnarySender, decoded
from measure.engine.spool import Spool
from measure.engine.worker_job import Job, Load
from measure.servers.replicas import may_be_several
from transport.calling.resolving import Resolving

# Memory that answers and calls in flight may use, at the client and at a server on this machine.
_UNDER_WAY_BYTES = 512 * 2**20
_FEWEST_UNDER_WAY, _MOST_UNDER_WAY = 32, 4096
_CONNECT_S = 5.0
# A waiting thread gets the interpreter lock this soon: sends must not wait for answers.
_SWITCH_INTERVAL_S = 0.0002


def main() -> None:
    """Read a job, then a load and a stop for each point, until the parent closes stdin."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    parent = Parent()
    lines = iter(parent)
    job = record.decoded(next(lines), Job)
    with contextlib.ExitStack() as stack:
        try:
            credentials = job.credential_files.read()
            balancing = Balancing(job.balance, Resolving(job.resolve_s))
            requests = _requests(stack, job, credentials, balancing)
            connection = Connection(
                addresses.parse(job.address), ONCE, credentials, balancing=balancing
            )
            stack.callback(connection.close)
            sender = _sender(connection, requests, job)
            stack.callback(sender.close)
            if job.servers > 1:
                # Before, all streams would go to the server that is connected first.
                run(connection.check_reachable(connection.settings))
                run(connection.wait_for_each(_CONNECT_S))
            kinds = len(requests.kinds)
            for number in range(max(kinds, job.servers)):
                _first_request(sender, -(number % kinds) - 1, job.timeout_s)
        except (ClientError, OSError, MemoryError) as error:
            parent.fail(error)
            return
        parent.say(ready=True)
        _obey(parent, lines, sender, requests, job)


def _requests(
    stack: contextlib.ExitStack, job: Job, credentials: Credentials, balancing: Balancing
) -> Requests:
    examples, shared = {}, {}
    for model, rows in models_of(job).items():
        client = stack.enter_context(
            Client(
                job.address,
                model,
                job.version if model == job.model else "",
                deadline_s=job.timeout_s,
                credentials=credentials,
                balance=balancing.policy,
                resolving=balancing.resolving,
            )
        )
        client.wait_until_ready(READY_TIMEOUT_S)
        examples[model] = Examples(client, job, rows)
        if job.mode == "shm":
            shared[model] = stack.enter_context(client.shared(examples[model].x))
    return Requests(job, examples, shared)


def _sender(connection: Connection, requests: Requests, job: Job) -> Sender:
    if job.mode == "stream":
        return StreamSender(connection, requests.requests, requests.pick, job.streams)
    return UnarySender(connection, requests.requests, requests.pick, job.timeout_s)


def _first_request(sender: Sender, number: int, timeout_s: float) -> None:
    """Send one request; RequestFailed if it fails.

    It pays the first request's set-up cost, and verifies that the model accepts such requests.
    """
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    sender.send(number, lambda outcome, done_ns, times=None: outcomes.put(outcome))
    try:
        answer = decoded(outcomes.get(timeout=timeout_s + 1))
    except Empty:
        raise RequestFailed("DEADLINE_EXCEEDED", "the first request was not answered") from None
    if isinstance(answer, RequestFailed):
        raise answer


def _obey(
    parent: Parent, lines: Iterator[Any], sender: Sender, requests: Requests, job: Job
) -> None:
    loads: SimpleQueue[Load | None] = SimpleQueue()
    inbox: Inbox = SimpleQueue()
    threading.Thread(target=_listen, args=(lines, loads, inbox), daemon=True).start()
    most = _UNDER_WAY_BYTES // requests.most_bytes
    most = min(max(most, _FEWEST_UNDER_WAY), _MOST_UNDER_WAY)
    each_server = may_be_several(job.address)
    due_ns = None if job.schedule is None else job.schedule.at_ns
    sizes: list[int] = []
    run = 0
    while (load := loads.get()) is not None:
        run += 1
        limit = load.pace.most
        spool = None
        if load.spool is not None:
            sizes = sizes or requests.sizes()
            spool = Spool(Path(load.spool), requests, sizes)
        traffic = Traffic(
            sender,
            requests.judge,
            inbox,
            run,
            load.pace,
            most if limit is None else limit,
            due_ns,
            spool,
            each_server=each_server,
        )
        for found in traffic.slices(load.times, job.timeout_s + 1):
            if spool is not None and traffic.ended:
                spool.close()
            parent.say(slice=record.encoded(found), last=traffic.ended)


def _listen(lines: Iterator[Any], loads: "SimpleQueue[Load | None]", inbox: Inbox) -> None:
    for line in lines:
        if line is None:
            inbox.put(Stop())
        else:
            loads.put(record.decoded(line, Load))
    inbox.put(Stop())
    loads.put(None)


if __name__ == "__main__":
    positionals("measure.engine.worker", __doc__)
    main()
    # A thread that still waits for a server must not delay the end.
    os._exit(0)
