"""haproxy and nginx from deploy/proxies, before three servers of which one goes and comes back."""

import contextlib
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from clear_examples import clear_examples
from client_load import STREAMED, UNARY, Load, answered
from conftest import GROUP_ROWS, PATIENCE_S, SERVICE
from proxies import PROXIES, Haproxy
from triton_load import TritonLoad, ask, connected, outcome, seen_of_a_kill

from client.client import Client
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 16384, 64
LARGE_ROWS = 1024  # 64 MiB
LONG_METADATA = 15 * 2**10
# What is taken out waits for the end of its streams.
BATCHES = 10
# What tritonclient sees of a stream whose server is killed behind a proxy, and perhaps, instead of
# UNAVAILABLE, of what is still being sent when the proxy ends it: the table of docs/scaling.md.
CUT = {"haproxy": "CANCELLED", "nginx": "INTERNAL"}
KEEPALIVE_S = 1.0
NO_CODES = {UNARY: set(), STREAMED: set()}


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


class Fleet:
    """Three servers, which come back at their addresses."""

    def __init__(self, launch, models):
        self._launch, self._models = launch, models
        self.processes = [launch(models) for _ in range(3)]
        self.addresses = [process.address for process in self.processes]

    def restart(self, number):
        address = self.addresses[number]
        self.processes[number] = self._launch(self._models, address=address)


@pytest.fixture(scope="module")
def fleet(launch_for_module, models):
    return Fleet(launch_for_module, models)


@contextlib.contextmanager
def started(kind, servers):
    with contextlib.closing(PROXIES[kind](servers)) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request, fleet):
    with started(request.param, fleet.addresses) as one:
        yield one


class Loads:
    """Both clients under load at the same time."""

    def __init__(self, proxy, fleet, examples, call, eventually):
        self._proxy, self._fleet, self._examples = proxy, fleet, examples
        self._call, self._eventually = call, eventually

    @contextlib.contextmanager
    def running(self):
        """Run them. Afterwards our client has lost nothing; `codes` has what the other saw."""
        with Client(self._proxy.address, deadline_s=PATIENCE_S) as client:
            self._ours = Load(client, *self._examples, batches=BATCHES)
            self._triton = TritonLoad(self._proxy.address, *self._examples, batches=BATCHES)
            with self._ours.running(), self._triton.running():
                self.go_on()
                yield
                self.go_on()
        self._ours.lost_nothing()
        assert self._triton.broken == []
        assert not self._triton.wrong
        self.codes = self._triton.codes()

    def go_on(self):
        self._ours.goes_on(self._eventually)
        self._triton.goes_on(self._eventually)

    def see(self, number):
        """Wait for requests at a server that was started again."""
        caller = self._call(self._fleet.addresses[number])
        self._eventually(lambda: answered(caller) > 0, "the server that is back gets requests")


@pytest.fixture
def loads(proxy, fleet, examples, call, eventually):
    return Loads(proxy, fleet, examples, call, eventually)


def test_the_file_is_valid(proxy):
    checked = proxy.check({"haproxy": "-c", "nginx": "-t"}[proxy.program])
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    assert "warn" not in said.lower()


def test_messages_of_64_mib_pass(proxy, examples):
    x, labels = examples
    rows = np.resize(np.arange(ROWS), LARGE_ROWS)
    with Client(proxy.address, deadline_s=PATIENCE_S) as client:
        response = client.infer({"x": x[rows]}, ["label"])
    np.testing.assert_array_equal(response["label"], labels[rows])
    with connected(proxy.address) as client:
        np.testing.assert_array_equal(ask(client, x[rows]), labels[rows])


def test_metadata_pass_whatever_their_names_and_length(proxy, call, eventually):
    caller = call(proxy.address)
    live = caller.channel.unary_unary(SERVICE + "ServerLive")
    metadata = [("a_b.c", "1"), ("long", "a" * LONG_METADATA)]
    assert live(b"", timeout=PATIENCE_S, metadata=metadata)
    message = caller.message("nobody", x=np.zeros((1, 1), np.float32))

    def ended_with():
        # A server that does not get the name with _ answers with a message.
        with pytest.raises(grpc.RpcError) as caught:
            list(caller.open_stream(iter([message]), errors_end_it=True))
        return caught.value.code()

    # haproxy cancels a stream that the server ends before haproxy has seen the client's end.
    eventually(lambda: ended_with() is grpc.StatusCode.NOT_FOUND, "the server's own status")


