"""The road through grpcio, `--transport grpcio`: all that is different there, in short.

What a client sees is the same on both transports, and `test_serving.py` runs on both. Everything
else runs on the default transport; ARGMAX_SERVER_TRANSPORT=grpcio runs it on grpcio.
"""

import contextlib
import itertools
import threading

import grpc
import numpy as np
import pytest
from certificates import Authority

from measure.overload.http2_peer import Http2Peer, framed
from model.export import export
from model.weights import from_seed

TOKEN = "a-token-that-may-infer"
CODE = grpc.StatusCode
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def grpcio(serve, models):
    return lambda **options: serve(models, transport="grpcio", **options)


def outcome(channel, data, token=None):
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    try:
        channel.unary_unary(INFER)(data, metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


def request(caller):
    return caller.message("linear", x=np.ones((1, 8), np.float32))


def test_calls_need_a_token_that_permits_them(grpcio, call, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\ntoken-for-control-only control\n")
    caller = call(grpcio(token_file=file).address)
    data = request(caller)
    assert outcome(caller.channel, data) is CODE.UNAUTHENTICATED
    assert outcome(caller.channel, data, "token-for-control-only") is CODE.PERMISSION_DENIED
    assert outcome(caller.channel, data, TOKEN) is CODE.OK


def test_no_log_line_holds_a_token(models, launch, call, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n")
    options = ("--transport", "grpcio", "--log-level", "debug", "--token-file", file)
    server = launch(models, *options)
    caller = call(server.address)
    assert outcome(caller.channel, request(caller), TOKEN) is CODE.OK
    assert server.stop() == 0
    assert not [line for line in server.said() if TOKEN in line]


def test_tls_with_certificates_of_clients(grpcio, call, tmp_path):
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = authority.sign("server")
    ca = authority.certificate
    address = grpcio(tls_cert=certificate, tls_key=key, tls_client_ca=ca).address
    data = request(call(address))
    reached = {}
    for name, signer in (("ours", authority), ("theirs", other)):
        own, own_key = signer.sign(f"client-{name}")
        credentials = grpc.ssl_channel_credentials(
            ca.read_bytes(), own_key.read_bytes(), own.read_bytes()
        )
        with grpc.secure_channel(address, credentials) as channel:
            reached[name] = outcome(channel, data)
    assert reached == {"ours": CODE.OK, "theirs": CODE.UNAVAILABLE}


def test_calls_under_way_are_answered_while_the_server_drains(serve, models, call):
    server = serve(models, transport="grpcio", group_rows=2)
    caller = call(server.address)
    with caller.busy_worker(executions=3) as under_way:
        drained = threading.Thread(target=server.drain)
        drained.start()
        under_way.result(20)
    drained.join(20)
    assert not drained.is_alive()


def test_messages_that_do_not_come_are_not_waited_for(grpcio):
    address = grpcio(receive_s=1).address
    with contextlib.ExitStack() as stack:
        peers = []
        for path, sent in itertools.product((INFER, LIVE, CHECK), (b"", framed(bytes(1000))[:9])):
            peer = stack.enter_context(Http2Peer(address))
            peer.hello()
            peer.h2.send_data(peer.call(path), sent)
            peer.flush()
            peers.append(peer)
        for peer in peers:
            peer.read_bytes_up_to(b"grpc-status\x011")


def test_calls_over_the_limit_are_refused_unread(grpcio, call):
    caller = call(grpcio(workers=1, max_waiting=0, group_rows=2).address)
    with caller.busy_worker():
        assert outcome(caller.channel, request(caller)) is CODE.RESOURCE_EXHAUSTED
        assert caller.health() == "SERVING"
        assert caller.control("ServerLive").live


def test_a_request_over_the_whole_byte_budget_leaves_its_stream_open(grpcio, call):
    caller = call(grpcio(max_inflight_bytes=1024).address)
    large = caller.message("linear", id="large", x=np.ones((100, 8), np.float32))
    (text, refused), (fine, answer) = caller.stream([large, request(caller)])
    assert "1024" in text
    assert (refused.id, fine) == ("large", "")
    assert answer.outputs
