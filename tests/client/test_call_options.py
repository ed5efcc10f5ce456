"""What holds for one call: time limit, retries, hedging and metadata, of both clients."""

import asyncio
import time
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import GROUP_ROWS
from event_loop import PATIENCE_S
from recording_proxy import recording_proxy

from client import (
    AsyncClient,
    Client,
    Credentials,
    DeadlineExceeded,
    RetryPolicy,
    Unavailable,
    UsageError,
)
from client.errors import RequestFailed
from examples.refusing_proxy import refusing_proxy
from model.export import export
from model.weights import from_seed

FEATURES = 2**18  # rows of a MiB
X = np.zeros((2, FEATURES), np.float32)
MANY = np.zeros((20, FEATURES), np.float32)
NEVER = RetryPolicy(attempts=1)
# All of these would take minutes.
SLOW_RETRY = RetryPolicy(attempts=50, initial_backoff_s=10, max_backoff_s=10)
# Far below what waiting would take, far above what a busy machine adds.
SOON_S = 30
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(2, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def servers(launch_for_module, models):
    return [launch_for_module(models, "--group-rows", GROUP_ROWS) for _ in range(2)]


@pytest.fixture(scope="module")
def address(servers):
    return servers[0].address


@pytest.fixture
def proxy(address):
    with recording_proxy(address) as proxy:
        yield proxy


class _Blocking:
    """A blocking client."""

    def __init__(self, *arguments, **named):
        self._client = Client(*arguments, **named)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def __call__(self, method, *arguments, **named):
        """Call a method; the answers of a stream as a list."""
        found = getattr(self._client, method)(*arguments, **named)
        return list(found) if method.startswith("stream") else found


class _Asyncio:
    """The asyncio client, each call of which is awaited."""

    def __init__(self, *arguments, **named):
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **named)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.close())
        self._runner.close()

    def __call__(self, method, *arguments, **named):
        async def call():
            found = getattr(self._client, method)(*arguments, **named)
            if method.startswith("stream"):
                return [answer async for answer in found]
            return await found

        return self._runner.run(call())


@pytest.fixture(params=[_Blocking, _Asyncio], ids=["blocking", "asyncio"])
def kind(request):
    return request.param


CALLS = [
    ("predict", (X,), ["ModelMetadata", "ModelConfig", "ModelInfer"]),
    ("predict", (MANY,), ["ModelMetadata", "ModelConfig", "ModelStreamInfer"]),
    ("predict_outputs", (X, ["scores"]), ["ModelMetadata", "ModelConfig", "ModelInfer"]),
    ("predict_in_one_request", (X,), ["ModelMetadata", "ModelConfig", "ModelInfer"]),
    ("stream", ([X],), ["ModelMetadata", "ModelConfig", "ModelStreamInfer"]),
    ("stream_answers", ([X],), ["ModelMetadata", "ModelConfig", "ModelStreamInfer"]),
    ("infer", ({"x": X},), ["ModelMetadata", "ModelConfig", "ModelInfer"]),
    ("infer_tensors", ([],), ["ModelInfer"]),
    ("fits_one_message", (1,), ["ModelConfig", "ModelMetadata"]),
    ("default_output", (), ["ModelMetadata"]),
    ("input", (), ["ModelMetadata", "ModelConfig"]),
    ("metadata", (), ["ModelMetadata"]),
    ("config", (), ["ModelConfig"]),
    ("told", ("labels",), ["ModelConfig"]),
    ("statistics", (), ["ModelStatistics"]),
    ("live", (), ["ServerLive"]),
    ("server_ready", (), ["ServerReady"]),
    ("ready", (), ["ModelReady"]),
    ("server_metadata", (), ["ServerMetadata"]),
    ("check_reachable", (), ["ServerLive"]),
]


def test_metadata_go_with_every_call_of_a_method(kind, address):
    given = [("tenant", "a b"), ("tenant", "c"), ("key-bin", b"\0\xff")]
    for method, arguments, rpcs in CALLS:
        # Each with nothing read before.
        with recording_proxy(address) as proxy, kind(proxy.address) as call:
            # Of no inputs: only the server knows that one is missing.
            wrong = pytest.raises(RequestFailed) if method == "infer_tensors" else nullcontext()
            with wrong:
                call(method, *arguments, metadata=given)
            expected = [(rpc, ["a b", "c"], [b"\0\xff"]) for rpc in rpcs]
            assert proxy.sent("tenant", "key-bin") == expected, method


def test_metadata_hold_for_their_call_alone(kind, proxy):
    with kind(proxy.address) as call:
        call("live", metadata=[("tenant", "a")])
        call("live")
    assert proxy.sent("tenant") == [("ServerLive", ["a"]), ("ServerLive", [])]


