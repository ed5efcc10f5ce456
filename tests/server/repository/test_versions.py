"""Versions that are served, and models that are loaded and unloaded by request."""

import re

import pytest
from repository_actions import Code, add, answers, configure, index, load, refused, unload

from server.app.config import Config
from server.app.server import Server
from server.errors import StartError


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (None, ["3"]),
        ("latest { num_versions: 2 }", ["2", "3"]),
        ("all {}", ["1", "2", "3"]),
        ("specific { versions: [1, 2] }", ["1", "2"]),
    ],
)
def test_the_version_policy_decides_what_serves(serve, call, folder, policy, served):
    for version in (1, 2, 3):
        add(folder, version=version)
    if policy:
        configure(folder, f"version_policy {{ {policy} }}")
    caller = call(serve(folder).address)
    assert answers(caller, int(served[-1]))
    for version in ("1", "2", "3"):
        state, reason = index(caller)["linear", version]
        if version in served:
            assert answers(caller, int(version), version)
            assert caller.control("ModelReady", name="linear", version=version).ready
            metadata = caller.control("ModelMetadata", name="linear", version=version)
            assert list(metadata.versions) == served
            config = caller.control("ModelConfig", name="linear", version=version).config
            assert (
                config.version_policy.WhichOneof("policy_choice") == (policy or "latest").split()[0]
            )
            assert (state, reason) == ("READY", "")
        else:
            for call_it in (
                lambda: answers(caller, 0, version),  # noqa: B023
                lambda: caller.control("ModelReady", name="linear", version=version),  # noqa: B023
            ):
                assert refused(call_it)[0] is Code.NOT_FOUND
            assert (state, reason) == ("UNAVAILABLE", "not of the version policy")
    assert len(index(caller)) == 3
    assert list(index(caller, ready=True)) == [("linear", version) for version in served]


def test_each_version_has_statistics_of_its_own(serve, call, folder):
    for version in (2, 10):
        add(folder, version=version)
    configure(folder, "version_policy { all {} }")
    caller = call(serve(folder).address)
    for version, times in (("2", 1), ("10", 2), ("", 3)):
        for _ in range(times):
            answers(caller, 0, version)
    both = caller.control("ModelStatistics", name="linear").model_stats
    assert {one.version: one.execution_count for one in both} == {"2": 1, "10": 5}
    (one,) = caller.control("ModelStatistics", name="linear", version="2").model_stats
    assert one.execution_count == 1


# Who may load and unload.


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_requests_may_not_load_unless_control_is_explicit(serve, call, folder, mode):
    add(folder)
    caller = call(serve(folder, model_control=mode).address)
    for change in (load, unload):
        code, text = refused(change, caller)
        assert code is Code.UNAVAILABLE
        assert "explicit model load / unload is not allowed" in text
        assert mode in text
    assert answers(caller, 1)


def test_explicit_control_starts_with_nothing(explicit, folder):
    add(folder)
    caller = explicit()
    assert caller.control("ServerReady").ready
    assert index(caller) == {("linear", "1"): ("UNAVAILABLE", "not loaded")}
    assert index(caller, ready=True) == {}
    assert refused(answers, caller, 1)[0] is Code.NOT_FOUND
    load(caller)
    assert answers(caller, 1)


@pytest.mark.parametrize(
    ("names", "loaded"), [(("b",), ["b"]), (("b", "a"), ["a", "b"]), (("*",), ["a", "b", "c"])]
)
def test_explicit_control_starts_with_what_it_is_told(explicit, folder, names, loaded):
    for name in ("a", "b", "c"):
        add(folder, name)
    caller = explicit(load_model=names)
    assert [name for name, _ in index(caller, ready=True)] == loaded


@pytest.mark.parametrize("mode", ["explicit", "poll"])
def test_an_empty_repository_is_fine_where_models_may_come_later(serve, call, folder, mode):
    folder.mkdir()
    caller = call(serve(folder, model_control=mode).address)
    assert index(caller) == {}
    assert caller.control("ServerReady").ready


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["holds no model"]),
        ({"model_control": "explicit", "load_model": ("nobody",)}, ["--load-model", "'nobody'"]),
        ({"model_control": "explicit", "load_model": ("../x",)}, ["--load-model", "'../x'"]),
        ({"model_control": "explicit", "load_model": ("*", "a")}, ["--load-model", "'*'"]),
        ({"load_model": ("a",)}, ["--load-model", "none"]),
    ],
)
def test_what_cannot_be_started_with_is_refused(folder, options, words):
    folder.mkdir()
    with pytest.raises(StartError) as caught:
        Server(Config(models=folder, address="127.0.0.1:0", **options))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"model_control": "explicit", "load_model": ("*",)}])
@pytest.mark.parametrize(
    ("text", "words"),
    [("max_batch_size: x", ["config.pbtxt", "line 1"]), ('name: "z"', ["config.pbtxt", "'z'"])],
)
def test_a_model_that_cannot_be_loaded_at_start_is_refused(folder, options, text, words):
    add(folder, "good")
    add(folder)
    configure(folder, text)
    with pytest.raises(StartError) as caught:
        Server(Config(models=folder, address="127.0.0.1:0", validation=False, **options))
    for word in (str(folder / "linear"), *words):
        assert word in str(caught.value)


