"""Put tritonclient through status_rows: `python tritonclient_refusals.py MAIN CLOSED STOPPING`.

Reports code and text of each refusal; on a stream that goes on after it, also the next labels.
"""

import queue
import sys
import uuid
from functools import partial

import grpc
import numpy as np
import tritonclient.grpc as triton
from script_report import report
from status_rows import (
    CALLS,
    CANCELLED_ROWS,
    CANCELLED_STREAM_ROWS,
    FEATURES,
    LATE_ROWS,
    MESSAGE_BYTES,
    REQUESTS,
    SLOW_ROWS,
    SLOW_STEPS,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import shared_memory as shm
from tritonclient.utils import triton_to_np_dtype

TIMEOUT_S = 20
REGION_BYTES = 4 * 2 * FEATURES
KEY = f"/argmax-test-{uuid.uuid4().hex}"
GARBAGE = b"\xff\xff\xff\xff"
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2, FEATURES], "elements": 2 * FEATURES}
STEPS = {"name": "steps", "datatype": "INT64", "shape": [1, 1], "elements": 1}


def request(spec):
    """Arguments of `infer` and of `async_stream_infer`."""
    spec = {**TENSOR, **(STEPS if spec.get("model_name") == "steps" else {}), **spec}
    options = ("model_version", "parameters", "timeout")
    return {
        "model_name": spec.get("model_name", "linear"),
        "inputs": [tensor(spec)] * spec.get("copies", 1),
        "outputs": outputs(spec),
        **{name: spec[name] for name in options if name in spec},
    }


def tensor(spec):
    given = triton.InferInput(spec["name"], [spec["elements"] or 0], spec["datatype"])
    if "region" in spec:
        size = spec.get("byte_size", REGION_BYTES)
        given.set_shared_memory(spec["region"], size, spec.get("offset", 0))
    elif spec["elements"] is not None:
        dtype = triton_to_np_dtype(spec["datatype"])
        given.set_data_from_numpy(np.full(spec["elements"], spec.get("fill", 0), dtype))
    return given.set_shape(spec["shape"])


def outputs(spec):
    if "output_region" in spec:
        label = triton.InferRequestedOutput("label")
        label.set_shared_memory(spec["output_region"], REGION_BYTES, spec.get("offset", 0))
        return [label]
    return [triton.InferRequestedOutput(name) for name in spec.get("outputs", [])] or None


def unary(clients, spec):
    return refused(lambda: clients[spec.get("server", "main")].infer(**request(spec)))


def stream(clients, spec):
    """The refusal, then the labels of a good request on the same stream."""
    client = clients[spec.get("server", "main")]
    answers = open_stream(client)
    try:
        client.async_stream_infer(**request(spec))
        _, error = answers.get(timeout=TIMEOUT_S)
        client.async_stream_infer(**request({}))
        result, _ = answers.get(timeout=TIMEOUT_S)
    finally:
        client.stop_stream()
    after = result.as_numpy("label").tolist()
    return {"code": error.status(), "text": error.message(), "then": after}


def stream_that_ends(clients, spec):
    client = clients[spec.get("server", "main")]
    answers = open_stream(client, headers={"triton_grpc_error": "true"})
    try:
        client.async_stream_infer(**request(spec))
        _, error = answers.get(timeout=TIMEOUT_S)
    finally:
        client.stop_stream()
    return {"code": error.status(), "text": error.message()}


def open_stream(client, **options):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), **options)
    return answers


def refused(call):
    """Code and text of the error that a call raises."""
    try:
        call()
    except triton.InferenceServerException as error:
        return {"code": error.status(), "text": error.message()}
    except grpc.RpcError as error:
        return {"code": str(error.code()), "text": error.details()}
    raise AssertionError("it was not refused")


# Calls beyond plain requests, by their names in status_rows.


def deadline(client):
    # Clients take turns, so it is a request of its own that the late one has to wait for.
    first = {"model_name": "steps", "shape": [SLOW_ROWS, 1], "elements": SLOW_ROWS}
    slow = request({**first, "fill": SLOW_STEPS})
    late = request({"model_name": "steps", "shape": [LATE_ROWS, 1], "elements": LATE_ROWS})
    call = client.async_infer(**slow, callback=lambda result, error: None)
    client.infer(**request({}))  # once this is answered, the other has come to the server
    try:
        return refused(lambda: client.infer(**late, client_timeout=0.2))
    finally:
        call.cancel()


def cancelled(client):
    answers = queue.Queue()
    rows = CANCELLED_ROWS
    spec = request({"model_name": "steps", "shape": [rows, 1], "elements": rows})
    call = client.async_infer(**spec, callback=lambda result, error: answers.put(error))
    client.infer(**request({}))  # once this is answered, the other has come to the server
    call.cancel()
    error = answers.get(timeout=TIMEOUT_S)
    return {"code": error.status(), "text": error.message()}


