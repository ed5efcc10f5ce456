"""What is known of a request while the data of its tensor are still to come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import inference_pb2 as pb
from protos.codec import InferRequest, encode_request
from protos.errors import InvalidMessage
from protos.request_decoding import decode_quick, split_arriving
from protos.tensors import Tensor
from protos.wire import length_prefix

RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
X = np.arange(24, dtype=np.float32).reshape(6, 4)


def field(number, payload):
    return length_prefix(number, len(payload)) + payload


def header(**fields):
    return pb.ModelInferRequest(**fields).SerializeToString()


def tensor(datatype="FP32", shape=(6, 4), name="x"):
    entry = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    return header(inputs=[entry])


DATA = field(RAW, X.tobytes())
MODEL = header(model_name="m")
fields = st.sampled_from(
    [
        MODEL,
        header(model_name="other"),
        header(model_version="3"),
        header(id="abc"),
        field(pb.ModelInferRequest.ID_FIELD_NUMBER, b"\xff"),
        header(parameters={"timings": pb.InferParameter(bool_param=True)}),
        header(parameters={"nothing": pb.InferParameter()}),
        header(outputs=[{"name": "label"}]),
        tensor(),
        tensor("INT8", (4, 24)),
        tensor("BOOL", (96,)),
        tensor("BYTES", (1,)),
        tensor("FP7", (6, 4)),
        tensor("FP32", (5, 4)),
        field(15, b"pad"),
        field(77, b"unknown"),
        b"\xa0\x06\x07",  # an unknown varint
        b"\xa3\x06\xa4\x06",  # an unknown group
        field(RAW, b""),
        DATA,
    ]
)
# Most of them a request that is determined before its data end.
messages = st.one_of(
    st.lists(fields, max_size=6).map(b"".join),
    st.lists(fields, max_size=3).map(lambda more: b"".join([MODEL, tensor(), *more, DATA])),
    st.permutations([MODEL, tensor(), header(id="abc"), field(15, b"pad"), DATA]).map(b"".join),
)


def arriving(message, filled, rest):
    """Memory of a message of which `filled` bytes are there; `rest` is what else it holds."""
    return memoryview(bytearray(message[:filled] + rest[: len(message) - filled]))


def decoded(message, *parts):
    """What a message says, and its data; None where it is refused."""
    try:
        request = decode_quick(message, *parts)
    except InvalidMessage:
        return None
    arrays = [None if each.data is None else each.data.tolist() for each in request.inputs]
    for each in request.inputs:
        each.data = None
    return request, arrays


@settings(deadline=None, max_examples=500)
@given(messages, st.data())
def test_what_is_known_early_is_what_the_complete_message_says(message, data):
    for _ in range(data.draw(st.integers(0, 2)) if message else 0):
        # A length that lies, a field that became another.
        at = data.draw(st.integers(0, len(message) - 1))
        message = message[:at] + bytes([data.draw(st.integers(0, 255))]) + message[at + 1 :]
    filled = data.draw(st.integers(0, len(message)))
    rest = data.draw(st.binary(min_size=200, max_size=200)) * 2
    memory = arriving(message, filled, rest)
    parts = split_arriving(memory, filled)
    if parts is None:
        return
    early = decoded(memory, parts)
    memory[:] = message
    whole = decoded(memory)
    if early is None:
        assert whole is None
        return
    assert early[0] == whole[0]
    # Its array is a view: with the rest of the message it has the rest of the data.
    assert decoded(memory, parts) == whole


@pytest.mark.parametrize("there", [0, 1, 40])
def test_the_bytes_before_the_data_are_enough(there):
    message = encode_request(
        InferRequest("m", (Tensor.of("x", X),), id="abc", parameters={"timings": True})
    )
    filled = message.index(X.tobytes()) + there
    memory = arriving(message, filled, bytes(len(message)))
    request = decode_quick(memory, split_arriving(memory, filled))
    (x,) = request.inputs
    assert (request.model_name, request.id, request.parameters) == ("m", "abc", {"timings": True})
    assert (x.name, x.shape, x.datatype) == ("x", X.shape, "FP32")
    assert not np.array_equal(x.data, X)
    memory[filled:] = message[filled:]
    assert np.array_equal(x.data, X)
    assert split_arriving(memory, message.index(X.tobytes()) - 1) is None


@pytest.mark.parametrize(
    "message",
    [
        MODEL + tensor() + DATA + header(id="abc"),
        MODEL + tensor() + DATA + field(15, b"padding"),
        MODEL + tensor() + DATA[:-1],
        MODEL + tensor() + DATA + b"x",
        MODEL + tensor() + tensor(name="y") + DATA + DATA,
        MODEL + tensor("INT8", (4, 24)) + field(RAW, b"") + DATA,
        MODEL + tensor("BOOL", (96,)) + DATA,
        MODEL + tensor("BYTES", (96,)) + DATA,
        MODEL + tensor("FP7") + DATA,
        MODEL + b"\xa3\x06\xa4\x06" + tensor() + DATA,
        MODEL + header(id="a") + header(id="b") + tensor() + DATA,
    ],
    ids=[
        *("an id follows", "padding follows", "cut off", "a byte more", "two tensors"),
        *("two contents", "booleans", "texts", "no datatype", "a group", "two ids"),
    ],
)
def test_other_messages_have_to_be_complete(message):
    memory = memoryview(message)
    for filled in range(len(message)):
        assert split_arriving(memory, filled) is None
