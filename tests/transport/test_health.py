"""A channel that watches health sends calls to servers that serve, and to no others."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from conftest import wait_until
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from transport_services import PATIENCE_S, Peer

from transport.calling.channel import Channel, ChannelOptions
from transport.calling.client_call import CallFailed
from transport.calling.dialing import State
from transport.calling.failures import NotConnected, NotServing
from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.server import Server
from transport.workers import Workers

WATCHING = ChannelOptions(watch_health=True)
Status = health_pb2.HealthCheckResponse


class Named(grpc.GenericRpcHandler):
    """Answers every call with the server's name."""

    def __init__(self, name):
        self._name = name

    def service(self, details):
        if details.method != "/test/Name":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._name)


class Healthy:
    """A server with a health service, of grpcio or of this transport."""

    def __init__(self, kind, name):
        self.health = health.HealthServicer()
        self.say(Status.SERVING)
        if kind == "grpcio":
            server = grpc.server(ThreadPoolExecutor(16))
            health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
            server.add_generic_rpc_handlers((Named(name),))
            self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            self.close = lambda: server.stop(None).wait()
            return
        handlers = {
            name: grpc.unary_stream_rpc_method_handler(
                self.health.Watch,
                health_pb2.HealthCheckRequest.FromString,
                Status.SerializeToString,
            )
            for name in ("Watch",)
        }
        generic = grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers)
        workers = Workers(16, 100, "test")
        own = Server(["127.0.0.1:0"], GrpcHandlers((generic, Named(name)), workers))
        self.address = own.addresses[0]
        self.close = own.stop

    def say(self, status):
        self.health.set("", status)


@pytest.fixture(params=["grpcio", "own"])
def servers(request):
    started = [Healthy(request.param, name) for name in (b"first", b"second")]
    yield started
    for server in started:
        server.close()


def test_calls_go_where_a_server_says_that_it_serves(servers):
    first, second = servers
    with Channel([first.address, second.address], WATCHING) as channel:
        name = channel.unary_unary("/test/Name")

        def asked():
            return {bytes(name(b"", timeout=PATIENCE_S)) for _ in range(4)}

        wait_until(lambda: asked() == {b"first", b"second"}, "both are asked")
        first.say(Status.NOT_SERVING)
        wait_until(lambda: asked() == {b"second"}, "the second alone is asked")
        second.say(Status.NOT_SERVING)

        def failure():
            try:
                name(b"", timeout=PATIENCE_S)
            except CallFailed as error:
                return error
            return None

        error = wait_until(failure, "nobody is left")
        assert error.code().name == "UNAVAILABLE"
        assert isinstance(error.status, NotConnected)
        assert [type(each.cause) for each in error.status.failures] == [NotServing, NotServing]
        assert f"{first.address} reports that it is not serving" in error.details()
        waiting = name.future(b"", timeout=PATIENCE_S, wait_for_ready=True)
        first.say(Status.SERVING)
        assert waiting.result() == b"first"


@pytest.mark.parametrize("kind", ["grpcio", "own"])
def test_a_server_without_a_health_service_counts_as_healthy(kind):
    peers = [Peer(kind), Peer(kind)]
    with Channel([peer.address for peer in peers], WATCHING) as channel:
        for _ in range(4):
            assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
    for peer in peers:
        peer.close()


def test_a_connection_of_several_that_was_lost_is_made_again():
    peers = [Peer("own"), Peer("own")]
    addresses = [peer.address for peer in peers]
    with Channel(addresses, WATCHING) as channel:
        echo = channel.unary_unary("/test/Echo")
        wait_until(
            lambda: (
                echo(b"x", timeout=PATIENCE_S)
                and all(each.connection for each in channel._servers.subchannels)
            ),
            "both are connected",
        )
        peers[0].close()
        wait_until(lambda: channel._servers.subchannels[0].connection is None, "one is lost")
        peers[0] = Peer("own", addresses[0])
        wait_until(lambda: channel._servers.subchannels[0].connection, "it is back without a call")
    for peer in peers:
        peer.close()


def test_the_first_call_after_a_pause_does_not_fail_for_what_was_true_before():
    gone = Peer("own")
    address = gone.address
    gone.close()
    with Channel(address) as channel:
        echo = channel.unary_unary("/test/Echo")
        with pytest.raises(CallFailed, match="failed to connect"):
            echo(b"x", timeout=PATIENCE_S)
        peer = Peer("own", address)
        (subchannel,) = channel._servers.subchannels
        wait_until(lambda: subchannel.state is State.IDLE, "the back-off is over")
        assert echo(b"x", timeout=PATIENCE_S) == b"x"
        peer.close()