def cancelled_stream(client):
    answers = open_stream(client)
    client.async_stream_infer(**request({}))
    result, error = answers.get(timeout=TIMEOUT_S)
    assert error is None, error
    rows = CANCELLED_STREAM_ROWS
    client.async_stream_infer(
        **request({"model_name": "steps", "shape": [rows, 1], "elements": rows})
    )
    client.infer(**request({}))
    client.stop_stream(cancel_requests=True)
    result, error = answers.get(timeout=TIMEOUT_S)
    assert result is None
    return {"code": error.status(), "text": error.message()}


def typed_beside_raw(stub):
    contents = service_pb2.InferTensorContents(fp32_contents=[0.0] * 2 * FEATURES)
    return refused(lambda: stub.ModelInfer(message(contents=contents), timeout=TIMEOUT_S))


def surplus_raw(stub):
    surplus = message()
    surplus.raw_input_contents.append(b"")
    return refused(lambda: stub.ModelInfer(surplus, timeout=TIMEOUT_S))


def message(**changes):
    built = service_pb2.ModelInferRequest(model_name="linear")
    built.inputs.add(name="x", datatype="FP32", shape=[2, FEATURES], **changes)
    built.raw_input_contents.append(bytes(REGION_BYTES))
    return built


def reserved_parameter(stub):
    # tritonclient itself refuses to send one.
    marked = message()
    marked.parameters["triton_secret"].bool_param = True
    return refused(lambda: stub.ModelInfer(marked, timeout=TIMEOUT_S))


def stream_while_stopping(client):
    answers = open_stream(client)
    _, error = answers.get(timeout=TIMEOUT_S)
    client.stop_stream()
    return {"code": error.status(), "text": error.message()}


def over_the_limit_on_a_stream(client):
    answers = open_stream(client)
    client.async_stream_infer(**request({}))
    _, error = answers.get(timeout=TIMEOUT_S)
    assert error is None, error
    client.async_stream_infer(**request(LARGE))
    _, error = answers.get(timeout=TIMEOUT_S)
    client.stop_stream()
    return {"code": error.status(), "text": error.message()}


LARGE = {"elements": MESSAGE_BYTES // 4 + 1}


def calls(clients, channel):
    main, closed, stopping = clients["main"], clients["closed"], clients["stopping"]
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    prefix = "/inference.GRPCInferenceService/"
    register = main.register_system_shared_memory
    attempts = {
        "readiness of an unknown model": lambda: main.is_model_ready("nobody"),
        "readiness of an unknown version": lambda: main.is_model_ready("linear", "9"),
        "readiness of no version": lambda: main.is_model_ready("linear", "one"),
        "metadata of an unknown model": lambda: main.get_model_metadata("nobody"),
        "config of an unknown model": lambda: main.get_model_config("nobody"),
        "statistics of an unknown model": lambda: main.get_inference_statistics("nobody"),
        "metadata while stopping": lambda: stopping.get_model_metadata("linear"),
        "load without explicit control": lambda: main.load_model("linear"),
        "unload without explicit control": lambda: main.unload_model("linear"),
        "request while stopping": lambda: stopping.infer(**request({})),
        "malformed message": lambda: channel.unary_unary(f"{prefix}ModelInfer")(GARBAGE),
        "status of an unknown region": lambda: main.get_system_shared_memory_status("nobody"),
        "region registered twice": lambda: register("some", KEY, REGION_BYTES),
        "region larger than its object": lambda: register("large", KEY, 1 << 30),
        "region that starts beyond its object": lambda: register("far", KEY, 1, 1 << 30),
        "malformed region key": lambda: register("odd", "../../etc/passwd", REGION_BYTES),
        "region of no bytes": lambda: register("none", KEY, 0),
        "registration that is off": lambda: closed.register_system_shared_memory("s", KEY, 8),
        "message over the limit": lambda: main.infer(**request(LARGE)),
        "unknown RPC": lambda: channel.unary_unary(f"{prefix}MakeCoffee")(b""),
    }
    return {
        **{name: partial(refused, attempt) for name, attempt in attempts.items()},
        "raw and typed contents": partial(typed_beside_raw, stub),
        "more raw contents than inputs": partial(surplus_raw, stub),
        "reserved parameter": partial(reserved_parameter, stub),
        "stream while stopping": partial(stream_while_stopping, stopping),
        "message over the limit on a stream": partial(over_the_limit_on_a_stream, main),
        "deadline before compute": partial(deadline, main),
        "cancelled request": partial(cancelled, main),
        "cancelled stream": partial(cancelled_stream, main),
    }


def main():
    clients = {
        name: triton.InferenceServerClient(address)
        for name, address in zip(("main", "closed", "stopping"), sys.argv[1:], strict=True)
    }
    region = shm.create_shared_memory_region("some", KEY, REGION_BYTES)
    ways = {"unary": unary, "stream": stream, "stream that ends": stream_that_ends}
    try:
        clients["main"].register_system_shared_memory("some", KEY, REGION_BYTES)
        with grpc.insecure_channel(sys.argv[1]) as channel:
            by_name = calls(clients, channel)
            steps = {name: by_name[name] for name in CALLS}
            for name, (_, spec) in REQUESTS.items():
                for way, step in ways.items():
                    steps[f"{name}, {way}"] = partial(step, clients, spec)
            report(steps)
    finally:
        shm.destroy_shared_memory_region(region)


if __name__ == "__main__":
    main()
