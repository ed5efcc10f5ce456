import functools
import itertools
import threading

import grpc
import numpy as np
import pytest
from conftest import SLOW_STEPS
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from onnx import helper

from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.codec import decode_stream_response

CLASSES, FEATURES = 4, 8
STAGES = {
    *("decode_ns", "queue_ns", "assemble_ns", "compute_ns", "handover_ns"),
    *("batch_rows", "execution_provider"),
}
WINDOW_BYTES = 16 * 1024
ANY = ["batch", 2]

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def models(graphs):
    for version in (1, 3, 20):
        weights = from_seed(CLASSES, FEATURES, version)
        export(graphs.folder, "linear", weights, "float32", version, version=version)
    graphs.add_steps()
    graphs.add(
        "two",
        [
            helper.make_node("Add", ["a", "b"], ["total"]),
            helper.make_node("Mul", ["a", "b"], ["product"]),
        ],
        {"a": ("float64", ANY), "b": ("float64", ANY)},
        {"total": ("float64", ANY), "product": ("float64", ANY)},
    )
    graphs.add(
        "fixed",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", [2, 3])},
        {"y": ("float32", [2, 3])},
    )
    graphs.add(
        "scalar",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", [])},
        {"y": ("float32", [])},
    )
    for name, first in (("scaled", 1), ("scaled_rows", "batch")):
        graphs.add(
            name,
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            {"x": ("float32", [first, 2]), "factor": ("float32", [2])},
            {"y": ("float32", [first, 2])},
            {"factor": np.array([1, 10], np.float32)},
        )
    for name, dtype in (("bool", "bool"), ("text", "string"), ("small", "int8")):
        graphs.add(
            name,
            [helper.make_node("Identity", ["x"], ["y"])],
            {"x": (dtype, ANY)},
            {"y": (dtype, ANY)},
        )
    return graphs.folder


@pytest.fixture(scope="module", params=["grpcio", "native"])
def serve(serve, request):
    """Serve on either transport: what a client sees is the same."""
    return functools.partial(serve, transport=request.param)


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(models, group_rows=2, max_stream_bytes=WINDOW_BYTES, max_streams=3)


@pytest.fixture(scope="module")
def caller(call, server):
    return call(server.address)


def answer(response, name):
    (found,) = [tensor.data for tensor in response.outputs if tensor.name == name]
    return found


def reflected(caller):
    """Names of the services that reflection lists."""
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
    (listed,) = stub.ServerReflectionInfo(requests, timeout=10)
    return {service.name for service in listed.list_services_response.service}


def test_server_metadata_lists_the_statistics_extension(caller):
    told = caller.control("ServerMetadata")
    assert told.name == "argmax-serving"
    assert told.version
    assert {"statistics", "model_configuration", "parameters"} <= set(told.extensions)


def test_server_is_live_and_ready(caller):
    assert caller.control("ServerLive").live
    assert caller.control("ServerReady").ready
    assert caller.control("ModelReady", name="linear").ready
    assert caller.control("ModelReady", name="linear", version="020").ready


def test_the_newest_version_by_number_serves(caller):
    x = np.random.default_rng(0).standard_normal((6, FEATURES), np.float32)
    response = caller.infer(caller.message("linear", x=x))
    assert response.model_version == "20"
    labels = (x @ from_seed(CLASSES, FEATURES, 20).astype(np.float32).T).argmax(axis=1)
    np.testing.assert_array_equal(answer(response, "label"), labels)
    assert caller.infer(caller.message("linear", x=x, version="20")).model_version == "20"


def test_metadata_has_the_batch_axis_and_a_numeric_version(caller):
    told = caller.control("ModelMetadata", name="linear")
    assert (told.name, list(told.versions), told.platform) == (
        "linear",
        ["20"],
        "onnxruntime_onnx",
    )
    assert [(t.name, t.datatype, list(t.shape)) for t in told.inputs] == [
        ("x", "FP32", [-1, FEATURES])
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in told.outputs] == [
        ("label", "INT64", [-1]),
        ("scores", "FP32", [-1, CLASSES]),
    ]


def test_config_has_no_batch_axis_but_the_most_rows(caller):
    told = caller.control("ModelConfig", name="linear").config
    assert (told.name, told.max_batch_size, told.backend) == ("linear", 1024, "onnxruntime")
    assert [(t.name, t.data_type, list(t.dims)) for t in told.input] == [
        ("x", config_pb.TYPE_FP32, [FEATURES])
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in told.output] == [
        ("label", config_pb.TYPE_INT64, []),
        ("scores", config_pb.TYPE_FP32, [CLASSES]),
    ]
    assert list(told.dynamic_batching.preferred_batch_size) == [2]
    parameters = {name: value.string_value for name, value in told.parameters.items()}
    assert parameters["classes"] == str(CLASSES)
    assert parameters["max_message_bytes"] == str(128 * 2**20)
    assert len(parameters["weights_sha256"]) == 64


