import logging
import threading
from collections import Counter

import grpc
import numpy as np
import pytest
from conftest import ROWS_MAY_MIX
from onnx import helper

from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.codec import decode_stream_response
from server import errors
from server.rpc import status

CLASSES, FEATURES, MOST_ROWS = 4, 8, 512
MESSAGE_BYTES, BUDGET_BYTES = 64 * 1024, 32 * 1024
GARBAGE = b"\xff\xff\xff\xff"
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
MODEL_RPCS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
REPOSITORY_RPCS = ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
SERVED = (
    *("ServerLive", "ServerReady", "ServerMetadata", *MODEL_RPCS, "ModelInfer"),
    *(m.name for m in DESCRIPTOR.methods if m.name.endswith(("Register", "Unregister", "Status"))),
    *("TraceSetting", "LogSettings", *REPOSITORY_RPCS),
)

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    row = ("float32", ["batch", 2])
    graphs.add(
        "sum",
        [helper.make_node("Add", ["a", "b"], ["total"])],
        {"a": row, "b": row},
        {"total": row},
    )
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
    # It says that its batch axis is free, and then gives one row whatever came.
    graphs.add(
        "liar",
        [helper.make_node("Slice", ["x", "zero", "one", "zero"], ["y"])],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["other", 2])},
        {"zero": np.array([0]), "one": np.array([1])},
    )
    (graphs.folder / "liar" / "config.pbtxt").write_text(ROWS_MAY_MIX)
    return graphs.folder


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(
        models,
        group_rows=2,
        max_batch_rows=MOST_ROWS,
        max_message_bytes=MESSAGE_BYTES,
        max_inflight_bytes=BUDGET_BYTES,
        shared_memory=False,
    )


@pytest.fixture(scope="module")
def caller(call, server):
    return call(server.address)


@pytest.fixture(scope="module")
def canary(caller):
    x = np.random.default_rng(1).standard_normal((5, FEATURES), np.float32)
    labels = (x @ from_seed(CLASSES, FEATURES, 0).astype(np.float32).T).argmax(axis=1)
    message = caller.message("linear", outputs=["label"], id="canary", x=x)
    assert len(set(labels)) > 1

    def check(response):
        (label,) = response.outputs
        assert (response.id, label.name) == ("canary", "label")
        np.testing.assert_array_equal(label.data, labels)

    check.message = message
    return check


@pytest.fixture(autouse=True)
def _still_serves(caller, canary):
    yield
    canary(caller.infer(canary.message))
    assert caller.health() == "SERVING"


@pytest.fixture(params=["unary", "stream", "stream that ends"])
def refused(request, caller, canary):
    """Check how a message is refused: alone, on a stream, on a stream that errors end."""

    def unary(message, code):
        with pytest.raises(grpc.RpcError) as caught:
            caller.raw("ModelInfer", message)
        assert caught.value.code() is code
        return caught.value.details()

    def stream(message, code):
        bad, good = caller.stream([message, canary.message])
        text, response = bad
        assert text
        assert response.id == _id(message)
        assert response.outputs == ()
        assert good[0] == ""
        canary(good[1])
        return text

    def stream_that_ends(message, code):
        answers = caller.open_stream(
            iter([canary.message, message, canary.message]), errors_end_it=True
        )
        text, response = decode_stream_response(next(answers))
        assert text == ""
        canary(response)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is code
        return caught.value.details()

    way = {"unary": unary, "stream": stream, "stream that ends": stream_that_ends}[request.param]

    def check(message, code, *words):
        data = message if isinstance(message, bytes) else message.SerializeToString()
        text = way(data, code)
        for word in words:
            assert word in text

    return check


def _id(message):
    try:
        return pb.ModelInferRequest.FromString(message).id
    except Exception:
        return ""