# Load and unload.


def test_a_model_is_unloaded_and_loaded_again(explicit, folder):
    add(folder)
    caller = explicit(load_model=("linear",))
    assert index(caller) == {("linear", "1"): ("READY", "")}
    unload(caller, unload_dependents={"bool_param": True})
    assert index(caller) == {("linear", "1"): ("UNAVAILABLE", "unloaded")}
    assert not caller.control("ModelReady", name="linear").ready
    code, text = refused(answers, caller, 1)
    assert code is Code.UNAVAILABLE
    assert "'linear'" in text
    assert "unloaded" in text
    unload(caller)
    load(caller)
    assert index(caller) == {("linear", "1"): ("READY", "")}
    assert answers(caller, 1)


def test_loading_again_takes_what_the_files_hold_now(explicit, folder):
    add(folder)
    caller = explicit(load_model=("linear",))
    add(folder, seed=7)
    assert answers(caller, 1)
    load(caller)
    assert answers(caller, 7)
    load(caller)
    assert answers(caller, 7)
    add(folder, version=2)
    load(caller)
    assert answers(caller, 2)
    assert list(index(caller, ready=True)) == [("linear", "2")]


def test_a_load_that_fails_leaves_what_serves_and_says_why(explicit, folder):
    path = add(folder)
    caller = explicit(load_model=("linear",))
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(good[:100])
    code, text = refused(load, caller)
    assert code is Code.INVALID_ARGUMENT
    assert "linear/1/model.onnx" in text
    assert str(folder) not in text
    ((state, reason),) = index(caller).values()
    assert state == "READY"
    assert "linear/1/model.onnx" in reason
    assert answers(caller, 1)
    add(folder, seed=3)
    load(caller)
    assert index(caller) == {("linear", "1"): ("READY", "")}
    assert answers(caller, 3)


def test_all_versions_are_loaded_or_none(explicit, folder):
    add(folder, version=1)
    configure(folder, "version_policy { all {} }")
    caller = explicit(load_model=("linear",))
    add(folder, version=1, seed=8)
    add(folder, version=3)
    add(folder, version=2).write_bytes(b"no graph")
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    states = index(caller)
    assert [state for state, _ in states.values()] == ["READY", "UNAVAILABLE", "UNAVAILABLE"]
    assert answers(caller, 1)


def test_each_version_has_a_reason_of_its_own(explicit, folder, eventually):
    for version in (1, 2, 3, 4):
        add(folder, version=version)
    configure(folder, "version_policy { specific { versions: [1, 2, 3, 6] } }")
    caller = explicit()
    (folder / "linear" / "2" / "model.onnx").write_bytes(b"no graph")
    (folder / "linear" / "3" / "model.onnx").write_bytes(b"")
    (folder / "linear" / "6").mkdir()
    code, text = refused(load, caller)
    assert code is Code.INVALID_ARGUMENT
    assert "linear/2/model.onnx" in text
    assert "linear/3/model.onnx" in text
    # Those that could be loaded are unloaded again.
    gone = {"UNAVAILABLE"}
    eventually(lambda: {state for state, _ in index(caller).values()} == gone, "all are gone")
    found = index(caller)
    reasons = {version: reason for (_, version), (_, reason) in found.items()}
    assert re.fullmatch("linear/2/model.onnx: ONNX Runtime cannot load it: .*", reasons["2"])
    assert re.fullmatch("linear/3/model.onnx: ONNX Runtime cannot load it: .*", reasons["3"])
    all_or_none = "version 2, 3 cannot be loaded, and versions are loaded all or none"
    assert reasons["1"] == all_or_none
    assert reasons["4"] == "not of the version policy"
    assert reasons["6"] == "linear/6: got no model.onnx in it"
    for version in (2, 3):
        add(folder, version=version)
    load(caller)
    (folder / "linear" / "2" / "model.onnx").write_bytes(b"no graph")
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    after = index(caller)
    assert [state for state, _ in after.values()] == [*["READY"] * 3, *["UNAVAILABLE"] * 2]
    assert after["linear", "2"][1] == reasons["2"]
    for version in ("1", "3"):
        assert after["linear", version][1] == all_or_none.replace("2, 3", "2")


def test_a_failure_of_the_configuration_is_that_of_every_version(explicit, folder):
    for version in (1, 2):
        add(folder, version=version)
    configure(folder, "max_batch_size: x")
    caller = explicit()
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    reasons = [reason for _, reason in index(caller).values()]
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("linear/config.pbtxt: line 1: ")


def test_a_first_load_that_fails_is_unavailable_and_says_why(explicit, folder):
    add(folder).write_bytes(b"no graph")
    caller = explicit()
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    ((state, reason),) = index(caller).values()
    assert state == "UNAVAILABLE"
    assert "linear/1/model.onnx" in reason
    assert refused(answers, caller, 1)[0] is Code.UNAVAILABLE


def test_a_model_without_a_version_is_listed_with_the_reason(explicit, folder):
    configure(folder, "max_batch_size: 3")
    caller = explicit()
    assert refused(load, caller)[0] is Code.INVALID_ARGUMENT
    (((name, version), (state, reason)),) = index(caller).items()
    assert (name, version, state) == ("linear", "", "UNAVAILABLE")
    assert "no version" in reason
