"""Models that are replaced while requests are under way."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import STEPS_CONFIG
from onnx import helper
from repository_actions import (
    Code,
    X,
    add,
    answers,
    configure,
    index,
    load,
    refused,
    scores,
    unload,
)

from model.export import export
from model.weights import from_seed
from protos.codec import decode_response, decode_stream_response


class Background:
    """Run a change beside the test; `join` raises what it raised."""

    def __init__(self, change, *arguments):
        self._run = ThreadPoolExecutor(1)
        self._future = self._run.submit(change, *arguments)
        self._run.shutdown(wait=False)
        self.done = self._future.done

    def join(self):
        self._future.result(30)


@pytest.fixture
def steps(graphs, folder, explicit):
    """A server whose model `steps` can be kept busy, and lets three requests wait meanwhile."""
    graphs.folder = folder
    graphs.add_steps()
    policy = STEPS_CONFIG + "dynamic_batching { default_queue_policy { max_queue_size: 4 } }"
    configure(folder, policy, "steps")
    return explicit(load_model=("steps",), group_rows=2)


def three_that_wait(caller, eventually):
    """Three requests of which it is known that they are in the queue of a busy worker."""
    message = caller.message("steps", steps=np.array([[3]]))
    calls = [caller.infer_later(message) for _ in range(6)]
    eventually(lambda: sum(call.done() for call in calls) == 3, "there is room for three")
    return [call for call in calls if not call.done()]


def test_unloading_waits_for_what_was_accepted(steps, call, eventually):
    other = call(steps.address)
    with steps.busy_worker():
        waiting = three_that_wait(steps, eventually)
        unloading = Background(unload, other, "steps")
        eventually(lambda: index(other) == {("steps", "1"): ("UNLOADING", "")}, "it is unloading")
        message = other.message("steps", steps=np.array([[3]]))
        assert refused(other.infer, message)[0] is Code.UNAVAILABLE
        assert not unloading.done()
        assert not any(call.done() for call in waiting)
    unloading.join()
    for call_under_way in waiting:
        assert decode_response(call_under_way.result()).outputs[0].data == 3
    assert index(other) == {("steps", "1"): ("UNAVAILABLE", "unloaded")}


def test_what_waits_is_answered_by_the_version_that_took_it(
    steps, call, graphs, folder, eventually
):
    other = call(steps.address)
    message = other.message("steps", steps=np.array([[3]]))
    with steps.busy_worker():
        waiting = three_that_wait(steps, eventually)
        shutil.rmtree(folder / "steps" / "1")
        value = ("int64", ["batch", 1])
        nodes = [helper.make_node("Neg", ["steps"], ["done"])]
        graphs.add("steps", nodes, {"steps": value}, {"done": value})
        load(other, "steps")
        # The new one serves beside the old, which is busy still.
        assert other.infer(message).outputs[0].data == -3
        assert index(other) == {("steps", "1"): ("READY", "")}
        # A third would be one too many in memory.
        third = Background(load, other, "steps")
        assert {other.infer(message).outputs[0].data.item() for _ in range(100)} == {-3}
        assert not third.done()
        assert not any(call.done() for call in waiting)
    third.join()
    for call_under_way in waiting:
        assert decode_response(call_under_way.result()).outputs[0].data == 3


def test_what_was_on_its_way_to_the_old_version_goes_to_the_new(
    graphs, folder, explicit, eventually
):
    graphs.folder = folder
    graphs.add_steps()
    add(folder)
    caller = explicit(load_model=("*",), group_rows=2, max_inflight_bytes=26_000)
    large = caller.message("linear", outputs=["scores"], parameters={"note": "n" * 6000}, x=X)
    small = caller.message("linear", x=X)
    with caller.busy_worker():
        # There is no room beside the request that keeps the worker busy, nor a way past this one.
        on_its_way = caller.infer_later(large)
        eventually(lambda: times_out(caller, small), "it waits for room")
        add(folder, seed=7)
        load(caller)
        # Which waits until the first is closed.
        load(caller)
        assert not on_its_way.done()
    response = decode_response(on_its_way.result())
    np.testing.assert_allclose(response.outputs[0].data, scores(7), rtol=1e-5)
    assert caller.statistics("linear").inference_stats.fail.count == 0


def times_out(caller, message):
    try:
        caller.infer(message, timeout=0.1)
    except grpc.RpcError as error:
        if error.code() not in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
            raise
        return True
    return False


def test_a_version_is_loading_until_it_is_warmed_up(explicit, call, folder, eventually):
    add(folder)
    caller = explicit()
    warmup = {"name": "w", "count": 100_000, "inputs": {"x": {"dims": [8], "zero_data": True}}}
    config = {"string_param": json.dumps({"model_warmup": [warmup]})}
    loading = Background(partial(load, call(caller.address), config=config))
    eventually(lambda: index(caller) == {("linear", "1"): ("LOADING", "")}, "it is loading")
    code, text = refused(answers, caller, 1)
    assert code is Code.UNAVAILABLE
    assert "being loaded" in text
    loading.join()
    assert answers(caller, 1)


def resident_bytes(process):
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def test_memory_of_replaced_versions_is_given_back(launch, call, folder, eventually):
    features, classes = 65_536, 128
    size = features * classes * 4
    export(folder, "wide", from_seed(classes, features, 0), "float32")
    process = launch(folder, "--model-control", "explicit", "--load-model", "wide")
    caller = call(process.address)
    silence = threading.Event()

    def messages():
        yield caller.message("wide", x=np.ones((1, features), np.float32))
        silence.wait(60)

    stream = caller.open_stream(messages(), timeout=100)
    try:
        assert decode_stream_response(next(stream))[0] == ""
        before = resident_bytes(process)
        # A stream that was answered by the first holds on to none of them.
        for _ in range(4):
            load(caller, "wide")
        eventually(lambda: resident_bytes(process) - before < size, "the memory is given back")
        unload(caller, "wide")
        eventually(lambda: before - resident_bytes(process) > size / 2, "nothing is left of it")
    finally:
        silence.set()


# Polling.