def test_metadata_of_the_caller_replace_those_of_the_client(kind, proxy):
    with kind(proxy.address, credentials=Credentials(token="client's")) as call:
        call("live")
        call("live", metadata=[("authorization", "Bearer caller's")])
    assert [values for _, values in proxy.sent("authorization")] == [
        ["Bearer client's"],
        ["Bearer caller's"],
    ]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"name": "value"}, "got dict, expected a sequence of pairs"),
        ("name", "got str, expected a sequence of pairs"),
        ([("name",)], "got ('name',), expected a pair"),
        (["ab"], "got 'ab', expected a pair"),
        ([("Name", "v")], "got the name 'Name', expected lower-case letters"),
        ([("", "v")], "got the name ''"),
        ([(":path", "v")], "got the name ':path'"),
        ([("na me", "v")], "got the name 'na me'"),
        ([("näme", "v")], "got the name 'näme'"),
        ([(b"name", "v")], "got the name b'name'"),
        ([("grpc-timeout", "1S")], "the name 'grpc-timeout' is set by the client"),
        ([("grpc-trace-bin", b"1")], "the name 'grpc-trace-bin' is set by the client"),
        ([("te", "v")], "the name 'te' is set by the client"),
        ([("triton_grpc_error", "false")], "'triton_grpc_error' is set by the client"),
        ([("name-bin", "v")], "'name-bin' has a str, expected bytes"),
        ([("name", b"v")], "'name' has a bytes, expected str"),
        ([("name", 1)], "'name' has a int, expected str"),
        ([("name", "a\nb")], "'name' has the value 'a\\nb', expected printable ASCII"),
        ([("name", "é")], "'name' has the value 'é'"),
        ([("name", " v")], "without spaces at its ends"),
        ([("name", "v" * 2**14)], "bytes, expected at most 15360"),
        ([("name-bin", b"v" * 12_000)], "bytes, expected at most 15360"),
    ],
)
def test_metadata_that_cannot_be_sent_are_a_usage_error(kind, proxy, metadata, said):
    with kind(proxy.address) as call:
        for method, arguments in (("live", ()), ("predict", (X,)), ("stream", ([X],))):
            with pytest.raises(UsageError) as caught:
                call(method, *arguments, metadata=metadata)
            assert str(caught.value).startswith("metadata: ")
            assert said in str(caught.value)
    assert proxy.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"timeout_s": "1"},
        {"retry": 3},
        {"hedge_after_s": 0.1},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_a_usage_error(kind, proxy, options):
    with kind(proxy.address) as call, pytest.raises(UsageError):
        call("live", **options)
    assert proxy.calls == []


def test_an_unknown_option_is_a_type_error(kind, proxy):
    with kind(proxy.address) as call:
        for method, arguments in (("live", ()), ("predict", (X,))):
            with pytest.raises(TypeError, match="unexpected keyword argument 'deadline_s'"):
                call(method, *arguments, deadline_s=1)
    assert proxy.calls == []


def test_a_time_limit_holds_in_place_of_the_clients(kind, address):
    steps = np.full((100, 1), 3 * 10**5)
    with kind(address, "steps", output="done", deadline_s=1000) as call:
        for method, x in (("predict", steps), ("stream", [steps])):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                call(method, x, timeout_s=0.2)
            assert time.monotonic() - started < SOON_S
    with kind(address, "steps", output="done", deadline_s=0.001) as call:
        assert call("predict", np.array([[3]]), timeout_s=PATIENCE_S) == [[3]]
        assert call("predict", np.array([[3]]), timeout_s=None) == [[3]]


def test_a_time_limit_of_years_is_one(kind, address):
    with kind(address) as call:
        assert call("live", timeout_s=1e9)
        assert call("live")


def test_a_time_limit_bounds_all_calls_and_retries_of_a_method_together(kind, launch, models):
    process = launch(models)
    with kind(process.address, retry=SLOW_RETRY) as call:
        process.freeze()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            call("predict", X, timeout_s=0.5)
        process.popen.kill()
        process.wait()
        with pytest.raises(Unavailable):
            call("predict", X, timeout_s=0.5)
        assert time.monotonic() - started < SOON_S


def test_retries_are_chosen_for_a_call(kind, address):
    with refusing_proxy(address) as refusing:
        with kind(refusing, retry=NEVER) as call:
            assert call("live", retry=RetryPolicy(attempts=2, initial_backoff_s=0.01))
            with pytest.raises(Unavailable):
                call("live")
        # The second of its calls is forwarded.
        with kind(refusing) as call:
            assert call("live", retry=NEVER)
            with pytest.raises(Unavailable):
                call("live", retry=NEVER)


def test_hedging_is_chosen_for_a_call(kind, launch, models, call, eventually):
    servers = [launch(models) for _ in range(2)]
    addresses = [server.address for server in servers]
    callers = [call(address) for address in addresses]
    with kind(addresses, hedge_after_s=0.02) as hedged, kind(addresses) as alone:

        def both_answered():
            hedged("predict", X, hedge_after_s=None)
            return all(each.statistics("linear_argmax").execution_count for each in callers)

        eventually(both_answered, "it is connected to both")
        servers[0].freeze()
        for _ in range(4):
            assert hedged("live", timeout_s=PATIENCE_S)
            assert alone("live", hedge_after_s=0.02, timeout_s=PATIENCE_S)

        def waits():
            try:
                hedged("live", hedge_after_s=None, timeout_s=0.3)
            except DeadlineExceeded:
                return True
            return False

        # In turn, one of two calls goes to the first server.
        assert waits() or waits()
