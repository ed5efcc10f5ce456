"""Clients of replicas behind one name, which come, go, are killed and updated under load."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from clear_examples import clear_examples
from client_load import Load, answered
from conftest import PATIENCE_S, ROOT, wait_until

from client import Resolving
from client.client import Client
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 1024, 64
# So soon after a name has changed, each server has at least half of an equal share of the answers.
SHARED_WITHIN_S = 10
OFTEN_S = 1.0
WINDOW = 120
# Streams stay with their server: short ones spread sooner.
STREAM_BATCHES = 10


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
        self.list(1)

    def start(self, number, models, *options):
        address = f"127.0.0.{number}:{self.port}"
        self.processes[number] = self._launch(models, *options, address=address)

    def list(self, *numbers):
        """Change the addresses of the name."""
        self.listed = numbers
        self._changed_s = time.monotonic()

    def look_up(self, host, port):
        """Addresses of the name, as a resolver of Resolving."""
        assert (host, port) == ("replicas.test", self.port)
        return [f"127.0.0.{number}:{port}" for number in self.listed]

    def client(self, balance):
        """A client of the name."""
        resolving = Resolving(OFTEN_S, self.look_up)
        return Client(self.name, deadline_s=PATIENCE_S, balance=balance, resolving=resolving)

    def counts(self, callers=None):
        """Answers of each listed server so far."""
        return {n: answered(caller) for n, caller in (callers or self._callers()).items()}

    def _callers(self):
        return {n: self._call(f"127.0.0.{n}:{self.port}") for n in self.listed}

    def share(self):
        """Wait until each listed server has its share; not long after the name has changed."""
        left_s = self._changed_s + SHARED_WITHIN_S - time.monotonic()
        self._share(left_s, f"{SHARED_WITHIN_S} s after the name had changed")

    def share_again(self):
        """As `share`, with time for a server that was away."""
        self._share(PATIENCE_S, f"{PATIENCE_S} s later")

    def _share(self, within_s, when):
        end_s = time.monotonic() + within_s
        callers = self._callers()
        before = self.counts(callers)
        got = None
        while got is None or 2 * len(got) * min(got) < sum(got):
            assert time.monotonic() < end_s, f"{when} {self.listed} have answered {got}"
            time.sleep(0.01)
            now = self.counts(callers)
            latest = [now[n] - before[n] for n in now]
            if sum(latest) >= WINDOW:
                got, before = latest, now


@pytest.fixture
def replicas(launch, call, contents):
    return Replicas(launch, call, contents[1][0])


@pytest.mark.parametrize("balance", ["least_requests", "round_robin"])
def test_a_name_grows_and_shrinks_under_load_and_no_request_fails(
    replicas, contents, eventually, balance
):
    x, (models, _), (labels, _) = contents
    with replicas.client(balance) as client:
        load = Load(client, x, labels, batches=STREAM_BATCHES)
        with load.running():
            load.goes_on(eventually)
            for number in (2, 3):
                replicas.start(number, models)
            replicas.list(1, 2, 3)
            replicas.share()
            replicas.list(1, 3)
            replicas.share()
            # The one that left is stopped as a deployment would, while others are asked.
            assert replicas.processes[2].stop() == 0
            load.goes_on(eventually)
    load.lost_nothing()


@pytest.mark.parametrize("balance", ["least_requests", "round_robin"])
def test_one_of_three_that_is_killed_costs_no_request(replicas, contents, eventually, balance):
    x, (models, _), (labels, _) = contents
    for number in (2, 3):
        replicas.start(number, models)
    replicas.list(1, 2, 3)
    with replicas.client(balance) as client:
        load = Load(client, x, labels, batches=STREAM_BATCHES)
        with load.running():
            replicas.share()
            replicas.processes[2].stop(signal.SIGKILL)
            load.goes_on(eventually)
            # It is still among the addresses of the name, and back at the same one.
            replicas.start(2, models)
            replicas.share_again()
    load.lost_nothing()


def test_a_rolling_update_fails_no_request_and_mixes_no_answer(replicas, contents):
    x, (old, new), labels = contents
    for number in (2, 3):
        replicas.start(number, old)
    replicas.list(1, 2, 3)
    resolving = Resolving(OFTEN_S, replicas.look_up)
    with Client(replicas.name, deadline_s=PATIENCE_S, resolving=resolving) as client:
        load = Load(client, x, *labels, batches=STREAM_BATCHES)
        with load.running():
            replicas.share()
            for number in (1, 2, 3):
                replicas.list(*(n for n in (1, 2, 3) if n != number))
                assert replicas.processes[number].stop() == 0
                replicas.start(number, new)
                replicas.list(1, 2, 3)
                replicas.share()
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
UNDER_LOAD = """
import sys
import numpy as np
from client import Client, Resolving
from client_load import Load

