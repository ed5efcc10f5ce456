import logging
from collections import Counter

import grpc
import numpy as np
import pytest
from conftest import STEPS_CONFIG
from google.protobuf import json_format
from onnx import helper

from protos import model_config_pb2 as pb
from server.errors import LoadError
from server.loaded_model.model_config import check, parse_json, parse_text, wanted_versions

FREE, WIDE = ["batch", 2], ["batch", "width"]
MOST_ROWS = 1000

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def models(graphs):
    """Models `row` [batch, 2], `any` [batch, width], `fixed` [2, 3], and `steps`, which is slow."""
    for name, shape in (("row", FREE), ("any", WIDE), ("fixed", [2, 3])):
        value = {"x": ("float32", shape)}, {"y": ("float32", shape)}
        graphs.add(name, [helper.make_node("Neg", ["x"], ["y"])], *value)
    graphs.add(
        "pick",
        [helper.make_node("Gather", ["table", "at"], ["picked"])],
        {"at": ("int64", ["batch"])},
        {"picked": ("int64", ["batch"])},
        {"table": np.arange(4) * 10},
    )
    graphs.add(
        "text",
        [helper.make_node("Identity", ["said"], ["heard"])],
        {"said": ("string", ["batch"])},
        {"heard": ("string", ["batch"])},
    )
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def caller(serve, call, models):
    return call(
        serve(models, model_control="explicit", group_rows=2, max_batch_rows=MOST_ROWS).address
    )


@pytest.fixture
def configured(caller, models):
    """Load a model by a configuration; the completed one."""
    written = []

    def load(name, text):
        path = models / name / "config.pbtxt"
        written.append((name, path))
        path.write_text(text)
        caller.control("RepositoryModelLoad", model_name=name)
        return caller.control("ModelConfig", name=name).config

    yield load
    for name, path in written:
        path.unlink(missing_ok=True)
        caller.control("RepositoryModelUnload", model_name=name)


def refusal(load, *arguments):
    """What is said, with INVALID_ARGUMENT, instead of loading."""
    with pytest.raises(grpc.RpcError) as caught:
        load(*arguments)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    return caught.value.details()


def refused_call(caller, message):
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(message)
    return caught.value.code(), caught.value.details()