def test_statistics_count_requests_rows_and_executions(caller):
    before = caller.statistics("two")
    x = np.ones((2, 2))
    for _ in range(3):
        caller.infer(caller.message("two", a=x, b=x))
    with pytest.raises(grpc.RpcError):
        caller.infer(caller.message("two", a=x))
    after = caller.statistics("two")
    assert (after.name, after.version) == ("two", "1")
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count - before.execution_count == 3
    stats, old = after.inference_stats, before.inference_stats
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(stats, stage).count - getattr(old, stage).count == 3
    assert stats.fail.count - old.fail.count == 1
    assert stats.compute_infer.ns > old.compute_infer.ns
    assert stats.success.ns - old.success.ns >= stats.compute_infer.ns - old.compute_infer.ns
    assert after.last_inference > 1_600_000_000_000
    (batch,) = after.batch_stats
    assert (batch.batch_size, batch.compute_infer.count) == (2, after.execution_count)


def test_statistics_of_no_name_are_those_of_every_model(caller):
    told = caller.control("ModelStatistics").model_stats
    assert sorted(one.name for one in told) == sorted(
        [
            "linear",
            "steps",
            "two",
            "fixed",
            "scalar",
            "scaled",
            "scaled_rows",
            "bool",
            "text",
            "small",
        ]
    )


def test_several_inputs_and_outputs_keep_their_names_and_order(caller):
    a, b = np.arange(6.0).reshape(3, 2), np.full((3, 2), 10.0)
    # The inputs go by name, whatever their order in the message.
    response = caller.infer(caller.message("two", b=b, a=a))
    assert [tensor.name for tensor in response.outputs] == ["total", "product"]
    np.testing.assert_array_equal(answer(response, "total"), a + b)
    np.testing.assert_array_equal(answer(response, "product"), a * b)
    swapped = caller.infer(caller.message("two", outputs=["product", "total"], a=a, b=b))
    assert [tensor.name for tensor in swapped.outputs] == ["product", "total"]
    np.testing.assert_array_equal(answer(swapped, "product"), a * b)


def test_scores_come_only_when_asked_for(caller):
    x = np.random.default_rng(0).standard_normal((3, FEATURES), np.float32)
    response = caller.infer(caller.message("linear", outputs=["label"], x=x))
    assert [tensor.name for tensor in response.outputs] == ["label"]
    response = caller.infer(caller.message("linear", outputs=["scores"], x=x))
    scores = x @ from_seed(CLASSES, FEATURES, 20).astype(np.float32).T
    np.testing.assert_allclose(answer(response, "scores"), scores, rtol=1e-5)


def test_typed_contents_are_as_good_as_raw_ones(caller):
    message = pb.ModelInferRequest(model_name="two")
    for name, values in (("a", [1, 2]), ("b", [10, 20])):
        message.inputs.add(
            name=name,
            datatype="FP64",
            shape=[1, 2],
            contents=pb.InferTensorContents(fp64_contents=values),
        )
    response = caller.infer(message.SerializeToString())
    np.testing.assert_array_equal(answer(response, "total"), [[11, 22]])


@pytest.mark.parametrize(("model", "shape"), [("fixed", (2, 3)), ("scalar", ())])
def test_a_model_without_a_batch_axis_takes_exactly_its_shape(caller, model, shape):
    config = caller.control("ModelConfig", name=model).config
    assert config.max_batch_size == 0
    assert tuple(config.input[0].dims) == shape
    assert not config.HasField("dynamic_batching")
    assert tuple(caller.control("ModelMetadata", name=model).inputs[0].shape) == shape
    x = np.full(shape, 3, np.float32)
    response = caller.infer(caller.message(model, x=x))
    assert response.outputs[0].shape == shape
    np.testing.assert_array_equal(answer(response, "y"), -x)
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message(model, x=np.ones((3, 3), np.float32)))
    assert caught.value.code() is Code.INVALID_ARGUMENT


def test_a_constant_that_may_be_replaced_is_an_optional_input(caller):
    inputs = caller.control("ModelConfig", name="scaled").config.input
    assert {entry.name: entry.optional for entry in inputs} == {"x": False, "factor": True}
    listed = caller.control("ModelMetadata", name="scaled").inputs
    assert [entry.name for entry in listed] == ["x", "factor"]
    x, factor = np.ones((1, 2), np.float32), np.array([3, 4], np.float32)
    assert answer(caller.infer(caller.message("scaled", x=x)), "y").tolist() == [[1, 10]]
    response = caller.infer(caller.message("scaled", x=x, factor=factor))
    assert answer(response, "y").tolist() == [[3, 4]]
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message("scaled", factor=factor))
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert "takes ['x'], optionally also ['factor']" in caught.value.details()


