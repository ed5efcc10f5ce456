"""SIGUSR1 shows what every thread does, and the server goes on."""

import json
import signal
import threading

import numpy as np
import pytest

from model.export import export
from model.weights import from_seed

DUMPS = 200


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    return graphs.folder


def stacks(server):
    # But for one that is being written.
    server._log.seek(0)
    lines = map(json.loads, server._log.read().split("\n")[:-1])
    return [line for line in lines if line["message"] == "stack"]


def test_sigusr1_shows_the_stack_of_each_thread(launch, call, models, eventually):
    # Whatever the level of the log.
    server = launch(models, "--log-level", "error")

    def waits():
        server.popen.send_signal(signal.SIGUSR1)
        found = [line["stack"] for line in stacks(server) if line["thread"] == "MainThread"]
        return any("StopSignals.wait" in frame for stack in found for frame in stack)

    # It has printed its address, and begins to wait after that.
    eventually(waits, "the main thread waits for a signal")
    by_thread = {line["thread"]: line["stack"] for line in stacks(server)}
    assert any("scheduler.py" in frame for frame in by_thread["linear:1"])
    assert call(server.address).control("ServerLive").live
    assert server.stop() == 0


def test_a_loaded_server_goes_on_however_often_it_is_asked(launch, call, models, eventually):
    server = launch(models)
    stop, answered, failed = threading.Event(), [0] * 3, []

    def send(index):
        caller = call(server.address)
        message = caller.message("linear", x=np.ones((2, 8), np.float32))
        while not stop.is_set():
            try:
                caller.infer(message)
                answered[index] += 1
            except Exception as error:
                failed.append(error)
                return

    senders = [threading.Thread(target=send, args=(index,)) for index in range(len(answered))]
    for sender in senders:
        sender.start()
    for count in range(DUMPS):
        server.popen.send_signal(signal.SIGUSR1)
        # The next one comes while requests run.
        before = sum(answered)
        eventually(lambda before=before: failed or sum(answered) > before, f"answers, {count}")
    stop.set()
    for sender in senders:
        sender.join()
    assert failed == []
    assert server.stop() == 0
    assert len([line for line in stacks(server) if line["thread"] == "MainThread"]) > DUMPS / 2
