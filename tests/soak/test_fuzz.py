import dataclasses
import random

import grpc
import numpy as np
import pytest
from hpack.table import HeaderTable
from hypothesis.stateful import run_state_machine_as_test

from protos import inference_pb2 as pb
from protos.codec import decode_response
from protos.errors import InvalidMessage
from protos.request_decoding import decode_request
from soak.fuzz import (
    codec_fuzz,
    files_fuzz,
    frames_fuzz,
    headers_fuzz,
    rpc_fuzz,
    sequences,
    transport_fuzz,
)
from soak.fuzz.codec_oracle import REQUEST, RESPONSE, disagreement
from soak.fuzz.mutation import mutated
from soak.tally import Tally
from transport.http2 import headers


def seen(decoder, decode, count=300):
    """What the oracle tells of a decoder with a fault, over spoiled messages."""
    faulty = dataclasses.replace(decoder, decode=decode)
    generator = random.Random(1)
    corpus = [
        message
        for like, found in codec_fuzz.seeds().values()
        if like is decoder
        for message in found
    ]
    told = (disagreement(faulty, mutated(generator, corpus)) for _ in range(count))
    return [text for text in told if text is not None]


def other_bytes(data):
    response = decode_response(data)
    outputs = [
        tensor
        if tensor.data is None or tensor.data.dtype.hasobject or not tensor.data.size
        else dataclasses.replace(tensor, data=np.roll(tensor.data.view(np.uint8) + 1, 1))
        for tensor in response.outputs
    ]
    return dataclasses.replace(response, outputs=tuple(outputs))


def escaping(data):
    try:
        return decode_request(data)
    except InvalidMessage as error:
        raise KeyError(str(error)) from None


FAULTS = {
    "an exception that escapes": (REQUEST, escaping, "raised KeyError"),
    "another id": (
        REQUEST,
        lambda data: dataclasses.replace(decode_request(data), id="other"),
        "id 'other'",
    ),
    "parameters that are lost": (
        REQUEST,
        lambda data: dataclasses.replace(decode_request(data), parameters={"new": 1}),
        "parameters",
    ),
    "a tensor that is lost": (
        REQUEST,
        lambda data: dataclasses.replace(decode_request(data), inputs=()),
        "0 tensors",
    ),
    "other bytes": (RESPONSE, other_bytes, "array uint8"),
}


@pytest.mark.parametrize(("decoder", "decode", "text"), FAULTS.values(), ids=FAULTS)
def test_the_oracle_finds_faults(decoder, decode, text):
    assert any(text in told for told in seen(decoder, decode))


def test_the_oracle_finds_a_refusal_of_what_is_good():
    def refuse(data):
        raise InvalidMessage("malformed ModelInferRequest: no")

    assert any("protobuf reads it" in told for told in seen(REQUEST, refuse))


def test_seeds_are_good_and_mutations_of_them_mostly_are_not():
    for decoder, corpus in codec_fuzz.seeds().values():
        for message in corpus:
            assert disagreement(decoder, message) is None
            decoder.decode(message)
    generator = random.Random(2)
    corpus = codec_fuzz.seeds()["request"][1]
    assert sum(mutated(generator, corpus) not in corpus for _ in range(100)) > 90


@pytest.mark.parametrize(
    ("part", "count"),
    [
        pytest.param(codec_fuzz.run, 2_000, id="codec"),
        pytest.param(rpc_fuzz.run, 300, id="rpc"),
        pytest.param(frames_fuzz.run, 80, id="frames"),
        pytest.param(transport_fuzz.run, 300, id="transport"),
        pytest.param(headers_fuzz.run, 4_000, id="headers"),
        pytest.param(files_fuzz.run, 1, id="files"),
        pytest.param(sequences.run, 2, id="sequences"),
    ],
)
def test_what_is_spoiled_breaks_nothing(tmp_path, monkeypatch, part, count):
    # The first file is tried by one of them.
    monkeypatch.setattr(files_fuzz, "SERVERS", 1)
    tally = Tally(count, 60, random.randrange(2**31))
    part(tally, tmp_path)
    tally.close()
    assert tally.failures == [], f"seed {tally.seed}"
    assert tally.done == count


def test_a_call_that_never_ends_is_found(monkeypatch):
    frames = transport_fuzz.conversation()
    assert transport_fuzz.serve(frames) is None
    for ending in ("half_closed", "cancelled"):
        monkeypatch.setattr(transport_fuzz.Echo, ending, lambda self: None)
    assert transport_fuzz.serve(frames) == "0 streams and 6 calls have not ended"


def headers_that_differ(count=2_000):
    generator = random.Random(3)
    fields, pair, found = headers_fuzz.corpus(), headers_fuzz.Pair(), []
    for _ in range(count):
        pair = headers_fuzz.Pair() if pair.ended else pair
        found.append(pair.disagreement(headers_fuzz.drawn(generator, fields, pair.blocks[-8:])))
    return [text for text in found if text is not None]


def test_a_header_reader_that_remembers_blocks_too_long_is_found(monkeypatch):
    assert headers_that_differ() == []
    monkeypatch.setattr(headers._Table, "add", HeaderTable.add)
    assert headers_that_differ() != []


def test_a_server_that_is_in_another_state_than_it_should_be_is_found(tmp_path):
    with sequences.machine(tmp_path) as kind:

        class Mistaken(kind):
            def state(self, name):
                return grpc.StatusCode.OK

        with pytest.raises(AssertionError):
            run_state_machine_as_test(Mistaken, settings=sequences.drawn(15))


@pytest.mark.parametrize(
    ("code", "text", "fault"),
    [
        (grpc.StatusCode.UNAVAILABLE, "the connection is closed", True),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", True),
        # The reason of a model that is not ready, which another call could not configure.
        (grpc.StatusCode.UNAVAILABLE, "not ready: expecting a name enclosed in quotes", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "", True),
        (grpc.StatusCode.INTERNAL, "internal error", True),
    ],
)
def test_a_lost_connection_is_told_from_the_reasons_of_the_server(code, text, fault):
    class Error(grpc.RpcError):
        def code(self):
            return code

        def details(self):
            return text

    assert (rpc_fuzz._wrong_status(Error()) is not None) is fault


def test_a_message_over_a_limit_may_be_malformed_behind_what_is_over_it():
    # Its shape says 2 ** 20 elements of BYTES; the last field breaks off.
    shaped = pb.ModelInferRequest(model_name="m")
    shaped.inputs.add(name="x", datatype="BYTES", shape=[2**20])
    data = shaped.SerializeToString()
    with pytest.raises(InvalidMessage, match="elements of BYTES, the limit"):
        decode_request(data)
    assert disagreement(REQUEST, data + b"\x2a") is None