def test_requests_that_may_share_a_batch_share_its_constants(caller):
    assert len(caller.control("ModelConfig", name="scaled_rows").config.input) == 1
    x, factor = np.ones((1, 2), np.float32), np.array([3, 4], np.float32)
    assert answer(caller.infer(caller.message("scaled_rows", x=x)), "y").tolist() == [[1, 10]]
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message("scaled_rows", x=x, factor=factor))
    assert caught.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("model", "x"),
    [
        ("bool", np.array([[True, False], [False, False], [True, True]])),
        ("small", np.array([[-128, 127], [0, -1]], np.int8)),
        ("steps", np.array([[3], [0], [1]])),
    ],
)
def test_booleans_and_integers_come_back_as_they_went(caller, model, x):
    name = "steps" if model == "steps" else "x"
    (output,) = caller.infer(caller.message(model, **{name: x})).outputs
    assert output.data.dtype == x.dtype
    np.testing.assert_array_equal(output.data, x)


def test_strings_come_back_as_they_went_alone_and_in_a_batch(caller):
    x = np.array([["", "a"], ["\u00e4\u00f6\u00fc \U0001f600", "x" * 1000]], np.object_)
    messages = [caller.message("text", x=x[:1]), caller.message("text", x=x[1:])]
    for row, (text, response) in zip(x, caller.stream(messages), strict=True):
        assert text == ""
        assert [word.decode() for word in response.outputs[0].data[0]] == list(row)


def test_unix_socket_serves(serve, call, models, tmp_path):
    server = serve(models, address=f"unix:{tmp_path}/socket")
    assert server.address == f"unix:{tmp_path}/socket"
    caller = call(server.address)
    response = caller.infer(caller.message("scalar", x=np.float32(2).reshape(())))
    assert answer(response, "y") == -2
    assert "inference.GRPCInferenceService" in reflected(caller)


def test_reflection_is_on_for_loopback(caller):
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= reflected(caller)


@pytest.mark.parametrize(
    "options", [{"reflection": False}, {"address": "0.0.0.0:0"}], ids=["off", "not loopback"]
)
def test_reflection_is_off_where_it_should_be(serve, call, models, options):
    address = serve(models, **options).address
    with pytest.raises(grpc.RpcError) as caught:
        reflected(call(address.replace("0.0.0.0", "127.0.0.1")))
    assert caught.value.code() is Code.UNIMPLEMENTED


def test_reflection_is_on_where_it_is_asked_for(serve, call, models):
    port = serve(models, address="0.0.0.0:0", reflection=True).address.rpartition(":")[2]
    assert "inference.GRPCInferenceService" in reflected(call(f"127.0.0.1:{port}"))


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_health_is_serving(caller, service):
    assert caller.health(service) == "SERVING"


