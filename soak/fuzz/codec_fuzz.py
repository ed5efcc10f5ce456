"""Fuzz the codec against protobuf: `python -m soak.fuzz.codec_fuzz SEED SECONDS MOST`, JSON lines.

Runs as processes of its own, since what is looked for may end one.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from command_line.parser import positionals
from measure.core.processes import child
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
from soak.clients import at_once
from soak.fuzz.codec_oracle import REQUEST, RESPONSE, STREAM_RESPONSE, Decoder, disagreement
from soak.fuzz.mutation import mutated
from soak.tally import Tally

PROCESSES = 2
_BETWEEN_REPORTS = 2000
_SHARED: dict[str, Parameter] = {"shared_memory_region": "r", "shared_memory_byte_size": 8}


def run(tally: Tally, folder: Path) -> None:
    """Count executions in which the codec agreed with protobuf, in several processes."""
    at_once([partial(_follow, tally, tally.seed + number) for number in range(PROCESSES)])


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
    streamed.append(encode_stream_error("7", "it went wrong"))
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


def _follow(tally: Tally, seed: int) -> None:
    """Count the results of one process until it ends."""
    share = tally.take(tally.target // PROCESSES)
    command = [
        sys.executable,
        "-m",
        "soak.fuzz.codec_fuzz",
        str(seed),
        str(tally.left_s),
        str(share),
    ]
    told = 0
    with child(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            report = json.loads(line)
            tally.add(report["done"])
            told += report["done"] + len(report["failures"])
            for failure in report["failures"]:
                tally.fail(f"seed {seed}: {failure['what']}", failure["came"])
        code = process.wait()
    if code != 0:
        tally.fail(f"seed {seed}, after {told} executions", f"the process ended with {code}")
    tally.give_up(share - told)


def main(argv: Sequence[str]) -> int:
    """Fuzz until the time or the count is over."""
    generator = random.Random(int(argv[0]))
    end_s, most = time.monotonic() + float(argv[1]), int(argv[2])
    corpora = list(seeds().items())
    executed = 0
    while executed < most and time.monotonic() < end_s:
        done = 0
        failures = []
        for _ in range(min(_BETWEEN_REPORTS, most - executed)):
            name, (decoder, corpus) = corpora[executed % len(corpora)]
            data = mutated(generator, corpus)
            told = disagreement(decoder, data)
            executed += 1
            if told is None:
                done += 1
            else:
                failures.append({"what": f"{name} {data.hex()}", "came": told})
        print(json.dumps({"done": done, "failures": failures}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(positionals("soak.fuzz.codec_fuzz", __doc__, "seed", "seconds", "count")))
