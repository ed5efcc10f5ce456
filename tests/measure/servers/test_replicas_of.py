"""Which servers addresses stand for, and where the metrics of each are."""

import socket

import pytest

from client.errors import UsageError
from measure.load.observing import metrics_urls
from measure.load.target import Target
from measure.servers.replicas import may_be_several, replicas_of
from transport.calling.resolving import Server

NAME = "argmax.test"
IPS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


@pytest.fixture
def looked_up(monkeypatch):
    """Have one name stand for three servers, as no name of this machine does."""

    def by_name(host, port):
        if host != NAME:
            raise socket.gaierror("unknown")
        return tuple(Server((f"{ip}:{port}",), host) for ip in IPS)

    monkeypatch.setattr("measure.servers.replicas.by_getaddrinfo", by_name)


def target(text):
    return Target(text, replicas_of(text), 1, None, "")


def test_a_list_has_each_server_once():
    found = replicas_of("127.0.0.1:1,unix:/s,127.0.0.1:1")
    assert [one.address for one in found] == ["127.0.0.1:1", "unix:/s"]
    # Certificates of all have the name of the first.
    assert {one.host for one in found} == {"127.0.0.1"}


def test_localhost_is_one_server_whatever_its_addresses():
    (one,) = replicas_of("localhost:1")
    assert (one.address, one.host) == ("localhost:1", None)
    assert "127.0.0.1:1" in one.name


def test_a_name_stands_for_its_addresses_and_an_unknown_one_for_a_server(looked_up):
    for text in (f"{NAME}:8001", f"dns:///{NAME}:8001"):
        found = replicas_of(text)
        assert [one.address for one in found] == [f"{ip}:8001" for ip in IPS]
        assert {one.host for one in found} == {NAME}
    assert [one.address for one in replicas_of("other.test:1")] == ["other.test:1"]


@pytest.mark.parametrize(
    ("text", "several"),
    [("127.0.0.1:1", False), ("unix:/s", False), ("a:1,b:1", True), ("dns:///a:1", True)],
)
def test_lists_and_names_may_be_several_servers(text, several):
    assert may_be_several(text) == several


def test_each_server_has_a_url_of_its_metrics(looked_up):
    urls = "http://a:1/metrics,http://b:2/metrics"
    assert metrics_urls(urls, target("127.0.0.1:1,127.0.0.1:2")) == urls.split(",")
    assert metrics_urls("http://a/m", target("127.0.0.1:1")) == ["http://a/m"]
    by_name = metrics_urls(f"http://{NAME}:8002/metrics", target(f"{NAME}:8001"))
    assert by_name == [f"http://{ip}:8002/metrics" for ip in IPS]


@pytest.mark.parametrize("urls", ["http://other:8002/metrics", "http://a/m,http://b/m"])
def test_another_number_of_urls_is_refused(looked_up, urls):
    with pytest.raises(UsageError, match="for 3 servers, expected one for each"):
        metrics_urls(urls, target(f"{NAME}:8001"))