def test_health_of_another_service_is_not_found(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.health("coffee")
    assert caught.value.code() is Code.NOT_FOUND


def test_timings_come_with_either_rpc_when_asked_for(caller):
    x = np.ones((2, 1), np.int64)
    message = caller.message("steps", id="t", parameters={"timings": True}, steps=x * 10_000)
    ((_, streamed),) = caller.stream([message])
    for response in (caller.infer(message), streamed):
        told = {name: response.parameters[name] for name in STAGES}
        assert told["execution_provider"] == "CPUExecutionProvider"
        assert told["batch_rows"] == 2
        assert told["compute_ns"] > 100_000
        assert all(
            told[name] >= 0 for name in ("decode_ns", "queue_ns", "assemble_ns", "handover_ns")
        )
    for off in (None, {"timings": False}):
        response = caller.infer(caller.message("steps", parameters=off, steps=x))
        assert not STAGES & set(response.parameters)


def test_queue_time_is_told_and_counted(caller):
    before = caller.statistics("steps").inference_stats.queue
    message = caller.message("steps", parameters={"timings": True}, steps=np.array([[1]]))
    with caller.busy_worker(executions=2):
        queue_ns = caller.infer(message).parameters["queue_ns"]
    after = caller.statistics("steps").inference_stats.queue
    assert queue_ns > 1_000_000
    assert after.count - before.count >= 1
    assert after.ns - before.ns >= queue_ns


def test_batch_rows_tell_of_requests_that_ran_together(caller):
    x = np.array([[1]])
    messages = [caller.message("steps", parameters={"timings": True}, steps=x) for _ in range(2)]
    with caller.busy_worker(executions=1):
        answers = caller.stream(messages)
    assert [response.parameters["batch_rows"] for _, response in answers] == [2, 2]


def test_ids_are_echoed(caller):
    x = np.float32(1).reshape(())
    for one in ("", "7", "\u00e4" * 50):
        assert caller.infer(caller.message("scalar", id=one, x=x)).id == one


def test_answers_on_a_stream_come_in_order_and_say_that_they_are_final(caller):
    messages = []
    for number in range(100):
        x = np.array([[number]] * (1 + number % 7))
        messages.append(caller.message("steps", id=str(number), steps=x))
    answers = caller.stream(messages)
    assert [response.id for _, response in answers] == [str(n) for n in range(100)]
    for number, (text, response) in enumerate(answers):
        assert text == ""
        assert response.parameters["triton_final_response"] is True
        np.testing.assert_array_equal(
            response.outputs[0].data, [[number]] * (1 + number % 7), strict=True
        )


def test_a_unary_answer_does_not_say_that_it_is_final(caller):
    response = caller.infer(caller.message("scalar", x=np.float32(1).reshape(())))
    assert "triton_final_response" not in response.parameters


def test_models_take_turns_on_one_stream(caller):
    x = np.float32(5).reshape(())
    flags = np.array([[True, False]])
    messages = [caller.message("scalar", x=x), caller.message("bool", x=flags)] * 5
    answers = [response.model_name for _, response in caller.stream(messages)]
    assert answers == ["scalar", "bool"] * 5


def test_the_parameter_that_asks_for_empty_final_responses_is_accepted(caller):
    wish = {"triton_enable_empty_final_response": True}
    message = caller.message("scalar", parameters=wish, x=np.float32(1).reshape(()))
    ((text, _),) = caller.stream([message])
    assert text == ""


def test_messages_larger_than_the_read_ahead_window_pass(caller):
    rows = 2 * WINDOW_BYTES // 8
    many = np.arange(rows * 2, dtype=np.int8).reshape(-1, 2)[:1000]
    padding = {"note": "n" * 2 * WINDOW_BYTES}
    message = caller.message("small", parameters=padding, x=many)
    assert len(message) > 2 * WINDOW_BYTES
    answers = caller.stream([message] * 4)
    assert len(answers) == 4
    for text, response in answers:
        assert text == ""
        np.testing.assert_array_equal(response.outputs[0].data, many)


def test_a_stream_without_messages_ends_well(caller):
    assert caller.stream([]) == []


def test_an_idle_stream_is_ended_with_deadline_exceeded(serve, call, models):
    caller = call(serve(models, stream_idle_s=1).address)
    silence = threading.Event()

    def messages():
        yield caller.message("scalar", x=np.float32(1).reshape(()))
        silence.wait(30)

    answers = caller.open_stream(messages())
    try:
        assert decode_stream_response(next(answers))[1].outputs[0].data == -1
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
    finally:
        silence.set()
    assert caught.value.code() is Code.DEADLINE_EXCEEDED
    assert "1 s" in caught.value.details()


def test_a_stream_whose_model_takes_longer_than_the_idle_limit_is_not_idle(serve, call, models):
    caller = call(serve(models, group_rows=2, stream_idle_s=0.5).address)
    slow = np.full((2, 1), 6 * SLOW_STEPS)
    messages = [caller.message("steps", steps=slow)] * 2
    assert [text for text, _ in caller.stream(messages)] == ["", ""]


def test_streams_over_the_limit_are_refused_while_the_others_go_on(serve, call, models, eventually):
    address = serve(models, max_streams=3, workers=1).address
    caller, another = call(address), call(address)
    enough = threading.Event()
    message = caller.message("scalar", x=np.float32(1).reshape(()))

    def messages():
        yield message
        enough.wait(30)
        yield message

    streams = [caller.open_stream(messages()) for _ in range(3)]
    try:
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            another.stream([message])
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert "3 streams" in caught.value.details()
        assert another.health() == "SERVING"
        assert another.infer(message).outputs[0].data == -1
    finally:
        enough.set()
    for stream in streams:
        assert len(list(stream)) == 1
    # Their places are free again.
    eventually(lambda: _passes(another, message), "a stream is let in again")


def _passes(caller, message):
    try:
        return len(caller.stream(itertools.repeat(message, 2))) == 2
    except grpc.RpcError as error:
        if error.code() is not Code.RESOURCE_EXHAUSTED:
            raise
        return False


def test_health_and_control_answer_while_every_thread_waits_for_the_model(serve, call, models):
    address = serve(models, group_rows=2, workers=1, max_streams=1).address
    # One connection may only have as many calls open as there are threads.
    crowds, caller = [call(address) for _ in range(4)], call(address)
    message = caller.message("steps", steps=np.array([[1]]))
    with caller.busy_worker():
        waiting = [crowd.infer_later(message) for crowd in crowds for _ in range(2)]
        for _ in range(3):
            assert caller.health() == "SERVING"
            assert caller.control("ServerReady").ready
            assert caller.statistics("steps").name == "steps"
        assert not any(one.done() for one in waiting)
    for one in waiting:
        one.result()