# Each with words that the refusal must hold: the field at fault, and what was wanted.
REFUSED = [
    ('name: "other"', ["'other'", "'row'"]),
    ('platform: "tensorflow_graphdef"', ["platform", "onnxruntime_onnx"]),
    ('backend: "python"', ["backend", "'onnxruntime'"]),
    ('runtime: "libtriton.so"', ["runtime"]),
    ("max_batch_size: -1", ["max_batch_size", "-1"]),
    ('input { name: "z" }', ["z", "x"]),
    ('output { name: "z" }', ["z", "y"]),
    ('input { name: "x" } input { name: "x" }', ["each once"]),
    ("input { data_type: TYPE_FP32 }", ["input names"]),
    ('input { name: "x" data_type: TYPE_FP64 }', ["'x'", "TYPE_FP64", "TYPE_FP32"]),
    ('input { name: "x" dims: [3] }', ["'x'", "[3]", "[2]"]),
    ('input { name: "x" dims: [-1] }', ["'x'", "[-1]", "[2]"]),
    ('input { name: "x" dims: [0] }', ["'x'", "[0]", "at least 1"]),
    ('max_batch_size: 4 input { name: "x" dims: [-1, 2] }', ["[-1, 2]", "beside the batch axis"]),
    ('output { name: "y" dims: [1, 1, 1] }', ["'y'", "[1, 1, 1]"]),
    ('input { name: "x" optional: true }', ["'x'", "optional"]),
    ('input { name: "x" reshape { shape: [1] } }', ["line 2", "ModelInput", "'reshape'"]),
    ('output { name: "y" label_filename: "labels.txt" }', ["row/labels.txt"]),
    ('output { name: "y" label_filename: "../any/labels.txt" }', ["'../any/labels.txt'"]),
    ('output { name: "y" label_filename: "1" }', ["row/1", "directory"]),
    ('default_model_filename: "../../any/1/model.onnx"', ["'../../any/1/model.onnx'"]),
    ('default_model_filename: "other.onnx"', ["no version", "other.onnx"]),
    ("instance_group { kind: KIND_GPU }", ["CUDAExecutionProvider is not available"]),
    ("instance_group { gpus: [0] }", ["CUDAExecutionProvider is not available"]),
    ("instance_group { gpus: [0, 0] }", ["instance_group", "gpus [0, 0]", "each once"]),
    ("instance_group { kind: KIND_CPU gpus: [0] }", ["instance_group", "gpus [0]", "KIND_CPU"]),
    ("instance_group { count: 257 }", ["instance_group has 257 instances", "256 at most"]),
    (
        "instance_group { kind: KIND_GPU } optimization { execution_accelerators "
        '{ cpu_execution_accelerator { name: "openvino" } } }',
        ["instance_group", "KIND_GPU", "openvino"],
    ),
    ("instance_group { count: -1 }", ["instance_group", "-1"]),
    ("instance_group { rate_limiter {} }", ["line 2", "'rate_limiter'"]),
    ("dynamic_batching { preferred_batch_size: [0] }", ["preferred_batch_size", "0"]),
    (
        "max_batch_size: 4 dynamic_batching { preferred_batch_size: [8] }",
        ["preferred_batch_size", "8"],
    ),
    (
        "dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
        ["timeout_action", "DELAY", "REJECT"],
    ),
    ("dynamic_batching { priority_levels: 2 }", ["line 2", "'priority_levels'"]),
    ("max_batch_size: 0 dynamic_batching {}", ["dynamic_batching", "max_batch_size 0"]),
    ("version_policy { specific { versions: [7] } }", ["no version", "[1]", "version policy"]),
    (
        "optimization { execution_accelerators { gpu_execution_accelerator "
        '{ name: "tensorrt" } } }',
        ["TensorrtExecutionProvider is not available"],
    ),
    (
        "optimization { execution_accelerators { cpu_execution_accelerator "
        '{ name: "tensorrt" } } }',
        ["cpu_execution_accelerator 'tensorrt'", "expected cpu or openvino"],
    ),
    (
        "optimization { execution_accelerators { gpu_execution_accelerator "
        '{ name: "auto_mixed" } } }',
        ["gpu_execution_accelerator 'auto_mixed'", "expected cpu, cuda, tensorrt, openvino"],
    ),
    (
        "optimization { execution_accelerators { cpu_execution_accelerator "
        '{ name: "openvino" parameters { key: "precision" value: "fp8" } } } }',
        ["cpu_execution_accelerator 'openvino'", "f32, f16 or bf16 as precision"],
    ),
    (
        "optimization { execution_accelerators { cpu_execution_accelerator "
        '[{ name: "openvino" }, { name: "cpu" }] } }',
        ["execution_accelerators", "openvino, cpu"],
    ),
    ("response_cache { enable: true }", ["response_cache.enable"]),
    ("model_transaction_policy { decoupled: true }", ["decoupled"]),
    ("sequence_batching { direct {} }", ["line 2", "'sequence_batching'"]),
    ("ensemble_scheduling {}", ["line 2", "'ensemble_scheduling'"]),
    (
        'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
        ["intra_op_thread_count", "'many'"],
    ),
    (
        'parameters { key: "execution_mode" value { string_value: "2" } }',
        ["config.pbtxt: parameter execution_mode is '2', expected 0 (sequential) or 1 (parallel)"],
    ),
    ("optimization { graph { level: 3 } }", ["config.pbtxt: optimization.graph.level is 3, exp"]),
    ("frobnicate: 1", ["line 2", "'frobnicate'"]),
    ('max_batch_size: "x"', ["line 2", '"x"']),
    ('name: "row', ["line 2", "quote"]),
    (
        'model_warmup { name: "w" inputs { key: "x" value { input_data_file: "x" } } }',
        ["'w'", "'x'", "input_data_file"],
    ),
    ('model_warmup { name: "w" inputs { key: "x" value { dims: [2] } } }', ["'w'", "no data"]),
    (
        'model_warmup { name: "w" inputs { key: "z" value { zero_data: true } } }',
        ["'w'", "['z']", "['x']"],
    ),
    (
        'model_warmup { name: "w" inputs { key: "x" value { dims: [3] zero_data: true } } }',
        ["'w'", "[3]", "[2]"],
    ),
    (
        'model_warmup { name: "w" inputs { key: "x" value '
        "{ data_type: TYPE_INT8 dims: [2] zero_data: true } } }",
        ["'w'", "TYPE_INT8", "TYPE_FP32"],
    ),
    (
        'model_warmup { name: "w" batch_size: 1001 inputs { key: "x" value '
        "{ dims: [2] zero_data: true } } }",
        ["'w'", "1001", "1000"],
    ),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[text[:60] for text, _ in REFUSED])
