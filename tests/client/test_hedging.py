"""Clients that ask a second server where the first one takes long."""

import contextlib
import signal
import socket
import threading

import numpy as np
import pytest
from conftest import GROUP_ROWS, PATIENCE_S

from client.client import Client
from client.connection.channel import RetryPolicy
from client.errors import DeadlineExceeded, RequestFailed, Unavailable, UsageError

SOON_S, NEVER_S = 0.02, 1000


@pytest.fixture(scope="module")
def models(graphs):
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def servers(launch_for_module, models):
    """Three processes that serve the same."""
    return [launch_for_module(models, "--group-rows", GROUP_ROWS) for _ in range(3)]


@contextlib.contextmanager
def stuck(*processes):
    """Processes that keep their connections and answer nothing."""
    try:
        for process in processes:
            process.freeze()
        yield
    finally:
        for process in processes:
            process.popen.send_signal(signal.SIGCONT)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def client_of(*addresses, hedge_after_s=SOON_S, deadline_s=PATIENCE_S, **options):
    return Client(
        addresses,
        "steps",
        output="done",
        hedge_after_s=hedge_after_s,
        deadline_s=deadline_s,
        **options,
    )


def outcomes(caller):
    """Requests that a server answered, and those that failed or were cancelled."""
    statistics = caller.statistics("steps").inference_stats
    return np.array([statistics.success.count, statistics.fail.count])


def ask(client, count):
    for number in range(count):
        assert client.predict(np.array([[number]])) == [[number]]


def test_a_server_that_is_stuck_is_not_waited_for(servers):
    first, second, _ = servers
    with client_of(first.address, second.address) as client, stuck(first):
        ask(client, 40)


def test_no_more_than_two_servers_work_on_a_request(servers):
    first, second, third = (server.address for server in servers)
    with client_of(first, second, third, deadline_s=2) as client, stuck(*servers[:2]):
        with pytest.raises(DeadlineExceeded):
            client.live()
        # The second server is first in turn now, the third after it.
        assert client.live()


def test_a_request_that_is_answered_soon_is_sent_once(servers, call):
    callers = [call(server.address) for server in servers]
    before = [outcomes(caller) for caller in callers]
    with client_of(*(server.address for server in servers), hedge_after_s=NEVER_S) as client:
        client.input()
        client.config()
        ask(client, 30)
    after = [outcomes(caller) for caller in callers]
    assert np.subtract(after, before).sum() == 30


def test_the_call_that_comes_too_late_is_cancelled(servers, call, eventually):
    first, second, _ = servers
    caller = call(first.address)

    def dropped():
        return outcomes(caller)[1]

    with client_of(first.address, second.address) as client, caller.busy_worker():
        before = dropped()
        eventually(lambda: ask(client, 2) or dropped() > before, "the server drops one")


def test_an_error_is_an_answer(servers, call):
    callers = [call(server.address) for server in servers]
    before = [outcomes(caller) for caller in callers]
    with client_of(*(server.address for server in servers), hedge_after_s=NEVER_S) as client:
        with pytest.raises(RequestFailed) as caught:
            client.infer({"steps": np.zeros((1, 7), np.int64)})
        assert caught.value.code == "INVALID_ARGUMENT"
    after = [outcomes(caller) for caller in callers]
    assert np.subtract(after, before)[:, 1].sum() <= 1


def test_where_one_is_unavailable_the_next_is_asked_at_once(servers):
    options = {"hedge_after_s": NEVER_S, "retry": RetryPolicy(attempts=1)}
    with client_of(free_address(), servers[0].address, **options) as client:
        ask(client, 10)


def test_where_all_are_unavailable_it_is_tried_again(launch, models):
    addresses = [free_address(), free_address()]
    # For as long as a server takes to start on a busy machine.
    retry = RetryPolicy(attempts=200, initial_backoff_s=0.2, max_backoff_s=0.5)
    got = []
    with client_of(*addresses, retry=retry) as client:
        asking = threading.Thread(target=lambda: got.append(client.predict(np.array([[3]]))))
        asking.start()
        launch(models, address=addresses[1])
        asking.join()
    assert got == [[[3]]]


def test_where_all_stay_unavailable_it_is_given_up(servers):
    retry = RetryPolicy(attempts=3, initial_backoff_s=0.01)
    with (
        client_of(free_address(), free_address(), retry=retry) as client,
        pytest.raises(Unavailable),
    ):
        client.predict(np.array([[3]]))


def test_the_deadline_bounds_all_attempts_together(servers):
    first, second, _ = servers
    addresses = first.address, second.address
    with client_of(*addresses, deadline_s=0.3) as client, stuck(first, second):
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                client.live()
    # Without it, these attempts would take minutes.
    retry = RetryPolicy(attempts=50, initial_backoff_s=10, max_backoff_s=10)
    with (
        client_of(free_address(), free_address(), deadline_s=0.3, retry=retry) as client,
        pytest.raises(Unavailable),
    ):
        client.live()


def test_one_client_serves_many_threads(servers):
    first, second, _ = servers
    wrong = []

    def work(client, seed):
        for number in range(20):
            want = 100 * seed + number
            if client.predict(np.array([[want]])) != [[want]]:
                wrong.append(want)

    with client_of(first.address, second.address) as client, stuck(second):
        threads = [threading.Thread(target=work, args=(client, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("addresses", "after_s", "said"),
    [(["a:1"], 0.1, "two servers"), (["127.0.0.1:1", "127.0.0.1:2"], -1, "0 or more")],
)
def test_what_cannot_be_hedged_is_a_usage_error(addresses, after_s, said):
    with pytest.raises(UsageError, match=said):
        client_of(*addresses, hedge_after_s=after_s)
