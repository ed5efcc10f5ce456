"""What the project's own transport does in its own way: tokens, TLS, drain, cancelled calls."""

import threading

import grpc
import numpy as np
import pytest
from certificates import Authority

from model.export import export
from model.weights import from_seed

TOKEN = "a-token-that-may-infer"
CODE = grpc.StatusCode
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture
def native(serve, models):
    return lambda **options: serve(models, transport="native", **options)


def outcome(channel, data, token=None):
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    try:
        channel.unary_unary(INFER)(data, metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


def request(caller):
    return caller.message("linear", x=np.ones((1, 8), np.float32))


def test_calls_need_a_token_that_permits_them(native, call, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\ntoken-for-control-only control\n")
    caller = call(native(token_file=file).address)
    data = request(caller)
    assert outcome(caller.channel, data) is CODE.UNAUTHENTICATED
    assert outcome(caller.channel, data, "token-for-control-only") is CODE.PERMISSION_DENIED
    assert outcome(caller.channel, data, TOKEN) is CODE.OK


def test_no_log_line_holds_a_token(models, launch, call, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n")
    options = ("--transport", "native", "--log-level", "debug", "--token-file", file)
    server = launch(models, *options)
    caller = call(server.address)
    assert outcome(caller.channel, request(caller), TOKEN) is CODE.OK
    assert server.stop() == 0
    assert not [line for line in server.said() if TOKEN in line]


def test_tls_with_certificates_of_clients(native, call, tmp_path):
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = authority.sign("server")
    ca = authority.certificate
    address = native(tls_cert=certificate, tls_key=key, tls_client_ca=ca).address
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


def test_calls_under_way_are_answered_while_the_server_drains(serve, models, call, eventually):
    server = serve(models, transport="native", group_rows=2)
    caller = call(server.address)
    with caller.busy_worker(executions=3):
        waiting = caller.infer_later(request(caller))
        eventually(lambda: caller.statistics("linear") is not None, "the call is there")
        drained = threading.Thread(target=server.drain)
        drained.start()
    waiting.result(20)
    drained.join(20)
    assert not drained.is_alive()


def test_a_cancelled_call_counts_as_failed_and_gives_its_bytes_back(native, call, eventually):
    server = native(group_rows=2)
    caller = call(server.address)
    with caller.busy_worker():
        later = caller.infer_later(caller.message("steps", steps=np.ones((4, 1), np.int64)))
        before = caller.statistics("steps").inference_stats.fail.count
        later.cancel()
        eventually(
            lambda: caller.statistics("steps").inference_stats.fail.count > before,
            "the call is given up",
        )
    budget = server._servicer._inference.budget
    eventually(lambda: budget.used_bytes == 0, "its bytes are back")
