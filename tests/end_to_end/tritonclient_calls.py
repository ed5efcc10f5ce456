"""What users of tritonclient do: `python tritonclient_calls.py ADDRESS`; see test_tritonclient."""

import asyncio
import queue
import sys
import uuid

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from script_report import report
from tritonclient.utils import serialize_byte_tensor
from tritonclient.utils import shared_memory as shm

TIMEOUT_S = 20
ROWS, FEATURES = 6, 8
X = np.random.default_rng(1).standard_normal((ROWS, FEATURES), np.float32)
TENSORS = {
    "BOOL": np.array([True, False, True]),
    "UINT8": np.array([0, 1, 2**8 - 1], np.uint8),
    "UINT16": np.array([0, 1, 2**16 - 1], np.uint16),
    "UINT32": np.array([0, 1, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 1, 2**64 - 1], np.uint64),
    "INT8": np.array([-(2**7), 0, 2**7 - 1], np.int8),
    "INT16": np.array([-(2**15), 0, 2**15 - 1], np.int16),
    "INT32": np.array([-(2**31), 0, 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), 0, 2**63 - 1], np.int64),
    "FP16": np.array([-65504, 0, 6e-8], np.float16),
    "FP32": np.array([-3.4e38, 0, 1e-45], np.float32),
    "FP64": np.array([-1.7e308, 0, 5e-324]),
    "BF16": np.array([-3.3e38, 0, 1e-40], ml_dtypes.bfloat16),
    "BYTES": np.array([b"", b"some", "größer".encode()], np.object_),
}


def given(name, data, datatype):
    tensor = triton.InferInput(name, list(data.shape), datatype)
    return tensor.set_data_from_numpy(data)


def examples(rows=X):
    return [given("x", rows, "FP32")]


