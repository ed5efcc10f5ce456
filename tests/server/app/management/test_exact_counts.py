"""Ten thousand requests of every outcome, and reloads: the counters are what was sent."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from conftest import GROUP_ROWS, PATIENCE_S, ROWS_MAY_MIX, SLOW_STEPS, STEPS_CONFIG
from http_pages import scrape
from onnx import helper
from transport_raw import Raw

CLIENTS = 4
WINDOW = 8
WORKERS, WAITING = 64, 64
# Of each client.
OK, WRONG, MALFORMED, UNKNOWN, NO_METHOD = 400, 100, 50, 50, 25
STREAMS, STREAM_OK, STREAM_WRONG, STREAM_UNKNOWN = 4, 350, 50, 30
# Of one model that is busy.
OVER_THE_LIMIT, QUEUE_FULL, LATE, IMPATIENT = 500, 100, 20, 5
MOST_QUEUED = 3
# For half a minute, until it is cancelled.
BUSY = {"executions": 120, "slow_steps": 2 * SLOW_STEPS}
POLICY = f"max_queue_size: {MOST_QUEUED} allow_timeout_override: true"
QUEUE = f"dynamic_batching {{ default_queue_policy {{ {POLICY} }} }}"
ROWS = 2
PAUSE_S = 0.2
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def server(serve, graphs):
    graphs.add_steps()
    graphs.add_steps("short")
    (graphs.folder / "short" / "config.pbtxt").write_text(f"{STEPS_CONFIG} {ROWS_MAY_MIX} {QUEUE}")
    graphs.add(
        "linear",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["batch", 2])},
    )
    return serve(
        graphs.folder,
        metrics_address="127.0.0.1:0",
        group_rows=GROUP_ROWS,
        model_control="explicit",
        load_model=("*",),
        workers=WORKERS,
        max_waiting=WAITING,
    )


class Sent:
    """What clients have sent, by the status code that they got."""

    def __init__(self):
        self.codes = Counter()
        self._lock = threading.Lock()

    def send(self, caller, requests, window=WINDOW):
        """Send unary requests, so many at a time; each is a method and a message."""
        room = threading.Semaphore(window)

        def ended(call):
            with self._lock:
                self.codes[call.code().name] += 1
            room.release()

        for method, message in requests:
            assert room.acquire(timeout=PATIENCE_S)
            call = caller.channel.unary_unary(SERVICE + method).future(message, timeout=PATIENCE_S)
            call.add_done_callback(ended)
        for _ in range(window):
            assert room.acquire(timeout=PATIENCE_S)


def linear(caller, rows=ROWS, width=2, **more):
    model = more.pop("model", "linear")
    return caller.message(model, x=np.ones((rows, width), np.float32), **more)


def mixed(caller, seed):
    """Requests of one client that need no busy model, in any order."""
    unknown = (linear(caller, model="none"), linear(caller, version="9"))
    requests = [
        *[("ModelInfer", linear(caller))] * OK,
        *[("ModelInfer", linear(caller, width=3))] * WRONG,
        *[("ModelInfer", b"\xff")] * MALFORMED,
        *[("ModelInfer", unknown[number % 2]) for number in range(UNKNOWN)],
        *[("ModelDance", b"")] * NO_METHOD,
    ]
    random.Random(seed).shuffle(requests)
    return requests


def streamed(caller, seed):
    """Messages of one stream."""
    messages = [
        *[linear(caller)] * STREAM_OK,
        *[linear(caller, width=3)] * STREAM_WRONG,
        *[linear(caller, model="none")] * STREAM_UNKNOWN,
    ]
    random.Random(seed).shuffle(messages)
    return messages


def test_the_counters_are_what_was_sent(server, call, eventually):
    address = server._management.address
    callers = [call(server.address) for _ in range(CLIENTS)]
    before = scrape(address)
    sent = Sent()
    reloads = reload_while(callers[0], lambda: mixed_traffic(sent, callers))
    assert reloads > 1
    mixed_codes = dict(sent.codes)
    assert mixed_codes == {
        "OK": CLIENTS * OK,
        "INVALID_ARGUMENT": CLIENTS * (WRONG + MALFORMED),
        "NOT_FOUND": CLIENTS * UNKNOWN,
        "UNIMPLEMENTED": CLIENTS * NO_METHOD,
    }
    cancelled, late = busy_traffic(sent, server, callers, eventually)
    failed = Counter(sent.codes) - Counter(mixed_codes)
    assert failed == {
        "RESOURCE_EXHAUSTED": OVER_THE_LIMIT,
        "UNAVAILABLE": QUEUE_FULL + IMPATIENT,
    }
    streams = CLIENTS * STREAMS
    count = sum(sent.codes.values()) + cancelled + late
    count += streams * (STREAM_OK + STREAM_WRONG + STREAM_UNKNOWN)
    assert count >= 10_000

    expected = {
        **{("ModelInfer", code): number for code, number in sent.codes.items()},
        ("ModelInfer", "CANCELLED"): cancelled,
        ("ModelInfer", "DEADLINE_EXCEEDED"): late,
        ("ModelStreamInfer", "OK"): streams,
        ("unknown", "UNIMPLEMENTED"): CLIENTS * NO_METHOD,
    }
    del expected["ModelInfer", "UNIMPLEMENTED"]

    def more(name, **labels):
        return after.value(name, **labels) - before.value(name, **labels)

    def handled():
        return {
            (method, code): scrape(address).value(
                "grpc_server_handled_total", grpc_method=method, grpc_code=code
            )
            - before.value("grpc_server_handled_total", grpc_method=method, grpc_code=code)
            for method, code in expected
        }

    # A call ends a moment after its client has the answer.
    eventually(lambda: handled() == expected, "all calls have ended")
    after = scrape(address)
    assert sum(
        more("grpc_server_handled_total", grpc_method=method)
        for method in ("ModelInfer", "ModelStreamInfer", "unknown")
    ) == sum(expected.values())

    answered = CLIENTS * OK + streams * STREAM_OK
    assert more("nv_inference_request_success", model="linear") == answered
    assert more("nv_inference_count", model="linear") == ROWS * answered
    times = "argmax_request_seconds_count"
    assert more(times, model="linear", method="ModelInfer") == CLIENTS * OK
    assert more(times, model="linear", method="ModelStreamInfer") == streams * STREAM_OK
    assert more("argmax_stage_seconds_count", model="linear", stage="queue") == answered
    assert more("argmax_batch_rows_sum", model="linear") == ROWS * answered
    failures = "nv_inference_request_failure"
    wrong = CLIENTS * WRONG + streams * STREAM_WRONG
    assert more(failures, model="linear") == more(failures, model="linear", reason="OTHER") == wrong
    short = {"model": "short", "reason": "REJECTED"}
    assert more(failures, model="short") == cancelled_of_short(cancelled) + QUEUE_FULL + IMPATIENT
    assert more(failures, **short) == QUEUE_FULL + IMPATIENT
    assert more(failures, model="steps") == cancelled + late - cancelled_of_short(cancelled)
    assert more(failures, model="steps", reason="CANCELED") == more(failures, model="steps")

    refused = {
        "INVALID_ARGUMENT": CLIENTS * MALFORMED,
        "NOT_FOUND": CLIENTS * UNKNOWN + streams * STREAM_UNKNOWN,
        "UNIMPLEMENTED": CLIENTS * NO_METHOD,
        "RESOURCE_EXHAUSTED": OVER_THE_LIMIT,
    }
    assert {code: more("argmax_refused_total", code=code) for code in refused} == refused
    assert more("argmax_refused_total") == sum(refused.values())
    # Each unary call is one request: of a model, or refused.
    unary = sum(number for (method, _), number in expected.items() if method == "ModelInfer")
    of_models = CLIENTS * (OK + WRONG) + cancelled + late + QUEUE_FULL + IMPATIENT
    assert unary == of_models + CLIENTS * (MALFORMED + UNKNOWN) + OVER_THE_LIMIT
    assert after.value("nv_inference_pending_request_count") == 0
    assert after.value("argmax_streams_open") == 0
    eventually(lambda: scrape(address).value("argmax_inflight_bytes") == 0, "no bytes are held")


def reload_while(caller, work):
    """Reload the model as long as `work` runs; how often it was reloaded."""
    ended = threading.Event()

    def reload():
        count = 0
        while not ended.wait(PAUSE_S):
            caller.control("RepositoryModelLoad", model_name="linear")
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        reloads = pool.submit(reload)
        try:
            work()
        finally:
            ended.set()
        return reloads.result()


def mixed_traffic(sent, callers):
    """Send what needs no busy model, from all clients at once, unary and streamed."""

    def client(seed, caller):
        sent.send(caller, mixed(caller, seed))
        for number in range(STREAMS):
            messages = streamed(caller, seed + number)
            answers = caller.stream(messages)
            errors = sum(bool(error) for error, _ in answers)
            assert (len(answers), errors) == (len(messages), STREAM_WRONG + STREAM_UNKNOWN)

    with ThreadPoolExecutor(len(callers)) as pool:
        list(pool.map(client, range(len(callers)), callers))


def cancelled_of_short(cancelled):
    """Of all calls that are cancelled: the ones that keep the other model's queue full."""
    assert cancelled > MOST_QUEUED
    return MOST_QUEUED


