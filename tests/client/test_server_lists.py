"""Clients of servers that are listed in a file, or by an application on Ray."""

import asyncio
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from clear_examples import clear_examples
from client_load import Load, answered
from conftest import PATIENCE_S

from client import AsyncClient, Client, Credentials, Resolving
from client.connection.channel import RetryPolicy
from client.errors import Unreachable, UsageError
from measure.__main__ import main
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, ROWS = 8, 1024, 64
LEAST_SHARE = 0.1
WINDOW = 40
OFTEN = Resolving(0.1)
ONCE = RetryPolicy(attempts=1)
SHORT = ["--warm-up-s", "0.1", "--window-s", "0.15", "--max-windows", "3"]
SHORT += ["--classes", str(CLASSES), "--features", str(FEATURES)]


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    return clear_examples(CLASSES, FEATURES, ROWS)


class FileList:
    """A list of servers in a file, which is replaced as a whole."""

    def __init__(self, folder):
        self.path = folder / "servers"
        self.address = f"file:{self.path}"

    def write(self, *addresses):
        other = self.path.with_name("new")
        other.write_text("".join(f"{address}\n" for address in addresses))
        os.replace(other, self.path)


class PageList:
    """A list of servers as the application on Ray has it: at the route /argmax of an HTTP port."""

    def __init__(self):
        listing = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                known = self.path == "/argmax"
                self.send_response(listing.status if known else 404)
                self.send_header("Content-Length", str(len(listing.text)))
                self.end_headers()
                self.wfile.write(listing.text)

            def log_message(self, *_):
                pass

        self.text, self.status = b"", 200
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.address = f"ray://127.0.0.1:{self.port}/argmax"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def write(self, *addresses):
        self.text = "".join(f"{address}\n" for address in addresses).encode()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def page():
    made = PageList()
    yield made
    made.close()


@pytest.fixture(params=["file", "ray"])
def listing(request, tmp_path):
    return FileList(tmp_path) if request.param == "file" else request.getfixturevalue("page")


def shared(callers, eventually):
    """Wait until each of the servers answers its share of the requests of now."""

    def all_share():
        before = list(map(answered, callers))

        def window():
            got = np.subtract(list(map(answered, callers)), before).tolist()
            return got if sum(got) >= WINDOW else None

        got = eventually(window, "requests are answered")
        return min(got) >= LEAST_SHARE * sum(got)

    eventually(all_share, "all share the load")


def test_a_list_is_followed_under_load_and_no_request_fails(
    listing, launch, call, models, examples, eventually, tmp_path
):
    addresses = ["127.0.0.1:0", f"unix:{tmp_path}/socket", "127.0.0.1:0"]
    processes = [launch(models, address=address) for address in addresses]
    first, second, third = (process.address for process in processes)
    callers = {each: call(each) for each in (first, second, third)}
    listing.write(first)
    with Client(listing.address, deadline_s=PATIENCE_S, resolving=OFTEN) as client:
        load = Load(client, *examples)
        with load.running():
            load.goes_on(eventually)
            assert not answered(callers[second])
            listing.write(first, second, third)
            shared(callers.values(), eventually)
            listing.write(second, third)
            shared([callers[second], callers[third]], eventually)
            assert processes[0].stop() == 0
            load.goes_on(eventually)
            processes[2].stop(signal.SIGKILL)
            load.goes_on(eventually)
    load.lost_nothing()


def test_a_list_that_is_gone_or_bad_leaves_the_servers_as_they_are(
    listing, serve, call, models, examples, eventually
):
    x, labels = examples
    first, second = serve(models).address, serve(models).address
    listing.write(first)
    with Client(listing.address, deadline_s=PATIENCE_S, resolving=OFTEN) as client:
        for bad in ((), ("name:1",), ("<html>",)):
            np.testing.assert_array_equal(client.predict(x), labels)
            listing.write(*bad)
        np.testing.assert_array_equal(client.predict(x), labels)
        listing.write(second)
        caller = call(second)
        eventually(lambda: len(client.predict(x)) and answered(caller), "the second is asked")