def test_what_is_not_served_is_refused_by_name(configured, models, text, words):
    said = refusal(configured, "row", f"# first line\n{text}")
    for word in ("'row'", *words):
        assert word in said
    assert str(models) not in said


WITHOUT_EFFECT = [
    ("instance_group { kind: KIND_MODEL }", "KIND_MODEL"),
    (
        "instance_group { kind: KIND_CPU } optimization { execution_accelerators "
        '{ gpu_execution_accelerator { name: "cuda" } } }',
        "gpu_execution_accelerator is ignored",
    ),
    ('parameters { key: "gpu_mem_limit" value { string_value: "1" } }', "gpu_mem_limit"),
    (
        'parameters { key: "session.optimized_model_filepath" value { string_value: "/x" } }',
        "session.optimized_model_filepath is ignored",
    ),
    (
        'parameters { key: "intra_op_thread_counts" value { string_value: "1" } }',
        "did you mean intra_op_thread_count?",
    ),
    ("dynamic_batching { preferred_batch_size: [2, 4] }", "preferred_batch_size"),
    ("optimization { priority: PRIORITY_MAX }", "optimization.priority"),
    ("optimization { input_pinned_memory { enable: true } }", "optimization.input_pinned_memory"),
    ("optimization { output_pinned_memory { enable: true } }", "optimization.output_pinned"),
    ("optimization { gather_kernel_buffer_threshold: 1 }", "optimization.gather_kernel"),
    ("optimization { eager_batching: true }", "optimization.eager_batching"),
    ('metric_tags { key: "a" value: "b" }', "metric_tags"),
    ('input { name: "x" format: FORMAT_NCHW }', "format"),
]


@pytest.mark.parametrize(("text", "word"), WITHOUT_EFFECT, ids=[t for t, _ in WITHOUT_EFFECT])
def test_what_has_no_effect_is_a_warning(configured, caplog, text, word):
    with caplog.at_level(logging.WARNING):
        assert configured("row", text).instance_group[0].count == 1
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert (record.model, word in record.field) == ("row", True)


def test_instances_are_told_as_they_run(configured):
    told = configured("row", 'instance_group { count: 2 } instance_group { name: "more" }')
    groups = [(group.name, group.count, group.kind) for group in told.instance_group]
    cpu = pb.ModelInstanceGroup.KIND_CPU
    assert groups == [("row_0", 2, cpu), ("more", 1, cpu)]


def test_nothing_is_warned_of_without_a_reason(configured, caplog):
    with caplog.at_level(logging.WARNING):
        configured(
            "row",
            "max_batch_size: 8 dynamic_batching { preferred_batch_size: [4] } "
            "instance_group { count: 2 } optimization { graph { level: 1 } } "
            'parameters { key: "owner" value { string_value: "us" } } '
            'parameters { key: "execution_mode" value { string_value: "1" } }',
        )
    assert [one for one in caplog.records if one.levelname == "WARNING"] == []


def test_without_a_file_the_configuration_is_that_of_the_graph(caller):
    caller.control("RepositoryModelLoad", model_name="any")
    told = caller.control("ModelConfig", name="any").config
    assert (told.name, told.platform, told.backend) == ("any", "onnxruntime_onnx", "onnxruntime")
    assert (told.max_batch_size, told.default_model_filename) == (MOST_ROWS, "model.onnx")
    assert told.version_policy.latest.num_versions == 1
    assert [(t.name, t.data_type, list(t.dims)) for t in told.input] == [("x", pb.TYPE_FP32, [-1])]
    assert [(t.name, t.data_type, list(t.dims)) for t in told.output] == [("y", pb.TYPE_FP32, [-1])]
    (group,) = told.instance_group
    assert (group.name, group.count, group.kind) == ("any_0", 1, pb.ModelInstanceGroup.KIND_CPU)
    assert list(told.dynamic_batching.preferred_batch_size) == [2]


def test_what_a_server_tells_can_be_loaded_again(configured, caller):
    told = configured("row", "max_batch_size: 7 dynamic_batching { preferred_batch_size: [3] }")
    # The parameters are the server's own in part, and stay what they are.
    text = json_format.MessageToJson(told)
    parameters = {"config": {"string_param": text}}
    caller.control("RepositoryModelLoad", model_name="row", parameters=parameters)
    assert caller.control("ModelConfig", name="row").config == told