def busy_traffic(sent, server, callers, eventually):
    """Send what only models answer so that are busy: calls cancelled, and past their deadline."""
    caller = callers[0]
    calls = server._pools.unary

    def steps(model, **parameters):
        return caller.message(model, steps=np.zeros((1, 1), np.int64), parameters=parameters)

    cancelled = 0
    with caller.busy_worker(model="short", **BUSY):
        model = server._repository.get("short")
        # With room for one: requests whose time in the queue passes.
        filling = [caller.infer_later(steps("short")) for _ in range(MOST_QUEUED - 2)]
        eventually(lambda: model.waiting == MOST_QUEUED - 1, "the queue has room for one")
        impatient = [("ModelInfer", steps("short", timeout=1000))] * IMPATIENT
        sent.send(caller, impatient, window=1)
        filling.append(caller.infer_later(steps("short")))
        eventually(lambda: model.waiting == MOST_QUEUED, "the queue is full")
        sent.send(caller, [("ModelInfer", steps("short"))] * QUEUE_FULL)
        for each in filling:
            each.cancel()
        cancelled += 1 + len(filling)
    eventually(lambda: calls.open == 0, "no call is left")
    with caller.busy_worker(**BUSY):
        late = past_their_deadline(server.address, steps("steps"))
        eventually(lambda: calls.open == 1, "one call is left")
        filling = [caller.infer_later(steps("steps")) for _ in range(WORKERS + WAITING - 1)]
        eventually(lambda: calls.open == WORKERS + WAITING, "all places are taken")
        sent.send(callers[1], [("ModelInfer", steps("steps"))] * OVER_THE_LIMIT)
        for each in filling:
            each.cancel()
        cancelled += 1 + len(filling)
    return cancelled, late


def past_their_deadline(address, message):
    """Send requests with a deadline that only the server looks at."""
    with Raw(address) as raw:
        for _ in range(LATE):
            headers = raw.headers(f"{SERVICE}ModelInfer", [("grpc-timeout", "50m")])
            raw.send(headers, raw.message(headers.stream_id, message))
        codes = Counter(raw.trailers()["grpc-status"] for _ in range(LATE))
    assert codes == {str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0]): LATE}
    return LATE
