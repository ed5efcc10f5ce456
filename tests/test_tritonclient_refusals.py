"""Every row of the table of status codes, as tritonclient sees it: tritonclient_refusals.py."""

import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import ROWS_MAY_MIX, STEPS_CONFIG
from onnx import helper
from status_rows import (
    BUDGET_BYTES,
    CALLS,
    CANCELLED_ROWS,
    CANCELLED_STREAM_ROWS,
    CLASSES,
    FEATURES,
    LATE_ROWS,
    MESSAGE_BYTES,
    MOST_ROWS,
    REQUESTS,
)

from model.export import export
from model.weights import from_seed

SCRIPT = Path(__file__).with_name("tritonclient_refusals.py")


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    graphs.add_steps("narrow")
    (graphs.folder / "narrow" / "config.pbtxt").write_text(
        STEPS_CONFIG + "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    )
    row = ("float32", ["batch", FEATURES])
    add = helper.make_node("Add", ["a", "b"], ["total"])
    graphs.add("sum", [add], {"a": row, "b": row}, {"total": row})
    index = ("int64", ["batch"])
    pick = helper.make_node("Gather", ["table", "at"], ["picked"])
    graphs.add("pick", [pick], {"at": index}, {"picked": index}, {"table": np.arange(4)})
    # It says that its batch axis is free, and then gives one row whatever came.
    first = helper.make_node("Slice", ["x", "zero", "one", "zero"], ["y"])
    graphs.add(
        "liar",
        [first],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["other", 2])},
        {"zero": np.array([0]), "one": np.array([1])},
    )
    (graphs.folder / "liar" / "config.pbtxt").write_text(ROWS_MAY_MIX)
    return graphs.folder


@pytest.fixture(scope="module")
def main(serve, call, models):
    server = serve(
        models,
        group_rows=2,
        max_batch_rows=MOST_ROWS,
        max_message_bytes=MESSAGE_BYTES,
        max_inflight_bytes=BUDGET_BYTES,
    )
    return call(server.address)


@pytest.fixture(scope="module")
def told(main, serve, call, models, launch_for_module, run_script, eventually):
    """What each step of the script gave, by name."""
    closed = serve(models, shared_memory=False, model_control="explicit", load_model=("*",))
    call(closed.address).control("RepositoryModelUnload", model_name="sum")
    stopping = launch_for_module(models, "--group-rows", 2)
    last = call(stopping.address)
    with main.busy_worker(), main.busy_worker(model="narrow"), last.busy_worker():
        stopping.popen.send_signal(signal.SIGTERM)
        eventually(lambda: last.health() == "NOT_SERVING", "the server is stopping")
        return run_script(SCRIPT, main.address, closed.address, stopping.address)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_with_the_right_code(told, name):
    answer = told(name)
    assert answer["code"] == f"StatusCode.{CALLS[name]}", answer
    assert answer["text"]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_refused_with_the_right_code(told, name):
    answer = told(f"{name}, unary")
    code, _ = REQUESTS[name]
    assert answer["code"] == f"StatusCode.{code}", answer
    assert answer["text"]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_goes_on_after_a_refusal(told, name):
    answer = told(f"{name}, stream")
    assert answer["text"] == told(f"{name}, unary")["text"]
    # A row of zeros scores the same everywhere, and the first class wins.
    assert answer["then"] == [0, 0]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_that_asked_for_it_ends_with_the_code(told, name):
    code, _ = REQUESTS[name]
    answer = told(f"{name}, stream that ends")
    assert answer["code"] == f"StatusCode.{code}", answer


def test_what_nobody_waits_for_any_more_is_not_run(told, main):
    answer = told("cancelled request")  # the worker is free again now
    assert answer
    done = main.infer(main.message("steps", steps=np.zeros((1, 1), np.int64)))
    assert done.outputs[0].data.tolist() == [[0]]
    ran = {batch.batch_size for batch in main.statistics("steps").batch_stats}
    assert not ran & {LATE_ROWS, CANCELLED_ROWS, CANCELLED_STREAM_ROWS}
