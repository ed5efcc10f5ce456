"""Polling loads what is new or changed, and unloads what is gone."""

import shutil
import threading

import grpc
import pytest
from repository_actions import Code, add, answers, configure, index, load, refused


@pytest.fixture
def polled(serve, call, folder):
    """Start a server that looks at the folder all the time; a caller of it."""
    return lambda: call(serve(folder, model_control="poll", poll_s=0.03).address)


def test_polling_finds_what_is_new_changed_and_gone(polled, folder, eventually):
    folder.mkdir()
    caller = polled()
    add(folder, "first")
    eventually(lambda: ("first", "1") in index(caller, ready=True), "the first is there")
    add(folder, "second")
    eventually(lambda: ("second", "1") in index(caller, ready=True), "the second is there")
    add(folder, "first", seed=5)
    eventually(lambda: answers(caller, 5, name="first"), "the first has changed")
    configure(folder, "max_batch_size: 5", "first")
    eventually(
        lambda: caller.control("ModelConfig", name="first").config.max_batch_size == 5,
        "the first is configured",
    )
    shutil.rmtree(folder / "second")
    eventually(lambda: ("second", "1") not in index(caller), "the second is gone")
    assert refused(answers, caller, 1, name="second")[0] is Code.NOT_FOUND
    assert "second:1" not in [thread.name for thread in threading.enumerate()]
    assert answers(caller, 5, name="first")


def test_polling_loads_a_new_version_and_leaves_the_others_alone(polled, folder, eventually):
    add(folder, version=1)
    configure(folder, "version_policy { all {} }")
    caller = polled()
    assert answers(caller, 1)
    add(folder, version=2)
    eventually(lambda: ("linear", "2") in index(caller, ready=True), "the new one is there")
    assert answers(caller, 2)
    assert answers(caller, 1, "1")
    (one,) = caller.control("ModelStatistics", name="linear", version="1").model_stats
    assert one.execution_count == 2
    shutil.rmtree(folder / "linear" / "2")
    eventually(lambda: ("linear", "2") not in index(caller), "the new one is gone")
    assert answers(caller, 1)


def test_polling_goes_on_after_what_cannot_be_loaded(polled, folder, eventually, caplog):
    add(folder)
    add(folder, "broken").write_bytes(b"no graph")
    caller = polled()
    states = index(caller)
    assert states["broken", "1"][0] == "UNAVAILABLE"
    assert "broken/1/model.onnx" in states["broken", "1"][1]
    assert answers(caller, 1)
    configure(folder, "max_batch_size: x")
    eventually(lambda: "line 1" in index(caller)["linear", "1"][1], "it says what is wrong")
    # It was tried once: polls since then found the files to be what they were.
    assert [one.model for one in caplog.records if one.levelname == "ERROR"] == ["broken", "linear"]
    assert index(caller)["linear", "1"][0] == "READY"
    assert answers(caller, 1)
    configure(folder, "max_batch_size: 6")
    add(folder, "broken", seed=9)
    eventually(lambda: answers_if_ready(caller, 9, "broken"), "it is mended")
    eventually(lambda: index(caller)["linear", "1"] == ("READY", ""), "so is the other")


def answers_if_ready(caller, seed, name):
    try:
        return answers(caller, seed, name=name)
    except grpc.RpcError as error:
        if error.code() is not Code.UNAVAILABLE:
            raise
        return False


def test_a_folder_that_vanishes_unloads_nothing_by_request(explicit, folder):
    add(folder)
    caller = explicit(load_model=("linear",))
    shutil.rmtree(folder)
    assert index(caller) == {("linear", "1"): ("READY", "")}
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    assert answers(caller, 1)


def test_a_server_that_loads_by_request_drains_as_any_other(launch, call, folder):
    add(folder)
    for options in (["explicit", "--load-model", "linear"], ["poll", "--poll-s", "0.01"]):
        process = launch(folder, "--model-control", *options)
        assert answers(call(process.address), 1)
        assert process.stop() == 0
        assert [line for line in process.said() if '"error"' in line] == []
