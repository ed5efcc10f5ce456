"""What a request to load or unload may say."""

import pytest
from repository_actions import Code, add, answers, configure, load, refused, unload


def test_a_configuration_may_come_with_the_request(explicit, folder):
    add(folder)
    configure(folder, "max_batch_size: 3")
    caller = explicit(load_model=("linear",))
    load(caller, config={"string_param": '{"max_batch_size": 5}'})
    assert caller.control("ModelConfig", name="linear").config.max_batch_size == 5
    load(caller)
    assert caller.control("ModelConfig", name="linear").config.max_batch_size == 3


@pytest.mark.parametrize(
    ("change", "name", "value", "code"),
    [
        (load, "config", {"string_param": "{"}, Code.INVALID_ARGUMENT),
        (load, "config", {"string_param": '{"name": "other"}'}, Code.INVALID_ARGUMENT),
        (load, "config", {"bytes_param": b"{}"}, Code.INVALID_ARGUMENT),
        (load, "colour", {"string_param": "red"}, Code.INVALID_ARGUMENT),
        (load, "file:1/model.onnx", {"bytes_param": b"x"}, Code.UNIMPLEMENTED),
        (unload, "unload_dependents", {"string_param": "yes"}, Code.INVALID_ARGUMENT),
        (unload, "colour", {"bool_param": True}, Code.INVALID_ARGUMENT),
    ],
)
def test_a_parameter_that_is_not_served_is_refused_by_name(
    explicit, folder, change, name, value, code
):
    add(folder)
    caller = explicit(load_model=("linear",))
    got, text = refused(change, caller, **{name: value})
    assert got is code
    assert (name in text) or "'other'" in text
    assert answers(caller, 1)


@pytest.mark.parametrize(
    "method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"]
)
def test_another_repository_is_unimplemented(explicit, folder, method):
    add(folder)
    code, text = refused(explicit().control, method, repository_name="other")
    assert code is Code.UNIMPLEMENTED
    assert "'other'" in text


@pytest.mark.parametrize("change", [load, unload])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody", Code.NOT_FOUND),
        ("", Code.INVALID_ARGUMENT),
        (".", Code.INVALID_ARGUMENT),
        ("..", Code.INVALID_ARGUMENT),
        ("../models/linear", Code.INVALID_ARGUMENT),
        ("linear/1", Code.INVALID_ARGUMENT),
        ("/etc", Code.INVALID_ARGUMENT),
        ("linear\0", Code.INVALID_ARGUMENT),
        (".hidden", Code.INVALID_ARGUMENT),
    ],
)
def test_a_name_that_is_no_model_is_refused(explicit, folder, change, name, code):
    add(folder)
    add(folder, ".hidden")
    got, text = refused(change, explicit(), name)
    assert got is code
    assert repr(name) in text
