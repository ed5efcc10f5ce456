"""Clients of two servers, one of which goes away: killed, drained or stuck."""

import contextlib
import itertools
import signal
import threading

import numpy as np
import psutil
import pytest
from clear_examples import clear_examples
from client_load import Load, answered
from conftest import GROUP_ROWS, PATIENCE_S

from client.client import Client
from client.connection.channel import RetryPolicy
from client.errors import Unavailable
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 16384, 64
ROWS_OF_MIB = 2**20 // (4 * FEATURES)
SIZES_MIB = (1, 16, 64)
NEVER = RetryPolicy(attempts=1)
KEEPALIVE_S = 0.5


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="SIGKILL"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_servers_that_go_in_turn_cost_no_request(
    number, launch, models, call, examples, eventually
):
    first, second = launch(models), launch(models)
    with Client([first.address, second.address], deadline_s=PATIENCE_S) as client:
        load = Load(client, *examples)
        with load.running():
            load.goes_on(eventually)
            code = first.stop(number)
            load.goes_on(eventually)
            caller = call(launch(models, address=first.address).address)
            eventually(lambda: answered(caller) > 0, "the first has its share again")
            load.goes_on(eventually)
            assert second.stop(number) == code
            load.goes_on(eventually)
    assert load.errors == []
    assert not load.wrong
    assert load.right == load.asked
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)


def test_messages_of_any_size_that_a_killed_server_had_are_answered_by_the_other(
    launch, models, call, examples, eventually
):
    x, labels = examples
    stuck, other = launch(models), launch(models)
    got = {}
    with Client([stuck.address, other.address], deadline_s=PATIENCE_S) as client:
        eventually(lambda: answered_both(client, (stuck, other), call), "both")
        stuck.freeze()
        threads = []
        for done, mib in enumerate(SIZES_MIB, 1):
            rows = np.resize(np.arange(ROWS), mib * ROWS_OF_MIB)

            def ask(key, rows=rows):
                response = client.infer({"x": x[rows]}, ["label"])
                got[key] = np.array_equal(response.outputs[0].data, labels[rows])

            # They take turns, so one of the two is at the server that is stuck.
            pair = [threading.Thread(target=ask, args=((mib, number),)) for number in range(2)]
            for thread in pair:
                thread.start()
            threads += pair
            eventually(lambda done=done: len(got) == done, "one is answered")
        stuck.popen.kill()
        for thread in threads:
            thread.join()
    assert got == dict.fromkeys(itertools.product(SIZES_MIB, range(2)), True)


def answered_both(client, servers, call):
    """Ask until each of the servers answered."""
    client.predict(np.zeros((1, FEATURES), np.float32))
    return all(answered(call(server.address)) for server in servers)


@pytest.mark.parametrize(
    "name", ["SIGKILL", pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGSTOP"]
)
def test_a_stream_goes_on_at_the_other_server(name, launch, models, call, examples):
    x, labels = examples
    servers = [launch(models), launch(models)]
    batches = 40
    addresses = [server.address for server in servers]
    with Client(addresses, deadline_s=PATIENCE_S, keepalive_s=KEEPALIVE_S) as client:
        answers = client.stream(x for _ in range(batches))
        np.testing.assert_array_equal(next(answers), labels)
        counts = [answered(call(address)) for address in addresses]
        assert min(counts) == 0 < max(counts)
        servers[np.argmax(counts)].popen.send_signal(signal.Signals[name])
        rest = list(answers)
        assert len(rest) == batches - 1
        for got in rest:
            np.testing.assert_array_equal(got, labels)
        assert answered(call(addresses[np.argmin(counts)])) > 0


def test_a_server_that_drains_is_asked_nothing_more(launch, models, call, examples, eventually):
    x, labels = examples
    draining, other = (launch(models, "--group-rows", GROUP_ROWS) for _ in range(2))
    caller = call(draining.address)
    with Client([draining.address, other.address], retry=NEVER) as client:
        eventually(lambda: answered_both(client, (draining, other), call), "both")
        with caller.busy_worker():
            draining.popen.send_signal(signal.SIGTERM)
            eventually(lambda: caller.health() == "NOT_SERVING", "it says so")

            def all_answered():
                with contextlib.suppress(Unavailable):
                    return all(np.array_equal(client.predict(x), labels) for _ in range(10))

            eventually(all_answered, "only the other is asked")
            assert caller.health() == "NOT_SERVING"  # not gone meanwhile
        assert draining.wait() == 0


class Connections:
    """Connections that this process has had to a server at once or one after the other."""

    def __init__(self, address):
        self._port = int(address.rpartition(":")[2])
        self._ports = set()

    def count(self):
        found = psutil.Process().net_connections("tcp")
        self._ports |= {each.laddr.port for each in found if each.raddr[1:] == (self._port,)}
        return len(self._ports)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_connections_that_are_too_old_cost_no_request(
    serve, models, examples, eventually, transport
):
    ages = {"max_connection_age_s": 0.2, "max_connection_age_grace_s": 0.1}
    address = serve(models, transport=transport, **ages).address
    connections = Connections(address)
    with Client(address, deadline_s=PATIENCE_S) as client:
        load = Load(client, *examples)
        with load.running():
            eventually(lambda: load.errors or connections.count() > 3, "connections are renewed")
            load.goes_on(eventually)
    assert load.errors == []
    assert not load.wrong
    assert load.right == load.asked


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_a_stream_outlives_the_connections_that_it_is_sent_on(
    serve, models, examples, eventually, transport
):
    ages = {"max_connection_age_s": 0.2, "max_connection_age_grace_s": 0.1}
    address = serve(models, transport=transport, **ages).address
    connections = Connections(address)
    x, labels = examples
    with Client(address, deadline_s=PATIENCE_S) as client:

        def batches():
            while connections.count() < 4:
                yield x

        answers = list(client.stream(batches()))
    assert len(answers) > 4
    assert all(np.array_equal(each, labels) for each in answers)