def wanted(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def labels(result):
    return result.as_numpy("label").tolist()


def live_and_ready(client):
    return [
        client.is_server_live(),
        client.is_server_ready(),
        client.is_model_ready("linear"),
        client.is_model_ready("linear", "1"),
    ]


def descriptions(client):
    metadata = client.get_model_metadata("linear", as_json=True)
    config = client.get_model_config("linear", as_json=True)["config"]
    return [client.get_server_metadata(as_json=True), metadata, config]


def statistics(client):
    before = client.get_inference_statistics("linear", as_json=True)
    client.infer("linear", examples())
    after = client.get_inference_statistics("linear", as_json=True)
    return [told["model_stats"][0] for told in (before, after)]


def unary(client):
    result = client.infer("linear", examples(), request_id="7", outputs=wanted("scores", "label"))
    response = result.get_response()
    scores = result.as_numpy("scores").tolist()
    return [response.id, [o.name for o in response.outputs], labels(result), scores]


def unary_without_naming_outputs(client):
    return labels(client.infer("linear", examples(), model_version="1"))


def compressed(client):
    return labels(client.infer("linear", examples(), compression_algorithm="gzip"))


def asynchronous(client):
    answers = queue.Queue()

    def answered(result, error):
        answers.put((result, error))

    for row in range(ROWS):
        rows = examples(X[row : row + 1])
        client.async_infer("linear", rows, callback=answered, request_id=str(row))
    by_id = {}
    for _ in range(ROWS):
        result, error = answers.get(timeout=TIMEOUT_S)
        assert error is None, error
        by_id[result.get_response().id] = labels(result)
    return by_id


def streamed(client, *, headers=None, spoil=(), **options):
    """One request a row; the answers in their order, with the error's status and text."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    told = []
    try:
        for row in range(ROWS):
            model = "nobody" if row in spoil else "linear"
            rows = examples(X[row : row + 1])
            client.async_stream_infer(model, rows, request_id=str(row), **options)
        for _ in range(ROWS):
            result, error = answers.get(timeout=TIMEOUT_S)
            if error is not None:
                told.append({"status": error.status(), "text": error.message()})
                if headers:
                    break
                continue
            response = result.get_response()
            final = response.parameters["triton_final_response"].bool_param
            told.append({"id": response.id, "label": labels(result), "final": final})
    finally:
        client.stop_stream()
    return told


def stream_with_empty_final_responses(client):
    return streamed(client, enable_empty_final_response=True)


def stream_with_an_error(client):
    return streamed(client, spoil=[1])


def stream_that_an_error_ends(client):
    return streamed(client, spoil=[1], headers={"triton_grpc_error": "true"})


def with_asyncio(client):
    async def run():
        async with triton_aio.InferenceServerClient(ADDRESS) as aio:
            alone = await aio.infer("linear", examples())

            async def requests():
                for row in range(ROWS):
                    yield {"model_name": "linear", "inputs": examples(X[row : row + 1])}

            streamed = [labels(result) async for result, _ in aio.stream_infer(requests())]
            return [labels(alone), streamed]

    return asyncio.run(run())


def datatypes(client):
    """Of each datatype: whether values and dtype came back as they went; the shape."""
    told = {}
    for datatype, data in TENSORS.items():
        result = client.infer(f"same_{datatype}", [given("x", data, datatype)])
        returned = result.as_numpy("y")
        same = returned.tolist() == data.tolist()
        told[datatype] = [same, returned.dtype == data.dtype, list(returned.shape)]
    return told


def shared_memory(client):
    """Inputs and outputs in shared memory; what is registered before, while, and after."""
    key = f"/argmax-test-{uuid.uuid4().hex}"
    regions = []
    told = [sorted(client.get_system_shared_memory_status(as_json=True).get("regions", {}))]
    label_bytes, score_bytes = ROWS * 8, ROWS * 4 * 4
    try:
        for name, size in (("input", X.nbytes), ("output", label_bytes + score_bytes)):
            region = shm.create_shared_memory_region(name, f"{key}-{name}", size)
            regions.append(region)
            client.register_system_shared_memory(name, f"{key}-{name}", size)
        shm.set_shared_memory_region(regions[0], [X])
        told.append(client.get_system_shared_memory_status(as_json=True)["regions"])
        x = triton.InferInput("x", [ROWS, FEATURES], "FP32")
        x.set_shared_memory("input", X.nbytes)
        label, scores = wanted("label", "scores")
        label.set_shared_memory("output", label_bytes)
        scores.set_shared_memory("output", score_bytes, offset=label_bytes)
        result = client.infer("linear", [x], outputs=[label, scores])
        sent = [len(raw) for raw in result.get_response().raw_output_contents]
        placed = result.get_output("scores").parameters["shared_memory_offset"].int64_param
        told += [sent, placed]
        told.append(shm.get_contents_as_numpy(regions[1], np.int64, [ROWS]).tolist())
        told.append(
            shm.get_contents_as_numpy(
                regions[1], np.float32, [ROWS, 4], offset=label_bytes
            ).tolist()
        )
        client.unregister_system_shared_memory("input")
        client.unregister_system_shared_memory()
        told.append(sorted(client.get_system_shared_memory_status(as_json=True).get("regions", {})))
    finally:
        for region in regions:
            shm.destroy_shared_memory_region(region)
    return told


def strings_in_shared_memory(client):
    """Strings go into a region's first half and come back in its second."""
    words = serialize_byte_tensor(TENSORS["BYTES"])
    size, key = len(words.item()), f"/argmax-test-{uuid.uuid4().hex}"
    region = shm.create_shared_memory_region("words", key, 2 * size)
    try:
        shm.set_shared_memory_region(region, [words])
        client.register_system_shared_memory("words", key, 2 * size)
        x = triton.InferInput("x", [3], "BYTES")
        x.set_shared_memory("words", size)
        (y,) = wanted("y")
        y.set_shared_memory("words", size, offset=size)
        client.infer("same_BYTES", [x], outputs=[y])
        client.unregister_system_shared_memory("words")
        returned = shm.get_contents_as_numpy(region, np.object_, [3], offset=size)
        return [word.decode() for word in returned]
    finally:
        shm.destroy_shared_memory_region(region)


def cuda_shared_memory(client):
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("nobody")
    told = [client.get_cuda_shared_memory_status(as_json=True)]
    try:
        client.register_cuda_shared_memory("mine", b"bm90IG1pbmU=", 0, 64)
    except triton.InferenceServerException as error:
        told.append(error.status())
    return told


def trace_settings(client):
    told = [client.get_trace_settings("linear", as_json=True)["settings"]["trace_level"]]
    try:
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    except triton.InferenceServerException as error:
        told.append(error.status())
    return told


def log_settings(client):
    before = client.get_log_settings(as_json=True)["settings"]
    changed = client.update_log_settings(
        {"log_verbose_level": 1, "log_warning": False}, as_json=True
    )
    client.update_log_settings({"log_verbose_level": 0, "log_warning": True})
    after = client.get_log_settings(as_json=True)["settings"]
    return [before, changed["settings"], after]


STEPS = [
    live_and_ready,
    descriptions,
    statistics,
    unary,
    unary_without_naming_outputs,
    compressed,
    asynchronous,
    streamed,
    stream_with_empty_final_responses,
    stream_with_an_error,
    stream_that_an_error_ends,
    with_asyncio,
    datatypes,
    shared_memory,
    strings_in_shared_memory,
    cuda_shared_memory,
    trace_settings,
    log_settings,
]

if __name__ == "__main__":
    (ADDRESS,) = sys.argv[1:]
    with triton.InferenceServerClient(ADDRESS) as connected:
        report({step.__name__: step for step in STEPS}, connected)