def test_the_asyncio_client_takes_a_list(listing, serve, models, examples):
    x, labels = examples
    listing.write(serve(models).address)

    async def predict():
        async with AsyncClient(listing.address, deadline_s=PATIENCE_S) as client:
            return await client.predict(x)

    np.testing.assert_array_equal(asyncio.run(predict()), labels)


def test_commands_take_a_list(listing, serve, models, examples, tmp_path, capsys, monkeypatch):
    x, labels = examples
    listing.write(serve(models).address)
    np.save(tmp_path / "x.npy", x)
    # A path in the working directory, which is not that of the processes that send.
    monkeypatch.chdir(tmp_path)
    address = listing.address.replace(f"{tmp_path}/", "")
    predict = ["predict", "--address", address, "--resolve-s", "1", "--input", "x.npy"]
    assert main(predict) == 0
    assert list(map(int, capsys.readouterr().out.split())) == labels.tolist()
    load = ["load", "--address", address, "--concurrency", "1", "--out", "out", *SHORT]
    assert main(load) == 0
    assert (tmp_path / "out" / "load.json").is_file()


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        (b"", 200, "the list has no servers"),
        (b"no server yet", 503, "GET /argmax: got HTTP 503, expected 200 and a list"),
        (b"<html>", 200, "line 1 of the list: got '<html>', expected IP:PORT or unix:/path"),
    ],
)
def test_a_page_without_servers_is_unreachable_for_that_reason(page, text, status, says):
    page.text, page.status = text, status
    with (
        Client(page.address, retry=ONCE) as client,
        pytest.raises(Unreachable) as caught,
    ):
        client.live()
    assert str(caught.value) == f"UNAVAILABLE: cannot connect to {page.address}: {says}"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("file:/nowhere/servers", "cannot read the list of servers: No such file or directory"),
        ("ray://127.0.0.1:1/argmax", "connection refused, no server listens there"),
        ("ray://name.invalid:1", "the host name cannot be resolved"),
    ],
)
def test_a_list_that_cannot_be_read_is_unreachable(address, says):
    with (
        Client(address, retry=ONCE) as client,
        pytest.raises(Unreachable, match=f"cannot connect to {address}: {says}"),
    ):
        client.live()


def test_what_answers_no_http_is_unreachable(serve, models):
    address = f"ray://{serve(models).address}/argmax"
    with Client(address, retry=ONCE) as client, pytest.raises(Unreachable) as caught:
        client.live()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"UNAVAILABLE: cannot connect to {address}: ")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("file:", "has no path of a file; expected file:PATH"),
        ("file://host/servers", "has no path of a file; expected file:PATH"),
        ("file:/", "names a folder; expected a file of addresses"),
        ("file:/a\0b", "a zero in its path"),
        ("ray://", "has no valid HOST:PORT; expected ray://HOST:PORT[/APPLICATION]"),
        ("ray://name", "has no valid HOST:PORT"),
        ("ray://name:99999/argmax", "has no valid HOST:PORT"),
        ("ray://name:1/a b", "has no valid APPLICATION"),
        ("ray://name:1/a?b", "has no valid APPLICATION"),
    ],
)
def test_an_address_that_can_be_no_list_is_refused_by_name(address, says):
    with pytest.raises(UsageError) as caught:
        Client(address)
    assert says in str(caught.value)


def test_servers_that_are_listed_later_get_no_token_in_plain_text(tmp_path):
    with pytest.raises(UsageError, match="without TLS"):
        Client(f"file:{tmp_path}/servers", credentials=Credentials(token="secret"))


def test_what_needs_one_server_refuses_a_list(capsys):
    with (
        Client("file:servers") as client,
        pytest.raises(UsageError, match="several servers"),
        client.shared(np.zeros((1, FEATURES), np.float32)),
    ):
        pass


def test_health_probes_each_server_of_a_list(serve, models, tmp_path, capsys):
    servers = [serve(models) for _ in range(2)]
    listed = tmp_path / "servers"
    assert main(["health", "--address", f"file:{listed}"]) == 1
    assert "cannot read the list of servers" in capsys.readouterr().out
    listed.write_text("".join(f"{server.address}\n" for server in servers))
    assert main(["health", "--address", f"file:{listed}"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(
        f"{server.address}: ready" for server in servers
    )
