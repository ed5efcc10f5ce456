import itertools
import threading

import grpc
import numpy as np
import pytest
from certificates import Authority
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from onnx import helper

from client import Client, Credentials, RequestFailed, UsageError
from measure.__main__ import main
from protos import inference_pb2 as pb
from server.errors import StartError
from server.rpc.rpcs import SERVICE
from server.rpc.security.authorization import PERMISSION_OF
from server.rpc.security.tokens import Permission

TOKENS = {
    Permission.INFER: "token-that-may-infer",
    Permission.CONTROL: "token-that-may-control",
    Permission.SHARED_MEMORY: "token-that-may-share",
}
ALL = "token-that-may-do-everything"
WRONG = "token-that-nobody-has"
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
X = np.array([[1, 2]], np.float32)


def rpcs():
    """Every RPC that the server answers: its full name, and whether messages come as a stream."""
    files = (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    return {
        f"/{service.full_name}/{method.name}": method.client_streaming
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


RPCS = rpcs()


@pytest.fixture(scope="module")
def models(graphs):
    graphs.add(
        "linear_argmax",
        [helper.make_node("Neg", ["x"], ["label"])],
        {"x": ("float32", ["batch", 2])},
        {"label": ("float32", ["batch", 2])},
    )
    return graphs.folder


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    lines = [f"{token} {permission}" for permission, token in TOKENS.items()]
    path.write_text("\n".join([*lines, f"{ALL} {','.join(Permission)}\n"]))
    return path


@pytest.fixture(scope="module")
def server(serve, models, token_file):
    return serve(models, token_file=token_file, model_control="explicit", load_model=("*",))


@pytest.fixture(scope="module")
def channel(call, server):
    return call(server.address).channel


def outcome(channel, method, *metadata, data=b""):
    """Status code of the first answer, or of the end where there is none."""
    if RPCS.get(method) or method.endswith("/Watch"):
        stream = channel.stream_stream(method)(iter([data]), timeout=20, metadata=metadata)
        try:
            next(stream, None)
        except grpc.RpcError as error:
            return error.code()
        stream.cancel()
        return grpc.StatusCode.OK
    try:
        channel.unary_unary(method)(data, timeout=20, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def bearer(token):
    return ("authorization", f"Bearer {token}")


# Every RPC.


def test_every_rpc_has_its_permission_and_nothing_else_has():
    assert set(PERMISSION_OF) == set(RPCS)


def test_only_health_is_open():
    assert {
        method.rpartition("/")[2] for method, needed in PERMISSION_OF.items() if not needed
    } == {
        *("Check", "Watch"),
        *("ServerLive", "ServerReady"),
    }


@pytest.mark.parametrize("method", RPCS)
def test_without_a_token_all_but_health_is_unauthenticated(channel, method):
    expected = {grpc.StatusCode.UNAUTHENTICATED} if PERMISSION_OF[method] else {grpc.StatusCode.OK}
    for metadata in ((), (bearer(WRONG),)):
        assert outcome(channel, method, *metadata) in expected


@pytest.mark.parametrize(("method", "held"), list(itertools.product(RPCS, Permission)))
def test_a_token_opens_the_rpcs_of_its_permission_alone(channel, method, held):
    code = outcome(channel, method, bearer(TOKENS[held]))
    if PERMISSION_OF[method] in (None, held):
        assert code not in REFUSED
    else:
        assert code == grpc.StatusCode.PERMISSION_DENIED


def test_an_rpc_that_is_not_served_is_unimplemented(channel):
    assert outcome(channel, f"/{SERVICE}/Nothing") == grpc.StatusCode.UNIMPLEMENTED


# How tokens come.


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", ALL)],
        [("authorization", f"Basic {ALL}")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("token", ALL)],
        [bearer(ALL), bearer(ALL)],
        [bearer(WRONG), bearer(ALL)],
        [bearer(f"{ALL} {ALL}")],
    ],
)
def test_a_token_that_comes_otherwise_is_unauthenticated(channel, metadata):
    method = f"/{SERVICE}/ServerMetadata"
    assert outcome(channel, method, *metadata) == grpc.StatusCode.UNAUTHENTICATED


def test_the_scheme_is_taken_in_any_case(channel):
    method = f"/{SERVICE}/ServerMetadata"
    assert outcome(channel, method, ("authorization", f"bEARER {ALL}")) == grpc.StatusCode.OK


def test_refusals_tell_what_was_wanted_and_no_token(channel):
    call = channel.unary_unary(f"/{SERVICE}/RepositoryIndex")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", metadata=(bearer(TOKENS[Permission.INFER]),))
    assert caught.value.details() == "RepositoryIndex requires a token with the permission control"
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", metadata=(bearer(WRONG),))
    assert caught.value.details() == "invalid bearer token"


def test_messages_of_a_refused_call_are_not_read(serve, models, token_file, call):
    small = serve(models, token_file=token_file, max_message_bytes=1024)
    method, large = f"/{SERVICE}/ModelInfer", bytes(2048)
    channel = call(small.address).channel
    ok = outcome(channel, method, bearer(ALL), data=large)
    assert ok == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome(channel, method, data=large) == grpc.StatusCode.UNAUTHENTICATED


# What callers do with them.


def test_our_client_predicts_with_a_token(server):
    for_inference = Credentials(token=TOKENS[Permission.INFER])
    with Client(server.address, credentials=for_inference, output="label") as client:
        assert client.predict(X).tolist() == (-X).tolist()
        assert [part.tolist() for part in client.stream([X])] == [(-X).tolist()]


def test_our_client_is_told_when_it_has_none(server):
    with Client(server.address) as client, pytest.raises(RequestFailed) as caught:
        client.predict(X)
    assert caught.value.code == "UNAUTHENTICATED"


def test_the_command_line_takes_a_token_from_a_file(server, tmp_path, capsys):
    rows, token = tmp_path / "x.npy", tmp_path / "token"
    np.save(rows, X)
    command = ["predict", "--address", server.address, "--input", str(rows)]
    assert main(command) == 1
    assert "UNAUTHENTICATED" in capsys.readouterr().err
    token.write_text(f"{ALL}\n")
    assert main([*command, "--token-file", str(token)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "-1.0 -2.0"


@pytest.mark.parametrize("flag", ["--tls-ca", "--token-file"])
def test_a_sweep_of_its_own_server_takes_no_credentials(tmp_path, capsys, authority, flag):
    path = authority.certificate
    if flag == "--token-file":
        path = tmp_path / "token"
        path.write_text(ALL)
    assert main(["sweep", flag, str(path), "--out", str(tmp_path / "out")]) == 2
    assert "without --address" in capsys.readouterr().err


# Rotation.


def test_tokens_change_while_the_server_runs(launch, models, tmp_path, call):
    path = tmp_path / "tokens"
    path.write_text(f"{TOKENS[Permission.INFER]}\n")
    process = launch(models, "--token-file", path, "--log-level", "debug")
    channel = call(process.address).channel
    method = f"/{SERVICE}/ServerMetadata"

    def answer(token):
        return outcome(channel, method, bearer(token))

    old, new = TOKENS[Permission.INFER], ALL
    assert answer(old) == grpc.StatusCode.OK
    assert answer(new) == grpc.StatusCode.UNAUTHENTICATED
    path.write_text(f"{old}\n{new}\n")
    assert answer(old) == answer(new) == grpc.StatusCode.OK
    path.write_text(f"{new}\nshort\n")
    assert answer(old) == answer(new) == grpc.StatusCode.OK
    path.write_text(f"{new}\n{TOKENS[Permission.CONTROL][:-1]}")
    assert answer(TOKENS[Permission.CONTROL][:-1]) == grpc.StatusCode.UNAUTHENTICATED
    path.write_text("")
    assert answer(old) == answer(new) == grpc.StatusCode.OK
    path.write_text(f"{new}\n")
    assert answer(old) == grpc.StatusCode.UNAUTHENTICATED
    assert answer(new) == grpc.StatusCode.OK
    path.unlink()
    assert answer(new) == grpc.StatusCode.OK
    refused = [line for line in process.said() if "keeping the old content" in line]
    assert len(refused) == 3
    assert "line 2 does not start with a token" in refused[0]
    assert "empty or truncated" in refused[1]
    secrets = (old, new, "short", TOKENS[Permission.CONTROL][:-1])
    assert not [line for line in process.said() for secret in secrets if secret in line]


def test_a_stream_that_is_open_goes_on_when_its_token_is_gone(serve, models, tmp_path, call):
    path = tmp_path / "tokens"
    path.write_text(f"{ALL}\n")
    caller = call(serve(models, token_file=path).address)
    message = caller.message("linear_argmax", x=X)
    open_stream = caller.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    gone = threading.Event()

    def sent():
        yield message
        gone.wait(20)
        yield message

    stream = open_stream(sent(), timeout=20, metadata=(bearer(ALL),))
    next(stream)
    path.write_text(f"{WRONG}-but-new\n")
    assert outcome(caller.channel, f"/{SERVICE}/ServerMetadata", bearer(ALL)) in REFUSED
    gone.set()
    assert len(list(stream)) == 1


# What keeps the server from starting.


def test_tokens_are_not_taken_from_other_machines_in_plain_text(serve, models, token_file):
    with pytest.raises(StartError, match="without TLS: tokens could be read on the network"):
        serve(models, address="0.0.0.0:0", token_file=token_file)


def test_unless_something_else_encrypts(serve, models, token_file, call, caplog):
    open_to_all = serve(
        models, address="0.0.0.0:0", token_file=token_file, plaintext_tokens=True
    ).address
    channel = call(open_to_all.replace("0.0.0.0", "127.0.0.1")).channel
    method = f"/{SERVICE}/ServerMetadata"
    assert outcome(channel, method, bearer(ALL)) == grpc.StatusCode.OK
    assert outcome(channel, method) == grpc.StatusCode.UNAUTHENTICATED
    assert "tokens are sent in plain text" in caplog.text


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


def test_they_are_taken_with_tls(serve, models, token_file, authority):
    certificate, key = authority.sign("server")
    address = serve(
        models, address="0.0.0.0:0", token_file=token_file, tls_cert=certificate, tls_key=key
    ).address
    ca = authority.certificate.read_bytes()
    reachable = address.replace("0.0.0.0", "127.0.0.1")
    with Client(reachable, credentials=Credentials(ca=ca, token=ALL)) as client:
        assert client.predict(X).tolist() == (-X).tolist()
    with (
        Client(reachable, credentials=Credentials(ca=ca)) as client,
        pytest.raises(RequestFailed) as caught,
    ):
        client.predict(X)
    assert caught.value.code == "UNAUTHENTICATED"


def test_our_client_sends_no_token_to_other_machines_in_plain_text():
    with pytest.raises(UsageError, match=r"would go to models\.test:8001 without TLS"):
        Client("models.test:8001", credentials=Credentials(token=ALL))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"short\n", "line 1 does not start with a token"),
        (b"\xff\n", "byte 0 is 0xff; expected UTF-8"),
        (ALL.encode(), "the last line has no newline"),
        (b"", "the last line has no newline"),
    ],
)
def test_a_token_file_that_is_none_is_named(serve, models, tmp_path, content, reason):
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(StartError, match=f"--token-file {path}.*{reason}"):
        serve(models, token_file=path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_token_file_may_be_saved_by_any_editor(serve, models, tmp_path, encoding):
    path = tmp_path / "tokens"
    path.write_bytes(f"# who may call\r\n{ALL} infer\r\n".encode(encoding))
    server = serve(models, token_file=path)
    mine = tmp_path / "mine"
    mine.write_bytes(f"{ALL}\r\n".encode(encoding))
    known = Credentials.of_files(token=mine)
    with Client(server.address, credentials=known, output="label") as client:
        assert client.predict(X).tolist() == (-X).tolist()


def test_a_token_file_that_is_missing_is_named(serve, models, tmp_path):
    with pytest.raises(StartError, match=r"--token-file .*absent: No such file"):
        serve(models, token_file=tmp_path / "absent")


# What is on where.


def services(channel):
    """Whether reflection and shared memory answer."""
    reflection = f"/{reflection_pb2.DESCRIPTOR.services_by_name['ServerReflection'].full_name}"
    request = pb.SystemSharedMemoryRegisterRequest(name="a", key="b", byte_size=1)
    memory = outcome(
        channel, f"/{SERVICE}/SystemSharedMemoryRegister", data=request.SerializeToString()
    )
    reflected = outcome(channel, f"{reflection}/ServerReflectionInfo")
    return [code != grpc.StatusCode.UNIMPLEMENTED for code in (reflected, memory)]


@pytest.mark.parametrize(
    ("address", "on"),
    [
        ("127.0.0.1:0", True),
        ("localhost:0", True),
        ("unix:{folder}/socket", True),
        ("0.0.0.0:0", False),
    ],
)
def test_reflection_and_shared_memory_are_off_beyond_this_machine(
    serve, models, call, tmp_path, address, on
):
    address = address.format(folder=tmp_path)
    bound = serve(models, address=address).address.replace("0.0.0.0", "127.0.0.1")
    assert services(call(bound).channel) == [on, on]