name, batches, examples, labels = sys.argv[1:]
with Client(f"dns:///{name}", deadline_s=30, resolving=Resolving(1)) as client:
    load = Load(client, np.load(examples), np.load(labels), batches=int(batches))
    with load.running():
        sys.stdin.read()
load.lost_nothing()
print(load.right.total())
"""


def with_files(files, *arguments):
    """Start a program of Python that has files of its own in place of the system's.

    `files`: their paths by those of the system; in a mount namespace, so that others see nothing
    of it. Its stdin and stdout are pipes.
    """
    mounts = " && ".join(f"mount --bind {path} {place}" for place, path in files.items())
    if subprocess.run([*UNSHARE, "sh", "-c", mounts], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces for users (unshare --user --mount)")
    return subprocess.Popen(
        [*UNSHARE, "sh", "-c", f'{mounts} && exec "$@"', "sh", sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )


def test_the_systems_resolver_is_followed(replicas, contents, tmp_path, eventually):
    """With a hosts file of the client's own, which getaddrinfo reads anew."""
    x, (models, _), _ = contents
    hosts, conf = tmp_path / "hosts", tmp_path / "host.conf"
    examples = tmp_path / "x.npy"
    conf.write_text("multi on\n")
    np.save(examples, x[:1])

    def lists(*numbers):
        hosts.write_text("".join(f"127.0.0.{n} replicas.test\n" for n in numbers))

    lists(1)
    files = {"/etc/hosts": hosts, "/etc/host.conf": conf}
    follower = with_files(files, "-c", FOLLOW, replicas.name, str(examples))

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
        replicas.list(1, 2, 3)
        lists(1, 2, 3)
        eventually(lambda: shared(1, 2, 3), "all three are asked")
        lists(2, 3)
        eventually(lambda: shared(2, 3), "the first is asked no more")


class Dns:
    """A DNS server, which has the addresses of the replicas' name; `files` make it the system's."""

    def __init__(self, folder):
        path = shutil.which("dnsmasq", path=f"{os.environ['PATH']}:/usr/sbin")
        if path is None:
            pytest.skip("dnsmasq is not installed; Debian's package dnsmasq-base has it")
        if os.geteuid() != 0:
            pytest.skip("needs root: resolv.conf has no port, and that of DNS is 53")
        self._hosts, conf, switch = (folder / name for name in ("names", "resolv", "switch"))
        # An address of loopback that no other test has.
        address = f"127.53.{os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"
        conf.write_text(f"nameserver {address}\n")
        switch.write_text("hosts: dns\n")
        self.files = {"/etc/resolv.conf": conf, "/etc/nsswitch.conf": switch}
        self._hosts.touch()
        options = ("keep-in-foreground", "conf-file=/dev/null", "no-resolv", "no-hosts")
        options += ("bind-interfaces", "user=root", "pid-file", "local=/test/", "log-facility=-")
        options += (f"listen-address={address}", f"addn-hosts={self._hosts}")
        self._process = subprocess.Popen([path, *map("--{}".format, options)])

        def listens():
            with contextlib.suppress(OSError), socket.create_connection((address, 53)):
                return True

        wait_until(listens, "the DNS server listens")

    def list(self, *numbers):
        """Change the addresses of the name."""
        self._hosts.write_text("".join(f"127.0.0.{n} replicas.test\n" for n in numbers))
        self._process.send_signal(signal.SIGHUP)

    def close(self):
        self._process.terminate()
        self._process.wait(PATIENCE_S)


def test_a_name_in_dns_grows_and_shrinks_under_load_and_no_request_fails(
    replicas, contents, tmp_path
):
    x, (models, _), (labels, _) = contents
    examples, expected = tmp_path / "x.npy", tmp_path / "labels.npy"
    np.save(examples, x)
    np.save(expected, labels)
    with contextlib.closing(Dns(tmp_path)) as dns:

        def lists(*numbers):
            dns.list(*numbers)
            replicas.list(*numbers)
            replicas.share()

        dns.list(1)
        program = ("-c", UNDER_LOAD, replicas.name, str(STREAM_BATCHES), examples, expected)
        with with_files(dns.files, *program) as asking:
            replicas.share_again()
            for number in (2, 3):
                replicas.start(number, models)
            lists(1, 2, 3)
            lists(1, 3)
            assert replicas.processes[2].stop() == 0
            replicas.share_again()
            answers = asking.communicate(timeout=PATIENCE_S)[0]
    assert asking.returncode == 0
    assert int(answers) > WINDOW