def test_a_call_that_meets_a_refused_connection_goes_to_another_server(proxy, fleet, examples):
    x, _ = examples
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        servers = ["127.0.0.1:{1}".format(*nobody.getsockname()), *fleet.addresses[:2]]
        with started(proxy.program, servers) as one, connected(one.address) as client:
            one.ignore_health(0)
            assert [outcome(lambda: ask(client, x)) for _ in range(6)] == ["OK"] * 6


@contextlib.contextmanager
def six_calls(fleet, examples, client):
    """Calls, of which a server that hangs meanwhile gets two; all get right answers in the end."""
    x, labels = examples
    client.predict(x)
    with ThreadPoolExecutor(6) as pool:
        fleet.processes[2].freeze()
        try:
            calls = [pool.submit(client.infer, {"x": x}, ["label"]) for _ in range(6)]
            yield calls
        finally:
            fleet.processes[2].popen.send_signal(signal.SIGCONT)
        for each in calls:
            np.testing.assert_array_equal(each.result()["label"], labels)


def test_behind_nginx_a_server_that_hangs_holds_up_no_call_to_the_others(
    fleet, examples, eventually
):
    with (
        started("nginx", fleet.addresses) as proxy,
        Client(proxy.address, deadline_s=PATIENCE_S) as client,
        six_calls(fleet, examples, client) as calls,
    ):
        eventually(lambda: sum(call.done() for call in calls) >= 4, "four are answered")
        # It has more calls than the others, so it gets no more.
        for _ in range(4):
            client.predict(examples[0])
        assert sum(call.done() for call in calls) == 4


def test_behind_haproxy_a_client_with_keepalive_leaves_a_connection_that_hangs(
    fleet, examples, eventually
):
    with (
        started("haproxy", fleet.addresses) as proxy,
        Client(proxy.address, deadline_s=PATIENCE_S, keepalive_s=KEEPALIVE_S) as client,
        six_calls(fleet, examples, client) as calls,
    ):
        eventually(lambda: all(call.done() for call in calls), "all are answered")


def test_a_server_that_is_killed_costs_our_client_no_request(loads, proxy, fleet):
    with loads.running():
        fleet.processes[1].stop(signal.SIGKILL)
        loads.go_on()
        fleet.restart(1)
        loads.see(1)
    for codes in loads.codes.values():
        assert codes <= {"UNAVAILABLE", CUT[proxy.program]}


def test_a_server_that_is_stopped_costs_our_client_no_request(loads, proxy, fleet):
    with loads.running():
        assert fleet.processes[1].stop() == 0
        loads.go_on()
        fleet.restart(1)
        loads.see(1)
    for codes in loads.codes.values():
        assert codes <= {"UNAVAILABLE", CUT[proxy.program]}


def test_a_server_that_is_taken_out_first_costs_no_client_a_request(loads, proxy, fleet):
    with loads.running():
        proxy.take_out(1)
        loads.go_on()
        assert fleet.processes[1].stop() == 0
        loads.go_on()
        fleet.restart(1)
        proxy.put_back(1)
        loads.see(1)
    assert loads.codes == NO_CODES


@pytest.mark.parametrize("kind", PROXIES)
def test_tritonclient_sees_these_codes_of_a_server_that_is_killed(kind, launch, models, examples):
    server = launch(models)
    with started(kind, [server.address] * 3) as one:
        seen = seen_of_a_kill(server, one.address, examples[0])
    assert seen.pop("stream") == CUT[kind]
    assert set(seen.values()) <= {"UNAVAILABLE", CUT[kind]}


def test_haproxy_leaves_out_a_server_that_reports_not_serving(launch, models, call, eventually):
    draining, other = (launch(models, "--group-rows", GROUP_ROWS) for _ in range(2))
    caller = call(draining.address)
    servers = [draining.address, other.address, other.address]
    with contextlib.closing(Haproxy(servers)) as haproxy:
        eventually(lambda: haproxy.state(0)["check_status"] == "L7OK", "it is checked")
        with caller.busy_worker():
            draining.popen.send_signal(signal.SIGTERM)
            eventually(lambda: haproxy.state(0)["status"] == "DOWN", "it is left out")
            # It still takes connections, and says so.
            assert haproxy.state(0)["check_status"] == "L7RSP"
            assert caller.health() == "NOT_SERVING"
        assert draining.wait() == 0
        assert haproxy.state(1)["check_status"] == "L7OK"
