import re

import numpy as np
import pytest

from client.client import Client
from client.connection import addresses
from client.connection.channel import RetryPolicy
from client.errors import Unreachable, UsageError
from measure.__main__ import main
from model.export import export
from model.weights import from_seed

FEATURES = 8
X = np.eye(FEATURES, dtype=np.float32)


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(4, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2", ("a:1", "b:2")),
        (["a:1", "b:2, c:3"], ("a:1", "b:2", "c:3")),
        ("unix:/a,unix:/b", ("unix:/a", "unix:/b")),
    ],
)
def test_several_come_with_commas_or_apart(given, parsed):
    assert addresses.parse(given) == parsed


@pytest.mark.parametrize("given", ["", ",", "a:1,", "a:1,,b:2", [], [""], ["a:1", ""]])
def test_no_address_is_a_usage_error(given):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        addresses.parse(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a:99999", "port 99999; expected 1 to 65535"),
        ("a:0", "port 0"),
        ("a:-1", "port -1"),
        ("a:+1", "port +1"),
        ("a:8o", "port 8o"),
        ("a:" + "9" * 5000, "port 99999999999999999999;"),
        ("a:٣", "port ٣"),
        ("a", "has no port"),
        ("a:", "has no port"),
        ("[::1]", "has no port"),
        (":80", "has no host"),
        ("[]:80", "no IPv6 host in its brackets"),
        ("[name]:80", "no IPv6 host in its brackets"),
        ("::1:80", "an IPv6 host in brackets"),
        ("a b:80", "no valid host"),
        ("user@a:80", "no valid host"),
        ("a:80/path", "port 80/path"),
        ("http://a:80", "is a URL; expected HOST:PORT or unix:/path, without http://"),
        ("grpc://a", "is a URL"),
        ("unix:", "no path of a socket"),
        ("unix://", "no path of a socket"),
        ("unix://a/b", "no path of a socket"),
        ("unix:/" + "x" * 107, "a path of 108 bytes; sockets take at most 107"),
        ("unix:/a\0b", "a zero in its path"),
    ],
)
@pytest.mark.parametrize("among", ["{}", "127.0.0.1:1,{}"], ids=["alone", "among others"])
def test_an_address_that_cannot_be_one_is_refused_by_name(given, among, says):
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        Client(among.format(given))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "given", ["a:1", "a:65535", "[::1]:80", "unix:a", "unix:///a", "dns:///a:1"]
)
def test_every_form_of_an_address_is_taken(given):
    with Client(given) as client:
        assert client.model == "linear_argmax"


def test_a_name_that_cannot_be_resolved_is_unreachable_and_leaves_the_other_servers(serve, models):
    once = RetryPolicy(attempts=1)
    for name in ("name.invalid", f"{'x' * 70}.invalid"):
        with (
            Client(f"{name}:2", retry=once) as client,
            pytest.raises(Unreachable, match="the host name cannot be resolved"),
        ):
            client.predict(X)
        with Client(f"{serve(models).address},{name}:2", retry=once) as client:
            assert client.predict(X).shape == (FEATURES,)


@pytest.mark.parametrize("kinds", [("TCP", "TCP"), ("Unix", "Unix"), ("TCP", "Unix")])
def test_servers_take_turns(kinds, serve, models, tmp_path, eventually):
    told = [
        "127.0.0.1:0" if kind == "TCP" else f"unix:{tmp_path}/{number}"
        for number, kind in enumerate(kinds)
    ]
    servers = [serve(models, address=address).address for address in told]
    with Client(servers) as client:
        want = client.predict(X)

        def counts():
            """Answers of each server, after one more request."""
            np.testing.assert_array_equal(client.predict(X), want)
            found = []
            for address in servers:
                with Client(address) as one:
                    found.append(one.statistics().inference_stats.success.count)
            return found

        start = eventually(lambda: all(now := counts()) and now, "both are asked")
        for _ in range(9):
            last = counts()
    assert np.subtract(last, start).tolist() in ([4, 5], [5, 4])


def test_shared_memory_is_refused_with_several_servers():
    with (
        Client("127.0.0.1:1,127.0.0.1:2") as client,
        pytest.raises(UsageError, match="several servers"),
        client.shared(X),
    ):
        pass


def test_predict_takes_several_addresses_and_hedges(launch, models, tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    servers = [launch(models) for _ in range(2)]
    first, second = (server.address for server in servers)
    with Client(second) as client:
        want = client.predict(X).tolist()
    servers[0].freeze()
    rest = ["--hedge-ms", "50", "--deadline-s", "60", "--input", str(tmp_path / "x.npy")]
    for told in (["--address", f"{first},{second}"], ["--address", first, "--address", second]):
        assert main(["predict", *told, *rest]) == 0
        assert list(map(int, capsys.readouterr().out.split())) == want


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "127.0.0.1:1", "--hedge-ms", "5"], "two servers"),
        (["--address", "127.0.0.1:1", "--hedge-ms", "soon"], "milliseconds"),
        (["--address", "127.0.0.1:1,"], "expected HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_one_line(words, said, tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    assert main(["predict", *words, "--input", str(tmp_path / "x.npy")]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert said in line
