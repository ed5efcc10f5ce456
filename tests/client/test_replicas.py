"""Clients of replicas behind one name, which come, go, are killed and updated under load."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from clear_examples import clear_examples
from client_load import Load, answered
from conftest import PATIENCE_S, ROOT

from client import Resolving
from client.client import Client
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 1024, 64
# A server whose share of three is a third has at least this part of the answers.
LEAST_SHARE = 0.1
OFTEN_S = 1.0
WINDOW = 60


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Two folders with the model, and the labels of each: they agree on no example."""
    x, labels = clear_examples(CLASSES, FEATURES, ROWS)
    weights = from_seed(CLASSES, FEATURES, 0)
    folders = []
    for shift in (0, 1):
        folders.append(tmp_path_factory.mktemp("models"))
        shifted = np.roll(weights, shift, axis=0)
        export(folders[-1], "linear_argmax", shifted, "float32", 0)
    return x, folders, (labels, (labels + 1) % CLASSES)


class Replicas:
    """Servers at 127.0.0.1, 127.0.0.2, ..., and the name that has the addresses of some."""

    def __init__(self, launch, call, models):
        self._launch, self._call = launch, call
        self.processes = {1: launch(models)}
        self.port = int(self.processes[1].address.rpartition(":")[2])
        self.name = f"replicas.test:{self.port}"
        self.listed = [1]

    def start(self, number, models, *options):
        address = f"127.0.0.{number}:{self.port}"
        self.processes[number] = self._launch(models, *options, address=address)

    def look_up(self, host, port):
        """Addresses of the name, as a resolver of Resolving."""
        assert (host, port) == ("replicas.test", self.port)
        return [f"127.0.0.{number}:{port}" for number in self.listed]

    def client(self, balance):
        """A client of the name."""
        resolving = Resolving(OFTEN_S, self.look_up)
        return Client(self.name, deadline_s=PATIENCE_S, balance=balance, resolving=resolving)

    def counts(self):
        """Answers of each listed server so far."""
        callers = {n: self._call(f"127.0.0.{n}:{self.port}") for n in self.listed}
        return {n: answered(caller) for n, caller in callers.items()}

    def share(self, eventually):
        """Wait until each listed server answers its share of the requests of now."""

        def all_share():
            before = self.counts()

            def window():
                now = self.counts()
                got = [now[n] - before[n] for n in now]
                return got if sum(got) >= WINDOW else None

            got = eventually(window, "requests are answered")
            return min(got) >= LEAST_SHARE * sum(got)

        eventually(all_share, f"{self.listed} share the load")


@pytest.fixture
def replicas(launch, call, contents):
    return Replicas(launch, call, contents[1][0])


@pytest.mark.parametrize("balance", ["least_requests", "round_robin"])
def test_a_name_grows_and_shrinks_under_load_and_no_request_fails(
    replicas, contents, eventually, balance
):
    x, (models, _), (labels, _) = contents
    with replicas.client(balance) as client:
        load = Load(client, x, labels)
        with load.running():
            load.goes_on(eventually)
            for number in (2, 3):
                replicas.start(number, models)
            replicas.listed = [1, 2, 3]
            replicas.share(eventually)
            replicas.listed = [1, 3]
            replicas.share(eventually)
            # The one that left is stopped as a deployment would, while others are asked.
            assert replicas.processes[2].stop() == 0
            load.goes_on(eventually)
    load.lost_nothing()


@pytest.mark.parametrize("balance", ["least_requests", "round_robin"])
def test_one_of_three_that_is_killed_costs_no_request(replicas, contents, eventually, balance):
    x, (models, _), (labels, _) = contents
    for number in (2, 3):
        replicas.start(number, models)
    replicas.listed = [1, 2, 3]
    with replicas.client(balance) as client:
        load = Load(client, x, labels)
        with load.running():
            replicas.share(eventually)
            replicas.processes[2].stop(signal.SIGKILL)
            load.goes_on(eventually)
            # It is still among the addresses of the name, and back at the same one.
            replicas.start(2, models)
            replicas.share(eventually)
    load.lost_nothing()