def linear(**changes):
    """Return a good request for model `linear`, but for what is changed of its tensor `x`."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, FEATURES]} | changes
    raw = tensor.pop("raw", bytes(4 * 2 * FEATURES))
    message = pb.ModelInferRequest(model_name="linear", id="seven")
    message.inputs.add(**tensor)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def with_parameter(name, **value):
    message = linear()
    if value:
        ((field, content),) = value.items()
        setattr(message.parameters[name], field, content)
    else:
        message.parameters[name].SetInParent()
    return message


def test_the_request_that_the_others_spoil_is_fine(caller):
    assert caller.infer(linear().SerializeToString()).id == "seven"


@pytest.mark.parametrize("name", ["../linear", "/etc", "linear/1", "..", ""])
def test_a_path_is_the_name_of_no_model(refused, name):
    message = linear()
    message.model_name = name
    refused(message, Code.NOT_FOUND, f"model {name!r} does not exist")


def test_unknown_model_is_not_found(refused):
    message = linear()
    message.model_name = "nobody"
    refused(message, Code.NOT_FOUND, "'nobody'", "'linear'")


def test_unknown_version_is_not_found(refused):
    message = linear()
    message.model_version = "9"
    refused(message, Code.NOT_FOUND, "'linear'", "9")


@pytest.mark.parametrize("version", ["-1", "1.0", "one", "\u0661"])
def test_version_that_is_no_integer_is_invalid_argument(refused, version):
    message = linear()
    message.model_version = version
    refused(message, Code.INVALID_ARGUMENT, repr(version))


def test_version_of_thousands_of_digits_is_not_found(refused):
    message = linear()
    message.model_version = "9" * 5000
    refused(message, Code.NOT_FOUND, "no version 999")


@pytest.mark.parametrize("letter", ["n", "\u0100", "\U0001f600"])
def test_a_text_that_quotes_a_very_long_name_still_reaches_the_client(refused, letter):
    message = linear()
    message.model_name = letter * 7_000
    refused(message, Code.NOT_FOUND, letter * 100)


def test_malformed_message_is_invalid_argument(refused):
    refused(GARBAGE, Code.INVALID_ARGUMENT, "malformed")


def test_truncated_message_is_invalid_argument(refused):
    refused(linear().SerializeToString()[:-1], Code.INVALID_ARGUMENT, "malformed")


def test_wrong_input_name_is_invalid_argument(refused):
    refused(linear(name="z"), Code.INVALID_ARGUMENT, "'z'", "'x'")


def test_no_input_is_invalid_argument(refused):
    message = pb.ModelInferRequest(model_name="linear", id="seven")
    refused(message, Code.INVALID_ARGUMENT, "'x'")


def test_missing_input_is_invalid_argument(refused, caller):
    message = caller.message("sum", id="m", a=np.ones((1, 2), np.float32))
    refused(message, Code.INVALID_ARGUMENT, "['a']", "['a', 'b']")


def test_surplus_input_is_invalid_argument(refused, caller):
    x = np.ones((1, FEATURES), np.float32)
    refused(caller.message("linear", id="s", x=x, y=x), Code.INVALID_ARGUMENT, "['x', 'y']")


@pytest.mark.parametrize(("model", "name"), [("linear", "x"), ("sum", "a")])
def test_duplicate_input_is_invalid_argument(refused, model, name):
    message = pb.ModelInferRequest(model_name=model, id="twice")
    width = FEATURES if model == "linear" else 2
    for _ in range(2):
        message.inputs.add(name=name, datatype="FP32", shape=[1, width])
        message.raw_input_contents.append(bytes(4 * width))
    refused(message, Code.INVALID_ARGUMENT, f"['{name}', '{name}']")


def test_inputs_of_different_row_counts_are_invalid_argument(refused, caller):
    a, b = np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)
    refused(caller.message("sum", id="d", a=a, b=b), Code.INVALID_ARGUMENT, "1", "3")


def test_wrong_dtype_is_invalid_argument(refused):
    message = linear(datatype="FP64", raw=bytes(8 * 2 * FEATURES))
    refused(message, Code.INVALID_ARGUMENT, "FP64", "FP32")


@pytest.mark.parametrize("datatype", ["", "float", "FP8"])
def test_unknown_datatype_is_invalid_argument(refused, datatype):
    refused(linear(datatype=datatype), Code.INVALID_ARGUMENT, repr(datatype))


@pytest.mark.parametrize(
    "shape", [[2 * FEATURES], [], [1, 2, FEATURES], [FEATURES, 2], [1, 2 * FEATURES]]
)
def test_wrong_shape_is_invalid_argument(refused, shape):
    message = linear(shape=shape, raw=bytes(4 * int(np.prod(shape))))
    refused(message, Code.INVALID_ARGUMENT, str(shape), f"[-1, {FEATURES}]")


@pytest.mark.parametrize("off", [-4, -1, 1, 4])
def test_wrong_byte_count_is_invalid_argument(refused, off):
    wanted = 4 * 2 * FEATURES
    message = linear(raw=bytes(wanted + off))
    refused(message, Code.INVALID_ARGUMENT, str(wanted + off), str(wanted))


def test_wrong_element_count_is_invalid_argument(refused):
    contents = pb.InferTensorContents(fp32_contents=[0.0] * 3)
    refused(linear(contents=contents, raw=None), Code.INVALID_ARGUMENT, "3", "16")


def test_batch_of_no_rows_is_invalid_argument(refused):
    refused(linear(shape=[0, FEATURES], raw=b""), Code.INVALID_ARGUMENT, "0 rows")


def test_batch_over_the_most_rows_is_invalid_argument(refused):
    rows = MOST_ROWS + 1
    message = linear(shape=[rows, FEATURES], raw=bytes(4 * rows * FEATURES))
    refused(message, Code.INVALID_ARGUMENT, str(rows), str(MOST_ROWS))


def test_raw_and_typed_contents_together_are_invalid_argument(refused):
    contents = pb.InferTensorContents(fp32_contents=[0.0] * 2 * FEATURES)
    refused(linear(contents=contents), Code.INVALID_ARGUMENT, "typed", "raw")


def test_no_data_is_invalid_argument(refused):
    refused(linear(raw=None), Code.INVALID_ARGUMENT, "0 elements", "16")


def test_more_raw_contents_than_inputs_is_invalid_argument(refused):
    message = linear()
    message.raw_input_contents.append(b"")
    refused(message, Code.INVALID_ARGUMENT, "2 raw contents", "1 input")


def test_unknown_output_is_invalid_argument(refused):
    message = linear()
    message.outputs.add(name="colour")
    refused(message, Code.INVALID_ARGUMENT, "'colour'", "'label'")


def test_duplicate_outputs_are_invalid_argument(refused):
    message = linear()
    message.outputs.add(name="label")
    message.outputs.add(name="label")
    refused(message, Code.INVALID_ARGUMENT, "['label', 'label']")


@pytest.mark.parametrize(
    "shape",
    [[2**62, 4], [2**62, 4, 0], [0, 2**62, 2**62], [2**31, 2**31, 2**31], [2**63 - 1], [1] * 65],
)
@pytest.mark.parametrize("raw", [b"", b"1234"])
def test_overflowing_dims_are_invalid_argument(refused, shape, raw):
    refused(linear(shape=shape, raw=raw), Code.INVALID_ARGUMENT, "'x'")


@pytest.mark.parametrize("shape", [[-1, FEATURES], [-2, -FEATURES], [2, -(2**63)]])
def test_negative_dims_are_invalid_argument(refused, shape):
    refused(linear(shape=shape), Code.INVALID_ARGUMENT, str(shape), "negative")


def test_strings_that_are_no_utf8_are_invalid_argument(refused, caller):
    said = np.array([b"good", b"\xff"], np.object_)
    refused(caller.message("text", id="t", said=said), Code.INVALID_ARGUMENT, "UTF-8")


def test_reserved_parameter_is_invalid_argument(refused):
    refused(with_parameter("triton_secret", bool_param=True), Code.INVALID_ARGUMENT, "triton_")


@pytest.mark.parametrize("field", ["bool_param", "string_param", "double_param"])
def test_timeout_of_another_type_is_invalid_argument(refused, field):
    value = {"bool_param": True, "string_param": "1", "double_param": 1.5}[field]
    message = with_parameter("timeout", **{field: value})
    refused(message, Code.INVALID_ARGUMENT, "'timeout'", repr(value), "microseconds")


def test_negative_timeout_is_invalid_argument(refused):
    refused(with_parameter("timeout", int64_param=-1), Code.INVALID_ARGUMENT, "-1")


@pytest.mark.parametrize("name", ["timings", "more_follows"])
def test_switch_of_another_type_is_invalid_argument(refused, name):
    refused(with_parameter(name, int64_param=1), Code.INVALID_ARGUMENT, repr(name), "boolean")


def test_parameter_without_a_value_is_invalid_argument(refused):
    refused(with_parameter("timeout"), Code.INVALID_ARGUMENT, "'timeout'")


def test_request_over_the_whole_byte_budget_is_resource_exhausted(refused):
    message = with_parameter("note", string_param="n" * BUDGET_BYTES)
    assert BUDGET_BYTES < message.ByteSize() < MESSAGE_BYTES
    refused(message, Code.RESOURCE_EXHAUSTED, str(BUDGET_BYTES))


def test_shared_memory_that_is_switched_off_is_unimplemented(refused):
    message = linear(raw=None)
    parameters = message.inputs[0].parameters
    parameters["shared_memory_region"].string_param = "mine"
    parameters["shared_memory_byte_size"].int64_param = 4 * 2 * FEATURES
    refused(message, Code.UNIMPLEMENTED, "shared memory")


def test_inputs_that_the_graph_itself_refuses_are_invalid_argument(refused, caller):
    refused(caller.message("pick", id="p", at=np.array([99])), Code.INVALID_ARGUMENT)


def test_a_model_lives_on_after_it_failed_in_the_midst_of_a_large_request(caller):
    at = np.zeros(100, np.int64)
    at[0] = 99
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message("pick", at=at))
    assert caught.value.code() is Code.INVALID_ARGUMENT
    answer = caller.infer(caller.message("pick", at=np.array([3])))
    np.testing.assert_array_equal(answer.outputs[0].data, [30])


def test_a_model_that_gives_the_wrong_number_of_rows_is_internal(refused, caller):
    message = caller.message("liar", id="l", x=np.ones((3, 2), np.float32))
    refused(message, Code.INTERNAL, "one row each")


@pytest.mark.parametrize("method", MODEL_RPCS)
def test_control_rpcs_answer_an_unknown_model_with_not_found(caller, method):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control(method, name="nobody")
    assert caught.value.code() is Code.NOT_FOUND
    assert "'nobody'" in caught.value.details()


@pytest.mark.parametrize("method", MODEL_RPCS)
@pytest.mark.parametrize(("version", "code"), [("9", Code.NOT_FOUND), ("x", Code.INVALID_ARGUMENT)])
def test_control_rpcs_check_the_version(caller, method, version, code):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control(method, name="linear", version=version)
    assert caught.value.code() is code
    assert version in caught.value.details()


def test_statistics_of_a_version_without_a_model_are_invalid_argument(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("ModelStatistics", version="1")
    assert caught.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "method", [m.name for m in DESCRIPTOR.methods if not m.name.startswith("ModelStream")]
)
def test_garbage_is_invalid_argument_to_every_rpc(caller, method):
    with pytest.raises(grpc.RpcError) as caught:
        caller.raw(method, GARBAGE)
    allowed = {Code.INVALID_ARGUMENT} | (set() if method in SERVED else {Code.UNIMPLEMENTED})
    assert caught.value.code() in allowed


def test_unknown_rpc_is_unimplemented(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.raw("MakeCoffee", b"")
    assert caught.value.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_a_call_without_a_message_is_unimplemented(caller, method):
    call = caller.channel.stream_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(iter([]), timeout=20)
    assert caught.value.code() is Code.UNIMPLEMENTED


def test_message_over_the_limit_is_resource_exhausted(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.raw("ModelInfer", bytes(MESSAGE_BYTES + 1))
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("large", [(40, 1024), (1, 40 * 1024)])
def test_metadata_over_the_limit_is_resource_exhausted(caller, large):
    count, size = large
    metadata = [(f"k{number}", "v" * size) for number in range(count)]
    live = caller.channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
    with pytest.raises(grpc.RpcError) as caught:
        live(b"", timeout=20, metadata=metadata)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


def test_message_over_the_limit_ends_a_stream_with_resource_exhausted(caller, canary):
    answered = threading.Event()

    def messages():
        yield canary.message
        answered.wait(10)
        yield bytes(MESSAGE_BYTES + 1)

    answers = caller.open_stream(messages())
    canary(decode_stream_response(next(answers))[1])
    answered.set()
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


def runs_of_one_row(caller):
    """Count the executions of model `steps` that had one row."""
    return sum(
        batch.compute_infer.count
        for batch in caller.statistics("steps").batch_stats
        if batch.batch_size == 1
    )


def failures(caller):
    return caller.statistics("steps").inference_stats.fail.count


ONE_STEP = np.array([[1]])


def test_deadline_that_passes_before_compute_is_deadline_exceeded_and_runs_nothing(
    caller, eventually
):
    ran, failed = runs_of_one_row(caller), failures(caller)
    with caller.busy_worker():
        with pytest.raises(grpc.RpcError) as caught:
            caller.infer(caller.message("steps", steps=ONE_STEP), timeout=1)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        # The server gave it up by its own clock, while the worker was held.
        eventually(lambda: failures(caller) == failed + 1, "the server gives the request up")
    eventually(lambda: failures(caller) == failed + 2, "the worker is free again")
    caller.infer(caller.message("steps", steps=np.array([[1], [1]])))
    assert runs_of_one_row(caller) == ran


def test_deadline_of_a_stream_ends_it_with_deadline_exceeded_and_runs_nothing(caller, eventually):
    ran, failed = runs_of_one_row(caller), failures(caller)
    with caller.busy_worker():
        message = caller.message("steps", steps=ONE_STEP)
        with pytest.raises(grpc.RpcError) as caught:
            caller.stream([message], errors_end_it=True, timeout=1)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
    eventually(lambda: failures(caller) > failed, "the worker is free again")
    caller.infer(caller.message("steps", steps=np.array([[1], [1]])))
    assert runs_of_one_row(caller) == ran


def test_timeout_that_passes_in_the_queue_is_unavailable_and_runs_nothing(refused, caller):
    ran = runs_of_one_row(caller)
    message = caller.message("steps", id="t", parameters={"timeout": 1000}, steps=ONE_STEP)
    with caller.busy_worker():
        refused(message, Code.UNAVAILABLE, "timeout")
    assert runs_of_one_row(caller) == ran


def test_timeout_that_is_long_enough_changes_nothing(caller):
    message = caller.message("steps", parameters={"timeout": 60_000_000}, steps=ONE_STEP)
    with caller.busy_worker(executions=1):
        answer = caller.infer(message)
    np.testing.assert_array_equal(answer.outputs[0].data, [[1]])


def test_cancelled_requests_give_their_bytes_back_and_run_nothing(caller, eventually):
    ran, failed = runs_of_one_row(caller), failures(caller)
    # Two of them do not fit into the budget beside the request that holds the worker.
    padding = {"note": "n" * (BUDGET_BYTES // 8)}
    message = caller.message("steps", parameters=padding, steps=ONE_STEP)

    def three_were_given_up():
        request = caller.infer_later(message)
        caller.control("ServerLive")
        request.cancel()
        return failures(caller) >= failed + 3

    with caller.busy_worker():
        eventually(three_were_given_up, "cancelled requests are given up")
    caller.infer(caller.message("steps", steps=np.array([[1], [1]])))
    assert runs_of_one_row(caller) == ran


def test_cancelled_stream_runs_nothing_that_was_queued(caller, eventually):
    ran = runs_of_one_row(caller)
    read = threading.Event()

    def messages():
        for _ in range(5):
            yield caller.message("steps", steps=ONE_STEP)
        read.set()
        yield from iter(threading.Event().wait, None)

    with caller.busy_worker():
        answers = caller.open_stream(messages())
        assert read.wait(10)
        answers.cancel()
        # A stream takes a thread, and this one gave its thread back.
        caller.stream([caller.message("pick", at=np.array([1]))])
    answer = caller.infer(caller.message("steps", steps=np.array([[2], [1]])))
    np.testing.assert_array_equal(answer.outputs[0].data, [[2], [1]])
    assert runs_of_one_row(caller) == ran


def test_unforeseen_error_is_internal_with_a_fixed_text(caplog):
    with caplog.at_level(logging.ERROR):
        assert status.of(RuntimeError("a secret")) == (Code.INTERNAL, "internal error")
    (record,) = caplog.records
    assert "a secret" in str(record.exc_info[1])


def test_every_error_of_the_service_has_a_code_of_its_own():
    foreseen = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ServingError)
    ]
    at_start = {errors.ServingError, errors.StartError}
    codes = Counter(status.of(kind("why"))[1] for kind in foreseen if kind not in at_start)
    assert codes == {"why": len(foreseen) - len(at_start)}


def test_a_long_text_is_cut_where_clients_would_drop_it():
    whole, cut = "x" * 600, "x" * 597 + "..."
    for length, expected in ((600, whole), (601, cut), (100_000, cut)):
        assert status.of(errors.InvalidInput("x" * length)) == (Code.INVALID_ARGUMENT, expected)
