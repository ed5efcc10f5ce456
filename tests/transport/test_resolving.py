"""Names become servers, and are looked up again without a call that waits for it."""

import socket
import threading

import pytest
from transport_services import PATIENCE_S, Peer

from transport.calling import resolving
from transport.calling.channel import Channel, ChannelOptions
from transport.calling.client_call import CallFailed
from transport.calling.resolving import Resolving, Server, by_getaddrinfo, fixed

OFTEN_S = 0.05


def infos(*ips):
    kinds = {False: socket.AF_INET, True: socket.AF_INET6}
    return [(kinds[":" in ip], socket.SOCK_STREAM, 6, "", (ip, 8001)) for ip in ips]


@pytest.mark.parametrize(
    ("ips", "servers"),
    [
        (["10.0.0.1"], [["10.0.0.1:8001"]]),
        (["10.0.0.1", "10.0.0.2"], [["10.0.0.1:8001"], ["10.0.0.2:8001"]]),
        (["2001:db8::1", "2001:db8::2"], [["[2001:db8::1]:8001"], ["[2001:db8::2]:8001"]]),
        (["2001:db8::1", "10.0.0.1", "10.0.0.2"], [["10.0.0.1:8001"], ["10.0.0.2:8001"]]),
        # One host of both kinds: the other address is tried where the first does not answer.
        (["::1", "127.0.0.1"], [["[::1]:8001", "127.0.0.1:8001"]]),
    ],
)
def test_each_address_of_a_name_is_a_server(ips, servers, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos(*ips))
    assert [list(server.ends) for server in by_getaddrinfo("name.test", 8001)] == servers


@pytest.mark.parametrize(
    ("address", "ends"),
    [
        ("127.0.0.1:1", ("127.0.0.1:1",)),
        ("dns:///127.0.0.1:1", ("127.0.0.1:1",)),
        ("[::1]:1", ("[::1]:1",)),
        ("unix:/a", ("unix:/a",)),
        ("some.name:1", None),
        ("dns:///some.name:1", None),
    ],
)
def test_what_is_no_name_needs_no_look_up(address, ends):
    assert fixed(address) == (ends and Server(ends))


def test_a_host_with_two_addresses_is_reached_at_the_one_that_listens(monkeypatch):
    peer = Peer("own")
    port = int(peer.address.rpartition(":")[2])
    found = infos("::1", "127.0.0.1")
    real = socket.getaddrinfo

    def getaddrinfo(host, *rest, **more):
        return found if host == "name.test" else real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with Channel(f"name.test:{port}") as channel:
        assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
        (subchannel,) = channel._servers.subchannels
        assert len(subchannel.server.ends) == 2
    peer.close()


class Names:
    """A function that looks names up, whose answers a test chooses."""

    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.error = None
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, host, port):
        self.count += 1
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return self.addresses

    def options(self, **more):
        return ChannelOptions(resolving=Resolving(OFTEN_S, self), **more)


@pytest.fixture
def peers():
    started = [Peer("own") for _ in range(3)]
    yield started
    for peer in started:
        peer.close()


def asked(channel, count=12):
    """Addresses of the servers that answer so many calls in a row."""
    echo = channel.unary_unary("/test/Echo")
    servers = set()
    for _ in range(count):
        call = echo.future(b"", timeout=PATIENCE_S)
        call.result()
        servers.add(call._stream.connection.target)
    return servers


@pytest.mark.parametrize("balance", ["least_requests", "round_robin"])
def test_a_name_is_followed_as_servers_come_and_go(peers, eventually, balance):
    first, second, third = (peer.address for peer in peers)
    names = Names(first)
    with Channel("name.test:1", names.options(balance=balance)) as channel:
        assert asked(channel) == {first}
        names.addresses = [first, second, third]
        eventually(lambda: asked(channel) == {first, second, third}, "all three are asked")
        names.addresses = [third, second]
        eventually(lambda: asked(channel) == {second, third}, "the first is asked no more")
        names.addresses = [first]
        eventually(lambda: asked(channel) == {first}, "it has taken over")


def test_a_server_that_left_its_name_finishes_its_calls_and_gets_no_new_ones(peers, eventually):
    first, second, _ = peers
    names = Names(first.address)
    with Channel("name.test:1", names.options()) as channel:
        stream = channel.stream_stream("/test/EchoStream")(None, timeout=PATIENCE_S)
        stream.send([b"before"])
        assert next(stream) == b"before"
        connection = stream._stream.connection
        names.addresses = [second.address]
        eventually(lambda: asked(channel) == {second.address}, "the second alone is asked")
        stream.send([b"after"])
        assert next(stream) == b"after"
        stream.half_close()
        assert list(stream) == []
        eventually(lambda: connection.lost, "its connection is closed after the last call")


