import pytest

from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError
from server.loaded_model import config_session
from server.loaded_model.model_config import parse_text
from server.onnx.execution_provider import parse
from server.onnx.session_settings import SessionSettings

OF_SERVER = SessionSettings(
    inter_op_threads=5,
    graph_optimization="basic",
    mem_arena=True,
    entries={"session.disable_prepacking": "1"},
)


def parameters(**values):
    return ModelConfig(parameters={key: {"string_value": text} for key, text in values.items()})


def settings(config, default=OF_SERVER, provider="cpu"):
    return config_session.settings(config, default, [parse(provider)])


def parameter(key, text):
    return parameters(**{key: text})


def test_what_a_configuration_leaves_out_is_the_servers():
    assert settings(ModelConfig()) == OF_SERVER


@pytest.mark.parametrize(
    ("key", "text", "field", "wanted"),
    [
        ("inter_op_thread_count", "3", "inter_op_threads", 3),
        ("inter_op_thread_count", "0", "inter_op_threads", 0),
        ("execution_mode", "1", "execution_mode", "parallel"),
        ("execution_mode", "0", "execution_mode", "sequential"),
        ("enable_mem_arena", "0", "mem_arena", False),
        ("enable_mem_arena", "True", "mem_arena", True),
        ("enable_mem_pattern", "false", "mem_pattern", False),
        ("memory.enable_memory_arena_shrinkage", "cpu:0", "arena_shrinkage", "cpu:0"),
        ("memory.enable_memory_arena_shrinkage", "", "arena_shrinkage", ""),
        (
            "session.use_device_allocator_for_initializers",
            "1",
            "entries",
            {
                "session.disable_prepacking": "1",
                "session.use_device_allocator_for_initializers": "1",
            },
        ),
        ("session.disable_prepacking", "0", "entries", {"session.disable_prepacking": "0"}),
    ],
)
def test_a_parameter_counts_over_the_servers_option(key, text, field, wanted):
    found = settings(parameter(key, text))
    assert getattr(found, field) == wanted
    others = {"inter_op_threads", "graph_optimization", "mem_pattern", "execution_mode"} - {field}
    assert all(getattr(found, other) == getattr(OF_SERVER, other) for other in others)


@pytest.mark.parametrize(
    ("level", "wanted"), [(-1, "basic"), (0, "all"), (1, "extended"), (2, "off")]
)
def test_the_levels_of_optimization_are_tritons(level, wanted):
    text = f"optimization {{ graph {{ level: {level} }} }}"
    assert settings(parse_text(text)).graph_optimization == wanted


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("inter_op_thread_count", "-1", "an integer from 0 to 99999, 0 for the server's own"),
        ("inter_op_thread_count", "", "an integer from 0 to 99999"),
        ("execution_mode", "parallel", "0 (sequential) or 1 (parallel)"),
        ("enable_mem_arena", "yes", "0, 1, false or true"),
        ("enable_mem_pattern", "", "0, 1, false or true"),
        ("session.disable_prepacking", "true", "0 or 1"),
        ("session.dynamic_block_base", "x", "an integer of at least 0"),
        ("memory.enable_memory_arena_shrinkage", "cpu", "cpu:0 or gpu:N"),
    ],
)
def test_a_wrong_value_is_named_with_the_expected_one(key, text, expected):
    with pytest.raises(LoadError) as caught:
        settings(parameter(key, text))
    assert str(caught.value).startswith(f"parameter {key} is {text!r}, expected {expected}")


@pytest.mark.parametrize(
    ("text", "arena", "provider", "expected"),
    [
        ("gpu:0", "1", "cpu", "some of cpu:0"),
        ("cpu:0;gpu:1", "1", "cuda", "some of cpu:0, gpu:0"),
        ("cpu:0", "0", "cpu", "none, as there is no arena"),
    ],
)
def test_an_arena_that_is_not_there_cannot_be_shrunk(text, arena, provider, expected):
    config = parameters(**{"memory.enable_memory_arena_shrinkage": text, "enable_mem_arena": arena})
    with pytest.raises(LoadError) as caught:
        settings(config, provider=provider)
    assert str(caught.value).endswith(f"is {text!r}, expected {expected}")


def test_an_arena_that_is_there_can_be_shrunk():
    found = settings(
        parameter("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:2"), provider="cuda:device=2"
    )
    assert found.arena_shrinkage == "cpu:0;gpu:2"


def test_threads_of_a_configuration_are_those_of_each_execution():
    assert config_session.threads(parameter("intra_op_thread_count", "7"), 2) == 7
    assert config_session.threads(parameter("intra_op_thread_count", "0"), 2) == 2
    assert config_session.threads(ModelConfig(), 2) == 2


def test_instances_share_a_session_unless_told():
    assert config_session.shared(ModelConfig())
    assert not config_session.shared(parameter("share_session_between_instances", "false"))


def test_parameters_of_others_are_left_alone():
    config = parameters(owner="us", batching="on", execution_mode="1", weights_sha256="0")
    assert list(config_session.without_effect(config)) == []