def test_a_rolling_update_fails_no_request_and_mixes_no_answer(replicas, contents, eventually):
    x, (old, new), labels = contents
    for number in (2, 3):
        replicas.start(number, old)
    replicas.listed = [1, 2, 3]
    resolving = Resolving(OFTEN_S, replicas.look_up)
    with Client(replicas.name, deadline_s=PATIENCE_S, resolving=resolving) as client:
        load = Load(client, x, *labels)
        with load.running():
            replicas.share(eventually)
            for number in (1, 2, 3):
                replicas.listed = [n for n in (1, 2, 3) if n != number]
                assert replicas.processes[number].stop() == 0
                replicas.start(number, new)
                replicas.listed = [1, 2, 3]
                replicas.share(eventually)
        np.testing.assert_array_equal(client.predict(x), labels[1])
    load.lost_nothing()


def test_a_stream_moves_on_to_a_new_server_where_connections_have_an_age(
    serve, call, contents, eventually
):
    x, (models, _), (labels, _) = contents
    ages = {"max_connection_age_s": 0.5, "max_connection_age_grace_s": 0.1}
    first = serve(models, **ages).address
    listed = [first]
    with Client(
        "replicas.test:1",
        deadline_s=PATIENCE_S,
        resolving=Resolving(0.1, lambda host, port: listed),
    ) as client:
        moved = threading.Event()

        def batches():
            while not moved.is_set():
                yield x

        answers = client.stream(batches())
        np.testing.assert_array_equal(next(answers), labels)
        second = serve(models, **ages).address
        listed.append(second)
        for got in answers:
            np.testing.assert_array_equal(got, labels)
            if answered(call(second)):
                moved.set()
        assert moved.is_set()


UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
FOLLOW = """
import sys
import numpy as np
from client import Client, Resolving

name, examples = sys.argv[1:]
x = np.load(examples)
with Client(f"dns:///{name}", deadline_s=30, resolving=Resolving(0.1)) as client:
    for line in sys.stdin:
        for _ in range(int(line)):
            client.predict(x)
        print("done", flush=True)
"""


def test_the_systems_resolver_is_followed(replicas, contents, tmp_path, eventually):
    """With a hosts file of the client's own, in a mount namespace, which getaddrinfo reads anew."""
    x, (models, _), _ = contents
    hosts, conf = tmp_path / "hosts", tmp_path / "host.conf"
    examples = tmp_path / "x.npy"
    conf.write_text("multi on\n")
    np.save(examples, x[:1])

    def lists(*numbers):
        replicas.listed = list(numbers)
        hosts.write_text("".join(f"127.0.0.{n} replicas.test\n" for n in numbers))

    lists(1)
    mounts = f"mount --bind {hosts} /etc/hosts && mount --bind {conf} /etc/host.conf"
    if subprocess.run([*UNSHARE, "sh", "-c", mounts], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces for users (unshare --user --mount)")
    words = [sys.executable, "-c", FOLLOW, replicas.name, str(examples)]
    follower = subprocess.Popen(
        [*UNSHARE, "sh", "-c", f'{mounts} && exec "$@"', "sh", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def asks(count):
        follower.stdin.write(f"{count}\n")
        follower.stdin.flush()
        assert follower.stdout.readline() == "done\n"

    def shared(*numbers):
        before = replicas.counts()
        asks(20)
        now = replicas.counts()
        return all((now[n] > before[n]) == (n in numbers) for n in now)

    with follower:
        asks(5)
        for number in (2, 3):
            replicas.start(number, models)
        lists(1, 2, 3)
        eventually(lambda: shared(1, 2, 3), "all three are asked")
        lists(2, 3)
        replicas.listed = [1, 2, 3]
        eventually(lambda: shared(2, 3), "the first is asked no more")
