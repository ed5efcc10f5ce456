"""Fuzz the codec against protobuf: `python -m soak.fuzz.codec_fuzz SEED SECONDS COUNT`."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from protos import inference_pb2 as pb
from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    encode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
)
from protos.datatypes import DTYPES
from protos.tensors import Parameter, Tensor
from soak.fuzz.codec_oracle import REQUEST, RESPONSE, STREAM_RESPONSE, Decoder, disagreement
from soak.fuzz.fuzz_process import Failure, child_main, run_children
from soak.fuzz.mutation import mutated
from soak.tally import Tally

_MODULE = "soak.fuzz.codec_fuzz"
_SHARED: dict[str, Parameter] = {"shared_memory_region": "r", "shared_memory_byte_size": 8}


def run(tally: Tally, folder: Path) -> None:
    """Count executions in which the codec agreed with protobuf, in several processes."""
    run_children(tally, _MODULE)


def seeds() -> dict[str, tuple[Decoder, list[bytes]]]:
    """Valid messages of every datatype, raw, typed and in shared memory, by decoder."""
    arrays = [
        np.zeros((2, 3), dtype) if dtype != np.object_ else np.array([b"ab", b""], np.object_)
        for dtype in DTYPES.values()
    ]
    tensors = [Tensor.of("x", array) for array in arrays]
    tensors.append(Tensor("far", "FP32", (2,), None, _SHARED))
    requests, responses = [], []
    for tensor in tensors:
        requests.append(encode_request(InferRequest("m", (tensor,), id="7")))
        responses.append(encode_response(InferResponse("m", (tensor,), "1", "7")))
    many: dict[str, Parameter] = {"a": True, "b": -1, "c": "text", "d": 0.5}
    wanted = (RequestedOutput("y", many), RequestedOutput("z", _SHARED))
    pair = (tensors[0], tensors[-1], tensors[-2])
    requests.append(encode_request(InferRequest("m", pair, wanted, "1", "8", many)))
    responses.append(encode_response(InferResponse("m", pair, "1", "8", many)))
    requests.extend(_typed())
    streamed = [
        encode_stream_response(InferResponse("m", (tensor,), "1", "7")) for tensor in tensors
    ]
    streamed.append(encode_stream_error("7", "it failed"))
    return {
        "request": (REQUEST, requests),
        "response": (RESPONSE, responses),
        "stream response": (STREAM_RESPONSE, streamed),
    }


def _typed() -> Iterator[bytes]:
    for datatype, fields in (
        ("BOOL", {"bool_contents": [True, False]}),
        ("INT8", {"int_contents": [1, -1]}),
        ("INT64", {"int64_contents": [1, -(2**63)]}),
        ("UINT16", {"uint_contents": [1, 65535]}),
        ("UINT64", {"uint64_contents": [1, 2**64 - 1]}),
        ("FP32", {"fp32_contents": [0.5, float("nan")]}),
        ("FP64", {"fp64_contents": [0.5, float("inf")]}),
        ("BYTES", {"bytes_contents": [b"ab", b""]}),
    ):
        message = pb.ModelInferRequest(model_name="m", id="9")
        entry = message.inputs.add(name="x", datatype=datatype, shape=[2])
        for name, values in fields.items():
            getattr(entry.contents, name).extend(values)
        yield message.SerializeToString()


def main() -> int:
    """Fuzz until the time or the count is over."""
    corpora = list(seeds().items())

    def trial(generator: random.Random, number: int) -> Failure | None:
        name, (decoder, corpus) = corpora[number % len(corpora)]
        data = mutated(generator, corpus)
        difference = disagreement(decoder, data)
        return None if difference is None else (f"{name} {data.hex()}", difference)

    return child_main(_MODULE, __doc__, trial)


if __name__ == "__main__":
    sys.exit(main())