def test_the_most_rows_are_the_configurations_also_above_the_servers(configured, caller):
    for most in (3, 2 * MOST_ROWS):
        assert configured("row", f"max_batch_size: {most}").max_batch_size == most
        x = np.ones((most, 2), np.float32)
        np.testing.assert_array_equal(caller.infer(caller.message("row", x=x)).outputs[0].data, -x)
        x = np.ones((most + 1, 2), np.float32)
        code, text = refused_call(caller, caller.message("row", x=x))
        assert code is Code.INVALID_ARGUMENT
        assert f"1 to {most}" in text


@pytest.mark.parametrize("text", ["max_batch_size: 0", 'input { name: "x" dims: [-1, 2] }'])
def test_a_batch_axis_can_be_one_like_any_other(configured, caller, text):
    told = configured("row", text)
    assert told.max_batch_size == 0
    assert list(told.input[0].dims) == [-1, 2]
    assert not told.HasField("dynamic_batching")
    for rows in (1, 300):
        x = np.ones((rows, 2), np.float32)
        np.testing.assert_array_equal(caller.infer(caller.message("row", x=x)).outputs[0].data, -x)


def test_a_batch_size_for_a_graph_without_a_batch_axis_is_refused(configured):
    said = refusal(configured, "fixed", "max_batch_size: 2")
    assert "max_batch_size is 2" in said
    assert "batch axis" in said


def test_dims_narrow_what_the_graph_would_take(configured, caller):
    told = configured("any", 'input { name: "x" dims: [3] }')
    assert list(told.input[0].dims) == [3]
    assert list(caller.control("ModelMetadata", name="any").inputs[0].shape) == [-1, 3]
    assert caller.infer(caller.message("any", x=np.ones((2, 3), np.float32)))
    code, text = refused_call(caller, caller.message("any", x=np.ones((2, 4), np.float32)))
    assert code is Code.INVALID_ARGUMENT
    assert "[-1, 3]" in text


def test_the_largest_preferred_batch_size_is_what_is_gathered(configured, caller):
    message = caller.message("steps", parameters={"timings": True}, steps=np.array([[1]]))
    for preferred, gathered in (([4], 4), ([1, 3], 3), ([], 2)):
        sizes = f"preferred_batch_size: {preferred}"
        told = configured(
            "steps", STEPS_CONFIG + f"dynamic_batching {{ {sizes if preferred else ''} }}"
        )
        assert list(told.dynamic_batching.preferred_batch_size) == [gathered]
        with caller.busy_worker(executions=3):
            answers = caller.stream([message] * 5)
        assert max(response.parameters["batch_rows"] for _, response in answers) == gathered


def test_the_queue_delay_is_waited_for_company(configured, caller):
    told = configured("row", "dynamic_batching { max_queue_delay_microseconds: 200000 }")
    assert told.dynamic_batching.max_queue_delay_microseconds == 200_000
    x = np.ones((1, 2), np.float32)
    message = caller.message("row", parameters={"timings": True}, x=x)
    waited = caller.infer(message).parameters
    # The delay counts from the arrival, before the message is decoded.
    assert waited["decode_ns"] + waited["queue_ns"] >= 200_000_000
    assert caller.statistics("row").response_stats["batch_closed_delay"].success.count == 1


def test_a_queue_takes_no_more_requests_than_it_may(configured, caller, eventually):
    configured(
        "steps", STEPS_CONFIG + "dynamic_batching { default_queue_policy { max_queue_size: 3 } }"
    )
    message = caller.message("steps", steps=np.array([[1]]))
    with caller.busy_worker():
        # The one that keeps the worker busy waits too, until its last slice.
        calls = [caller.infer_later(message) for _ in range(6)]
        eventually(lambda: sum(call.done() for call in calls) == 4, "four are refused")
    codes = Counter(call.code() for call in calls)
    assert codes == {Code.OK: 2, Code.UNAVAILABLE: 4}
    refused = next(call for call in calls if call.code() is Code.UNAVAILABLE)
    assert "3 requests wait" in refused.details()


