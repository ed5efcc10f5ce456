import json

import grpc
import pytest
from onnx import helper

from protos import inference_pb2 as pb

Code = grpc.StatusCode
AT_INFO = {
    "log_file": "",
    "log_format": "JSON",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
}


@pytest.fixture(scope="module")
def models(graphs):
    value = ("float32", ["batch", 2])
    graphs.add("same", [helper.make_node("Identity", ["x"], ["y"])], {"x": value}, {"y": value})
    return graphs.folder


@pytest.fixture(scope="module")
def caller(serve, call, models):
    return call(serve(models).address)


@pytest.fixture
def process(launch, models):
    """A server of its own, since what is written of the log is a matter of the whole process."""
    return launch(models)


@pytest.fixture(scope="module")
def unchanged(launch_for_module, call, models):
    """A caller of a server whose log settings stay as they are."""
    return call(launch_for_module(models).address)


def log_settings(caller, **changes):
    """The settings in force after some were changed."""
    settings = {name: _setting(value) for name, value in changes.items()}
    answer = caller.control("LogSettings", settings=settings).settings
    return {name: getattr(s, s.WhichOneof("parameter_choice")) for name, s in answer.items()}


def _setting(value):
    kind = {bool: "bool_param", int: "uint32_param", str: "string_param", type(None): None}
    field = kind[type(value)]
    return pb.LogSettingsRequest.SettingValue(**({field: value} if field else {}))


def refusal(attempt, code):
    with pytest.raises(grpc.RpcError) as caught:
        attempt()
    assert caught.value.code() is code
    return caught.value.details()


def levels(process):
    return {json.loads(line)["level"] for line in process.said()}


def test_log_settings_tell_what_is_in_force(unchanged):
    assert log_settings(unchanged) == AT_INFO


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("debug", {"log_verbose_level": 1}),
        ("error", {"log_info": False, "log_warning": False}),
    ],
)
def test_log_settings_tell_the_level_it_was_started_with(launch, call, models, option, changes):
    caller = call(launch(models, "--log-level", option).address)
    assert log_settings(caller) == AT_INFO | changes


def test_severities_are_switched_one_by_one(process, call):
    caller = call(process.address)
    assert log_settings(caller, log_warning=False) == AT_INFO | {"log_warning": False}
    assert log_settings(caller, log_verbose_level=1)["log_verbose_level"] == 1
    off = log_settings(caller, log_info=False, log_error=False, log_verbose_level=0)
    assert not any(off[name] for name in ("log_info", "log_warning", "log_error"))
    assert log_settings(caller, log_info=True, log_warning=True, log_error=True) == AT_INFO


def test_what_is_switched_off_is_not_written(process, call):
    caller = call(process.address)
    log_settings(caller, log_info=False)
    said = len(process.said())
    assert process.stop() == 0
    assert len(process.said()) == said


def test_what_is_switched_on_is_written(launch, call, models):
    process = launch(models, "--log-level", "error")
    log_settings(call(process.address), log_info=True)
    assert process.stop() == 0
    assert levels(process) == {"INFO"}


def test_a_severity_is_left_out_while_a_lesser_one_is_written(process, call):
    caller = call(process.address)
    log_settings(caller, log_verbose_level=1, log_info=False, log_warning=True)
    said = len(process.said())
    assert process.stop() == 0
    assert all(json.loads(line)["level"] == "DEBUG" for line in process.said()[said:])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("log_file", "/tmp/log", "''"),
        ("log_file", None, "''"),
        ("log_format", "ISO8601", "'JSON'"),
        ("log_verbose_level", 2, "0 or 1"),
        ("log_verbose_level", True, "0 or 1"),
        ("log_info", 1, "False or True"),
        ("log_error", "yes", "False or True"),
        ("log_colour", "red", "log_error"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_named_and_changes_nothing(
    unchanged, name, value, wanted
):
    changes = {"log_warning": False, name: value}
    text = refusal(lambda: log_settings(unchanged, **changes), Code.INVALID_ARGUMENT)
    assert repr(name) in text
    assert wanted in text
    assert log_settings(unchanged) == AT_INFO


def test_settings_as_they_are_can_be_set(unchanged):
    assert log_settings(unchanged, **AT_INFO) == AT_INFO


@pytest.mark.parametrize("model", ["", "same"])
def test_trace_settings_say_that_tracing_is_off(caller, model):
    settings = caller.control("TraceSetting", model_name=model).settings
    assert list(settings["trace_level"].value) == ["OFF"]


def test_trace_settings_of_an_unknown_model_are_not_found(caller):
    text = refusal(lambda: caller.control("TraceSetting", model_name="nobody"), Code.NOT_FOUND)
    assert "'nobody'" in text


def test_tracing_cannot_be_switched_on(caller):
    level = pb.TraceSettingRequest.SettingValue(value=["TIMESTAMPS"])
    text = refusal(
        lambda: caller.control("TraceSetting", settings={"trace_level": level}), Code.UNAVAILABLE
    )
    assert "trace_level" in text


def test_cuda_regions_are_none(caller):
    assert not caller.control("CudaSharedMemoryStatus").regions
    for name in ("", "nobody"):
        caller.control("CudaSharedMemoryUnregister", name=name)
    refusal(lambda: caller.control("CudaSharedMemoryStatus", name="nobody"), Code.NOT_FOUND)
    text = refusal(
        lambda: caller.control("CudaSharedMemoryRegister", name="mine", raw_handle=b"h"),
        Code.INVALID_ARGUMENT,
    )
    assert "'mine'" in text