def test_a_server_that_left_is_asked_while_no_listed_one_can_be_reached(peers, eventually):
    first, gone, _ = peers
    gone.close()
    names = Names(first.address)
    with Channel("name.test:1", names.options()) as channel:
        assert asked(channel) == {first.address}
        names.addresses = [gone.address]
        eventually(
            lambda: [each.server.name for each in channel._servers.subchannels] == [gone.address],
            "the name has changed",
        )
        assert asked(channel) == {first.address}
        back = Peer("own", gone.address)
        eventually(lambda: asked(channel) == {gone.address}, "the listed one is asked")
        back.close()


@pytest.mark.parametrize(
    "error", [OSError("no answer"), socket.gaierror(-3, "try again"), ArithmeticError("a bug")]
)
def test_a_look_up_that_fails_keeps_the_servers(peers, eventually, error):
    names = Names(peers[0].address, peers[1].address)
    listed = set(names.addresses)
    with Channel("name.test:1", names.options()) as channel:
        eventually(lambda: asked(channel) == listed, "both are asked")
        names.error = error
        count = names.count
        eventually(lambda: names.count > count + 2, "the name was looked up again")
        assert asked(channel) == listed
        names.error, names.addresses = None, []
        count = names.count
        eventually(lambda: names.count > count + 2, "no server is a failure too")
        assert asked(channel) == listed


def test_no_call_waits_for_a_look_up_of_a_name_that_has_servers(peers, eventually):
    names = Names(peers[0].address)
    with Channel("name.test:1", names.options()) as channel:
        asked(channel)
        names.gate.clear()
        count = names.count
        eventually(lambda: names.count > count, "a look-up stands still")
        assert asked(channel) == {peers[0].address}
        names.gate.set()


def test_nothing_is_looked_up_before_the_first_call_which_waits_for_it(peers):
    names = Names(peers[0].address)
    names.gate.clear()
    with Channel("name.test:1", names.options()) as channel:
        assert names.count == 0
        call = channel.unary_unary("/test/Echo").future(b"x", timeout=PATIENCE_S)
        assert not call.done()
        names.gate.set()
        assert call.result() == b"x"


def test_a_name_that_was_never_resolved_fails_calls_until_it_is(peers, eventually):
    names = Names(peers[0].address)
    names.error = socket.gaierror(-2, "unknown")
    with Channel("name.test:1", names.options()) as channel:
        echo = channel.unary_unary("/test/Echo")
        with pytest.raises(CallFailed, match=r"UNAVAILABLE: failed to connect to name\.test:1: "):
            echo(b"", timeout=PATIENCE_S)
        waiting = echo.future(b"y", timeout=PATIENCE_S, wait_for_ready=True)
        names.error = None
        assert waiting.result() == b"y"


def test_look_ups_are_at_most_one_a_second_while_connections_fail(peers, eventually, monkeypatch):
    monkeypatch.setattr(resolving, "_LEAST_BETWEEN_S", 3600)
    names = Names(peers[0].address)
    options = ChannelOptions(resolving=Resolving(3600, names), backoff_s=(0.01, 0.01))
    with Channel("name.test:1", options) as channel:
        asked(channel)
        peers[0].close()
        attempts = []

        def fails():
            with pytest.raises(CallFailed):
                channel.unary_unary("/test/Echo")(b"", timeout=PATIENCE_S)
            attempts.append(1)
            return len(attempts) > 10

        eventually(fails, "many attempts have failed")
    assert names.count == 1


def test_a_connection_that_ends_has_its_name_looked_up(peers, eventually):
    first, second, _ = peers
    names = Names(first.address)
    never = ChannelOptions(resolving=Resolving(3600, names))
    with Channel("name.test:1", never) as channel:
        asked(channel)
        names.addresses = [second.address]
        first.close()
        eventually(lambda: names.count > 1, "it was looked up again")
        waits = channel.unary_unary("/test/Echo").future(
            b"x", timeout=PATIENCE_S, wait_for_ready=True
        )
        assert waits.result() == b"x"


def test_round_robin_asks_all_in_turn_whatever_they_have_to_do(peers, eventually):
    addresses = [peer.address for peer in peers]
    with Channel(addresses, ChannelOptions(balance="round_robin")) as channel:
        eventually(lambda: asked(channel) == set(addresses), "all are connected")
        held = channel.unary_unary("/test/Wait").future(b"", timeout=PATIENCE_S)
        for _ in range(4):
            assert asked(channel, len(addresses)) == set(addresses)
        assert not held.done()


def test_least_requests_avoids_the_server_that_is_busy(peers, eventually):
    addresses = [peer.address for peer in peers]
    with Channel(addresses, ChannelOptions(balance="least_requests")) as channel:
        eventually(lambda: asked(channel) == set(addresses), "all are connected")
        held = channel.unary_unary("/test/Wait").future(b"", timeout=PATIENCE_S)
        busy = held._stream.connection.target
        assert asked(channel) == set(addresses) - {busy}