@pytest.mark.parametrize(
    ("policy", "asked_us", "times_out"),
    [
        ("default_timeout_microseconds: 50000", None, True),
        ("default_timeout_microseconds: 50000", 60_000_000, True),
        ("default_timeout_microseconds: 50000 allow_timeout_override: true", 60_000_000, True),
        ("default_timeout_microseconds: 60000000 allow_timeout_override: true", 1000, True),
        ("default_timeout_microseconds: 60000000", 1000, False),
        ("allow_timeout_override: true", 1000, True),
        ("", 1000, False),
    ],
)
def test_the_queue_policy_decides_how_long_a_request_waits(
    configured, caller, policy, asked_us, times_out
):
    configured(
        "steps", STEPS_CONFIG + f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}"
    )
    parameters = {} if asked_us is None else {"timeout": asked_us}
    message = caller.message("steps", parameters=parameters, steps=np.array([[1]]))
    with caller.busy_worker(executions=100 if times_out else 1):
        if times_out:
            code, text = refused_call(caller, message)
            assert code is Code.UNAVAILABLE
            assert "timeout" in text
        else:
            assert caller.infer(message).outputs[0].data == 1


def test_another_file_name_is_loaded(configured, models):
    folder = models / "row" / "2"
    folder.mkdir()
    (folder / "other.onnx").write_bytes((models / "fixed" / "1" / "model.onnx").read_bytes())
    told = configured("row", 'default_model_filename: "other.onnx"')
    assert told.default_model_filename == "other.onnx"
    assert list(told.input[0].dims) == [2, 3]


def test_a_label_file_that_is_there_is_named(configured, models):
    (models / "row" / "labels.txt").write_text("a\nb\n")
    told = configured("row", 'output { name: "y" label_filename: "labels.txt" }')
    assert told.output[0].label_filename == "labels.txt"


def test_parameters_are_told_beside_the_servers_own(configured):
    told = configured("row", 'parameters { key: "owner" value { string_value: "me" } }')
    parameters = {name: value.string_value for name, value in told.parameters.items()}
    assert parameters["owner"] == "me"
    assert parameters["max_message_bytes"]


def test_an_instance_may_use_other_threads_than_the_server_says(configured):
    text = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
    told = configured("row", text)
    assert told.parameters["intra_op_thread_count"].string_value == "1"


WARMUP = """
    model_warmup {
      name: "w" batch_size: 2 count: 3
      inputs { key: "%s" value { data_type: %s dims: [%s] %s: true } }
    }
"""


@pytest.mark.parametrize("data", ["zero_data", "random_data"])
@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("row", ("x", "TYPE_FP32", "2")),
        ("any", ("x", "TYPE_FP32", "5")),
        ("text", ("said", "TYPE_STRING", "")),
    ],
)
def test_a_model_is_warmed_up_and_then_serves(configured, caller, model, what, data):
    configured(model, WARMUP % (*what, data))
    # What made up inputs did is not what clients did.
    assert caller.statistics(model).execution_count == 0


def test_a_model_that_fails_when_warmed_up_does_not_serve(configured, caller):
    # No table has a row for nearly any number of 64 bits.
    said = refusal(configured, "pick", WARMUP % ("at", "TYPE_INT64", "", "random_data"))
    assert "model_warmup 'w'" in said
    assert refused_call(caller, caller.message("pick", at=np.array([1])))[0] is Code.UNAVAILABLE
    assert configured("pick", WARMUP % ("at", "TYPE_INT64", "", "zero_data"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"max_batch_size": 1, "frobnicate": 2}', "'frobnicate'"),
        ("[", "JSON"),
        ('{"max_batch_size": "x"}', "max_batch_size"),
    ],
)
def test_json_that_is_no_configuration_is_refused(text, word):
    with pytest.raises(LoadError, match=word) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_either_spelling_of_json_is_read():
    for text in ('{"maxBatchSize": 3}', '{"max_batch_size": 3}'):
        assert parse_json(text).max_batch_size == 3


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("", [20]),
        ("latest {}", [20]),
        ("latest { num_versions: 2 }", [20, 3]),
        ("latest { num_versions: 9 }", [20, 3, 1]),
        ("all {}", [20, 3, 1]),
        ("specific { versions: [1, 3, 4] }", [3, 1]),
        ("specific { versions: [4] }", []),
    ],
)
def test_a_version_policy_takes_versions_highest_first(policy, wanted):
    config = parse_text(f"version_policy {{ {policy} }}")
    assert check(config, "m") == []
    assert wanted_versions(config, [20, 3, 1]) == wanted
