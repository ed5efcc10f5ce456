import math

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import inference_pb2 as pb
from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    encode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
)
from protos.datatypes import BYTES, DTYPES, datatype_of
from protos.errors import InvalidMessage, OutputMissing
from protos.request_decoding import decode_request
from protos.tensors import Tensor

NUMERIC = [name for name in DTYPES if name != BYTES]
TYPED = {
    "BOOL": ("bool_contents", [True, False, True]),
    "UINT8": ("uint_contents", [0, 1, 2**8 - 1]),
    "UINT16": ("uint_contents", [0, 1, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 1, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 1, 2**64 - 1]),
    "INT8": ("int_contents", [-(2**7), 0, 2**7 - 1]),
    "INT16": ("int_contents", [-(2**15), 0, 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 0, 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, -math.inf, 2.0**-149]),
    "FP64": ("fp64_contents", [0.1, -math.inf, 5e-324]),
    BYTES: ("bytes_contents", [b"", b"a\0", b"\xff" * 300]),
}
UNTYPED = [name for name in DTYPES if name not in TYPED]
IN_SHARED_MEMORY = {"shared_memory_region": "r", "shared_memory_byte_size": 8}


def message_with(*inputs, raw=(), **fields):
    """A request message; each input is (datatype, shape, typed contents)."""
    message = pb.ModelInferRequest(raw_input_contents=raw, **fields)
    for number, (datatype, shape, contents) in enumerate(inputs):
        entry = message.inputs.add(name=f"x{number}", datatype=datatype, shape=shape)
        for attribute, values in contents.items():
            getattr(entry.contents, attribute).extend(values)
    return message


def decode_inputs(*inputs, raw=()):
    message = message_with(*inputs, raw=raw)
    return [tensor.data for tensor in decode_request(message.SerializeToString()).inputs]


def refusal(*inputs, raw=()):
    """The text with which a request is refused."""
    with pytest.raises(InvalidMessage) as caught:
        decode_inputs(*inputs, raw=raw)
    return str(caught.value)


def raw_elements(*elements):
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def same(one, other):
    """Whether two tensors are the same, NaN payloads included."""
    if (one.name, one.datatype, one.shape) != (other.name, other.datatype, other.shape):
        return False
    if dict(one.parameters) != dict(other.parameters) or (one.data is None) != (other.data is None):
        return False
    if one.data is None:
        return True
    if one.datatype == BYTES:
        return one.data.tolist() == other.data.tolist()
    assert one.data.shape == other.data.shape == one.shape
    return one.data.dtype == other.data.dtype and one.data.tobytes() == other.data.tobytes()


def random_array(datatype, shape, seed=0):
    """Random bits, or random strings."""
    rng = np.random.default_rng(seed)
    count = math.prod(shape)
    if datatype == BYTES:
        array = np.empty(count, np.object_)
        array[:] = [rng.bytes(rng.integers(5)) for _ in range(count)]
    elif datatype == "BOOL":
        array = rng.integers(0, 2, count).astype(np.bool_)
    else:
        dtype = DTYPES[datatype]
        array = np.frombuffer(rng.bytes(count * dtype.itemsize), dtype)
    return array.reshape(shape)


# Messages as strangers may send them.

names = st.text(max_size=4)
shapes = st.lists(st.integers(0, 3), max_size=3)
parameter_values = st.one_of(
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(pb.InferParameter, double_param=st.floats(allow_nan=False)),
    st.builds(pb.InferParameter, string_param=names),
)
parameters = st.dictionaries(names, parameter_values, max_size=2)


def put(target, values):
    for name, value in values.items():
        target[name].CopyFrom(value)


def wire_bytes(array, datatype):
    if datatype == BYTES:
        return raw_elements(*array.reshape(-1))
    return array.tobytes()


@st.composite
def request_messages(draw):
    message = pb.ModelInferRequest(
        model_name=draw(names), model_version=draw(names), id=draw(names)
    )
    put(message.parameters, draw(parameters))
    for name in draw(st.lists(names, max_size=2)):
        put(message.outputs.add(name=name).parameters, draw(parameters))
    typed = draw(st.booleans())
    for _ in range(draw(st.integers(0, 3))):
        datatype = draw(st.sampled_from(list(TYPED if typed else DTYPES)))
        shape = draw(shapes)
        entry = message.inputs.add(name=draw(names), datatype=datatype, shape=shape)
        put(entry.parameters, draw(parameters))
        if draw(st.integers(0, 4)) == 0:
            entry.parameters["shared_memory_region"].string_param = "region"
        elif typed:
            attribute, values = TYPED[datatype]
            wanted = math.prod(shape)
            getattr(entry.contents, attribute).extend((values * wanted)[:wanted])
        else:
            array = random_array(datatype, shape, draw(st.integers(0, 99)))
            message.raw_input_contents.append(wire_bytes(array, datatype))
    return message


def top_level_fields(message):
    """Serialized one by one, by name, in protobuf's order."""
    fields = []
    for descriptor, value in message.ListFields():
        entries = [value]
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            entries = [{key: value[key]} for key in value]
        elif descriptor.is_repeated:
            entries = [[entry] for entry in value]
        for entry in entries:
            alone = pb.ModelInferRequest()
            if isinstance(entry, dict):
                put(alone.parameters, entry)
            elif isinstance(entry, list):
                getattr(alone, descriptor.name).extend(entry)
            else:
                setattr(alone, descriptor.name, entry)
            fields.append((descriptor.name, alone.SerializeToString()))
    return fields


UNKNOWN_FIELDS = [
    b"\x78\x07",  # a varint, with a tag of one byte
    b"\xf8\xff\xff\xff\x0f\x01",  # a varint, with the longest tag there is
    b"\xf8\x80\x80\x80\x00\x87\x80\x80\x80\x80\x80\x80\x80\x80\x00",  # over-long varints
    b"\x38\x05",  # a varint where raw contents were expected
    b"\x81\x01" + bytes(8),
    b"\x85\x01" + bytes(4),
    b"\x82\x01\x03abc",
    b"\x82\x01\x83\x80\x80\x80\x00abc",  # an over-long length
    b"\x83\x01\x84\x01",  # an empty group
    b"\x83\x01\x3a\x01x\x84\x01",  # a group with what would be raw contents outside
]


@st.composite
def serialized(draw):
    """A request in any field order, with unknown fields between: (message, bytes)."""
    message = draw(request_messages())
    fields = top_level_fields(message)
    order = draw(st.permutations([name for name, _ in fields]))
    # Shuffling inputs among themselves would part them from their contents.
    supply = {name: iter([d for n, d in fields if n == name]) for name in set(order)}
    pieces = [next(supply[name]) for name in order]
    for field in draw(st.lists(st.sampled_from(UNKNOWN_FIELDS), max_size=3)):
        pieces.insert(draw(st.integers(0, len(pieces))), field)
    return message, b"".join(pieces)


def assert_says(decoded, message):
    """A decoded request says what protobuf read."""
    assert decoded.model_name == message.model_name
    assert decoded.model_version == message.model_version
    assert decoded.id == message.id
    assert_parameters(decoded.parameters, message.parameters)
    assert [output.name for output in decoded.outputs] == [
        output.name for output in message.outputs
    ]
    for output, entry in zip(decoded.outputs, message.outputs, strict=True):
        assert_parameters(output.parameters, entry.parameters)
    raw = iter(message.raw_input_contents)
    for tensor, entry in zip(decoded.inputs, message.inputs, strict=True):
        assert (tensor.name, tensor.datatype) == (entry.name, entry.datatype)
        assert tensor.shape == tuple(entry.shape)
        assert_parameters(tensor.parameters, entry.parameters)
        if "shared_memory_region" in entry.parameters:
            assert tensor.data is None
            continue
        assert tensor.data.shape == tensor.shape
        assert tensor.data.dtype == DTYPES[tensor.datatype]
        if message.raw_input_contents:
            assert wire_bytes(tensor.data, tensor.datatype) == next(raw)
        else:
            values = getattr(entry.contents, TYPED[entry.datatype][0])
            wanted = np.array(values, tensor.data.dtype)
            assert wire_bytes(tensor.data, entry.datatype) == wire_bytes(wanted, entry.datatype)
    assert next(raw, None) is None


def assert_parameters(read, entries):
    assert set(read) == set(entries)
    for name, entry in entries.items():
        value = getattr(entry, entry.WhichOneof("parameter_choice"))
        assert repr(read[name]) == repr(value)  # NaN is NaN here, and True is not 1


def outcome(decode, data):
    """What was decoded, or the refusal."""
    try:
        return decode(data)
    except InvalidMessage as error:
        return error


def assert_agrees_with_protobuf(data):
    """What protobuf reads is decoded or refused for what it says; what it refuses is malformed."""
    decoded = outcome(decode_request, data)
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        assert str(decoded).startswith("malformed ModelInferRequest: ")
        return
    if isinstance(decoded, InvalidMessage):
        assert not str(decoded).startswith("malformed")
        assert decoded.request_id == message.id
        # Protobuf's own order of the same fields must fare no better.
        message.DiscardUnknownFields()
        again = outcome(decode_request, message.SerializeToString())
        assert str(again) == str(decoded)
    else:
        assert_says(decoded, message)
        assert decoded.byte_size == len(data)


@settings(deadline=None, max_examples=80)
@given(serialized())
def test_requests_decode_as_protobuf_parses_them_in_any_field_order(pair):
    message, data = pair
    assert_says(decode_request(data), message)


@settings(deadline=None, max_examples=20)
@given(serialized())
def test_a_request_cut_anywhere_fares_as_with_protobuf(pair):
    _, data = pair
    for size in range(len(data)):
        assert_agrees_with_protobuf(data[:size])


@settings(deadline=None, max_examples=120)
@given(serialized(), st.data())
def test_changed_bytes_fare_as_with_protobuf(pair, data):
    changed = bytearray(pair[1])
    for _ in range(data.draw(st.integers(1, 4)) if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert_agrees_with_protobuf(bytes(changed))


@settings(deadline=None, max_examples=120)
@given(st.binary(max_size=80))
def test_random_bytes_raise_nothing_but_invalid_message(data):
    for decode in (decode_request, decode_response, decode_stream_response):
        assert outcome(decode, data) is not None


def numeric_response(id):
    arrays = [random_array(datatype, (2, 3)) for datatype in NUMERIC]
    return InferResponse("m", tuple(Tensor.of("y", array) for array in arrays), id=id)


@settings(deadline=None, max_examples=80)
@given(names, st.data())
def test_changed_stream_responses_fare_as_with_protobuf(id, data):
    changed = bytearray(pb.ModelStreamInferResponse(error_message="e").SerializeToString())
    changed += encode_stream_response(numeric_response(id))
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    decoded = outcome(decode_stream_response, bytes(changed))
    try:
        whole = pb.ModelStreamInferResponse.FromString(bytes(changed))
    except DecodeError:
        assert str(decoded).startswith("malformed Model")
        return
    if isinstance(decoded, InvalidMessage):
        assert not str(decoded).startswith("malformed")
        return
    text, response = decoded
    assert text == whole.error_message
    assert response.id == whole.infer_response.id
    assert [o.name for o in response.outputs] == [o.name for o in whole.infer_response.outputs]
    raw = [wire_bytes(output.data, output.datatype) for output in response.outputs]
    sent = [
        bytes(map(bool, data)) if output.datatype == "BOOL" else data
        for output, data in zip(
            response.outputs, whole.infer_response.raw_output_contents, strict=True
        )
    ]
    assert raw == sent


def test_every_raw_bool_but_zero_is_true():
    message = pb.ModelInferRequest(raw_input_contents=[bytes([0, 1, 2, 255])])
    message.inputs.add(name="x", datatype="BOOL", shape=[4])
    (tensor,) = decode_request(message.SerializeToString()).inputs
    assert tensor.data.tobytes() == bytes([0, 1, 1, 1])


def test_a_stream_response_cut_anywhere_is_malformed():
    data = encode_stream_response(numeric_response("7"))
    assert decode_stream_response(data)[1].id == "7"
    for size in range(1, len(data)):
        assert str(outcome(decode_stream_response, data[:size])).startswith("malformed Model")


# Round trips.


def variants(array):
    """The same values in other layouts."""
    yield array
    if array.ndim:
        yield np.asfortranarray(array)
        yield np.repeat(array, 2, axis=-1)[..., ::2]
        yield np.ascontiguousarray(array[::-1])[::-1]
    if array.dtype.kind not in "Ob":
        yield array.astype(array.dtype.newbyteorder(">"))


def round_trip_request(tensors):
    request = InferRequest(
        model_name="m",
        model_version="3",
        id="é",
        parameters={"b": True, "i": -1, "f": 0.5, "s": "t"},
        inputs=tensors,
        outputs=(RequestedOutput("label"), RequestedOutput("scores", {"classification": 3})),
    )
    decoded = decode_request(encode_request(request))
    said = ("model_name", "model_version", "id", "parameters", "outputs")
    assert [getattr(decoded, name) for name in said] == [getattr(request, name) for name in said]
    assert type(decoded.parameters["b"]) is bool
    return decoded.inputs


def round_trip_response(tensors):
    response = InferResponse("m", tensors, "3", "é", {"triton_final_response": True, "ns": 2**40})
    decoded = decode_response(encode_response(response))
    check_response(decoded, response)
    return decoded.outputs


def round_trip_stream_response(tensors):
    response = InferResponse("m", tensors, "3", "é", {"triton_final_response": True, "ns": 2**40})
    text, decoded = decode_stream_response(encode_stream_response(response))
    assert text == ""
    check_response(decoded, response)
    return decoded.outputs


def check_response(decoded, response):
    said = ("model_name", "model_version", "id", "parameters")
    assert [getattr(decoded, name) for name in said] == [getattr(response, name) for name in said]


ROUND_TRIPS = [round_trip_request, round_trip_response, round_trip_stream_response]
SHAPES = [(), (0,), (1,), (3, 4), (2, 0, 3), (2, 3, 2), (1,) * 64, (70, 60)]


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
@pytest.mark.parametrize("datatype", DTYPES)
def test_tensors_survive_the_round_trip(round_trip, datatype):
    for shape in SHAPES:
        array = random_array(datatype, shape)
        for variant in variants(array):
            tensor = Tensor.of("x", variant)
            assert (tensor.datatype, tensor.shape) == (datatype, shape)
            (returned,) = round_trip((tensor,))
            assert same(returned, Tensor("x", datatype, shape, array))


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
def test_several_tensors_keep_their_order(round_trip):
    tensors = tuple(
        Tensor(f"x{number}", datatype, (number, 3), random_array(datatype, (number, 3)), {"p": 1})
        for number, datatype in enumerate(DTYPES)
    )
    returned = round_trip(tensors)
    assert all(same(one, other) for one, other in zip(returned, tensors, strict=True))


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
def test_strings_travel_as_bytes(round_trip):
    for array in (
        np.array(["é", ""], np.object_),
        np.array(["é", ""]),
        np.array([b"\xc3\xa9", b""]),
    ):
        (returned,) = round_trip((Tensor.of("x", array),))
        assert returned.datatype == BYTES
        assert returned.data.tolist() == ["é".encode(), b""]


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
@pytest.mark.parametrize("place", range(3))
def test_a_tensor_in_shared_memory_has_no_data(round_trip, place):
    tensors = [Tensor.of(f"x{n}", np.full((2, n + 1), n, np.float32)) for n in range(2)]
    tensors.insert(place, Tensor("far", "FP32", (2,), None, IN_SHARED_MEMORY))
    returned = round_trip(tuple(tensors))
    assert [tensor.name for tensor in returned] == [tensor.name for tensor in tensors]
    assert all(same(one, other) for one, other in zip(returned, tensors, strict=True))


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
def test_every_tensor_may_be_in_shared_memory(round_trip):
    far = Tensor("far", "FP32", (2,), None, IN_SHARED_MEMORY)
    assert [tensor.data for tensor in round_trip((far, far))] == [None, None]


def test_an_input_in_shared_memory_has_no_raw_entry():
    far = Tensor("far", "FP32", (1,), None, IN_SHARED_MEMORY)
    near = Tensor.of("near", np.zeros(1, np.float32))
    message = encode_request(InferRequest("m", (far, near)))
    assert list(pb.ModelInferRequest.FromString(message).raw_input_contents) == [bytes(4)]


def test_an_output_in_shared_memory_keeps_its_place_with_an_empty_entry():
    far = Tensor("far", "FP32", (1,), None, IN_SHARED_MEMORY)
    near = Tensor.of("near", np.zeros(1, np.float32))
    message = encode_response(InferResponse("m", (far, near, far)))
    parsed = pb.ModelInferResponse.FromString(message)
    assert list(parsed.raw_output_contents) == [b"", bytes(4), b""]


@pytest.mark.parametrize("raw", [[bytes(4)], [b"", bytes(4), b""]], ids=["left out", "empty"])
def test_outputs_in_shared_memory_may_be_left_out_of_the_raw_contents(raw):
    message = pb.ModelInferResponse(raw_output_contents=raw)
    for name in ("far", "near", "far"):
        entry = message.outputs.add(name=name, datatype="FP32", shape=[1])
        if name == "far":
            entry.parameters["shared_memory_region"].string_param = "r"
    outputs = decode_response(message.SerializeToString()).outputs
    assert [output.data is None for output in outputs] == [True, False, True]
    assert outputs[1].data.tolist() == [0]


def test_a_stream_error_carries_the_id():
    text, response = decode_stream_response(encode_stream_error("7", "it went wrong"))
    assert (text, response.id, response.outputs) == ("it went wrong", "7", ())


def test_a_stream_response_in_two_parts_is_merged():
    parts = [
        pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(**fields))
        for fields in ({"id": "7", "model_name": "old"}, {"model_name": "m"})
    ]
    _, response = decode_stream_response(b"".join(part.SerializeToString() for part in parts))
    assert (response.id, response.model_name) == ("7", "m")


# Memory.


def large_request(id="", elements=100_000):
    data = np.arange(elements, dtype=np.float32)
    return InferRequest("m", (Tensor.of("x", data), Tensor.of("y", data)), id=id)


def test_decoded_tensors_lie_in_the_message():
    response = InferResponse("m", large_request().inputs)
    request, answer = encode_request(large_request()), encode_response(response)
    streamed = encode_stream_response(response)
    for message, tensors in (
        (request, decode_request(request).inputs),
        (answer, decode_response(answer).outputs),
        (streamed, decode_stream_response(streamed)[1].outputs),
    ):
        whole = np.frombuffer(message, np.uint8)
        for tensor in tensors:
            assert np.shares_memory(tensor.data, whole)
            assert not tensor.data.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                tensor.data[0] = 1


def test_tensors_of_a_message_with_groups_are_copies():
    request = large_request(elements=4096)
    message = encode_request(request) + UNKNOWN_FIELDS[-1]
    tensor = decode_request(message).inputs[0]
    assert tensor.data.tolist() == request.inputs[0].data.tolist()
    assert not np.shares_memory(tensor.data, np.frombuffer(message, np.uint8))
    assert not tensor.data.flags.writeable


def test_a_large_message_with_groups_is_malformed():
    # Nothing but protobuf shows what it holds, once it is made.
    message = encode_request(large_request()) + UNKNOWN_FIELDS[-1]
    with pytest.raises(InvalidMessage, match="has groups"):
        decode_request(message)


@pytest.mark.parametrize("elements", [1024, 1025, 2**18])
def test_large_payloads_are_aligned_whatever_the_header(elements):
    for length in range(41):
        request = large_request("i" * length, elements)
        response = InferResponse("m", request.inputs, id=request.id)
        sent = encode_request(request), encode_response(response)
        received = decode_request(sent[0]).inputs + decode_response(sent[1]).outputs
        for message, tensors in ((sent[0], received[:2]), (sent[1], received[2:])):
            start = np.frombuffer(message, np.uint8).ctypes.data
            # The bytes of a bytes object begin at a multiple of 16, less the object's header.
            assert [(t.data.ctypes.data - start) % 16 for t in tensors] == [0, 0]
        parsed = pb.ModelInferRequest.FromString(sent[0])
        assert parsed.id == request.id
        payload = request.inputs[0].data.tobytes()
        assert list(parsed.raw_input_contents) == [payload, payload]
        parsed = pb.ModelInferResponse.FromString(sent[1])
        assert list(parsed.raw_output_contents) == [payload, payload]


def test_small_payloads_are_not_padded():
    data = np.zeros(4095, np.uint8)
    for length in range(17):
        request = InferRequest("m", (Tensor.of("x", data),), id="i" * length)
        parsed = pb.ModelInferRequest.FromString(encode_request(request))
        assert parsed.SerializeToString() == encode_request(request)


# Typed contents.


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_decode(datatype):
    attribute, values = TYPED[datatype]
    (data,) = decode_inputs((datatype, [3, 1], {attribute: values}))
    assert data.dtype == DTYPES[datatype]
    assert data.shape == (3, 1)
    assert data.reshape(-1).tolist() == values


@pytest.mark.parametrize("datatype", TYPED)
def test_many_typed_contents_decode(datatype):
    attribute, values = TYPED[datatype]
    # Of several steps, with numbers of every length across their ends.
    many = (values * 30_000)[: 2**15 - 1] + values[:1] * 2**16 + values
    message = message_with((datatype, [len(many)], {attribute: many}))
    encoded = message.inputs[0].contents.SerializeToString()
    for unknown in (b"", b"\x7a\1u"):
        message.inputs[0].contents.ParseFromString(encoded + unknown)
        (read,) = decode_request(message.SerializeToString()).inputs
        assert read.data.dtype == DTYPES[datatype]
        assert read.data.tolist() == many


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_of_no_elements_decode(datatype):
    (data,) = decode_inputs((datatype, [2, 0], {}))
    assert (data.dtype, data.shape) == (DTYPES[datatype], (2, 0))


@pytest.mark.parametrize("datatype", TYPED)
def test_a_typed_scalar_decodes(datatype):
    attribute, values = TYPED[datatype]
    (data,) = decode_inputs((datatype, [], {attribute: values[:1]}))
    assert (data.shape, data.item()) == ((), values[0])


@pytest.mark.parametrize("datatype", UNTYPED)
def test_a_datatype_without_typed_contents_is_invalid(datatype):
    text = refusal((datatype, [1], {"fp32_contents": [1.0]}))
    assert text == f"input 'x0' is {datatype}, expected raw contents"


@pytest.mark.parametrize("datatype", TYPED)
def test_the_wrong_typed_contents_are_invalid(datatype):
    wanted, values = TYPED[datatype]
    for wrong, (attribute, other) in TYPED.items():
        if attribute != wanted:
            for right in ([], values):
                text = refusal((datatype, [3], {attribute: TYPED[wrong][1], wanted: right}))
                assert (
                    text == f"input 'x0' is {datatype} but carries {attribute}, expected {wanted}"
                )
                assert other


@pytest.mark.parametrize(
    ("datatype", "attribute", "value"),
    [
        ("UINT8", "uint_contents", 2**8),
        ("UINT16", "uint_contents", 2**16),
        ("INT8", "int_contents", 2**7),
        ("INT8", "int_contents", -(2**7) - 1),
        ("INT16", "int_contents", 2**15),
        ("INT16", "int_contents", -(2**15) - 1),
    ],
)
@pytest.mark.parametrize("others", [1, 20_000])
def test_an_element_that_its_datatype_cannot_hold_is_invalid(datatype, attribute, value, others):
    text = refusal((datatype, [others + 1], {attribute: [1] * others + [value]}))
    assert text == f"input 'x0' has elements that {datatype} cannot hold"


@pytest.mark.parametrize("count", [0, 2, 4])
def test_the_wrong_number_of_typed_elements_is_invalid(count):
    text = refusal(("FP32", [3, 1], {"fp32_contents": [0.0] * count}))
    assert text == f"input 'x0' has {count} elements; shape [3, 1] takes 3"


def test_typed_beside_raw_contents_are_invalid():
    text = refusal(("FP32", [1], {"fp32_contents": [1.0]}), raw=[bytes(4)])
    assert text == "input 'x0' has typed and raw contents, expected one of them"


def test_one_typed_input_beside_a_raw_one_is_invalid():
    typed, bare = ("FP32", [1], {"fp32_contents": [1.0]}), ("FP32", [1], {})
    text = refusal(typed, bare, raw=[bytes(4)])
    assert text == "got 1 raw contents for 2 inputs, expected one each"


# Raw contents and shapes.


@pytest.mark.parametrize("count", [1, 3])
def test_the_wrong_number_of_raw_contents_is_invalid(count):
    text = refusal(("FP32", [1], {}), ("FP32", [1], {}), raw=[bytes(4)] * count)
    assert text == f"got {count} raw contents for 2 inputs, expected one each"


@pytest.mark.parametrize("size", [0, 23, 25, 48])
def test_the_wrong_number_of_bytes_is_invalid(size):
    text = refusal(("FP32", [2, 3], {}), raw=[bytes(size)])
    assert text == f"input 'x0' has {size} bytes; FP32 of shape [2, 3] takes 24"


@pytest.mark.parametrize("datatype", NUMERIC)
def test_bytes_left_over_are_invalid(datatype):
    itemsize = DTYPES[datatype].itemsize
    text = refusal((datatype, [2], {}), raw=[bytes(2 * itemsize + 1)])
    assert f"{2 * itemsize + 1} bytes" in text
    assert f"takes {2 * itemsize}" in text


@pytest.mark.parametrize("raw", [[bytes(4)], []], ids=["raw", "typed"])
def test_a_negative_dimension_is_invalid(raw):
    text = refusal(("FP32", [-1, -1], {}), raw=raw)
    assert text == "input 'x0' has shape [-1, -1], expected no negative dimension"


@pytest.mark.parametrize("raw", [[b""], []], ids=["raw", "typed"])
@pytest.mark.parametrize("datatype", ["FP32", BYTES])
@pytest.mark.parametrize("shape", [[2**62, 2**62], [2**62, 2**62, 0], [2**63 - 1] * 64])
def test_dimensions_that_overflow_are_invalid(raw, datatype, shape):
    text = refusal((datatype, shape, {}), raw=raw)
    assert text == f"input 'x0' has shape {shape}, which is too large"


@pytest.mark.parametrize("datatype", DTYPES)
def test_dimensions_are_taken_up_to_the_largest_that_numpy_holds(datatype):
    most = (2**63 - 1) // DTYPES[datatype].itemsize
    (data,) = decode_inputs((datatype, [most, 0], {}), raw=[b""])
    assert data.shape == (most, 0)
    text = refusal((datatype, [most + 1, 0], {}), raw=[b""]) if most < 2**63 - 1 else "too large"
    assert "too large" in text


@pytest.mark.parametrize("count", [65, 5000])
def test_more_dimensions_than_numpy_holds_are_invalid(count):
    text = refusal(("FP32", [2**62] * count, {}), raw=[bytes(4)])
    assert text == f"input 'x0' has {count} dimensions, expected at most 64"


def test_an_unknown_datatype_is_invalid():
    text = refusal(("FP8", [2], {}), raw=[bytes(2)])
    assert text == f"input 'x0' has datatype 'FP8', expected one of {', '.join(DTYPES)}"


@pytest.mark.parametrize("size", range(1, len(raw_elements(b"ab", b"", b"cde"))))
def test_elements_cut_anywhere_are_invalid(size):
    text = refusal((BYTES, [3], {}), raw=[raw_elements(b"ab", b"", b"cde")[:size]])
    between = {6: 1, 10: 2}
    if size in between:
        assert text == f"input 'x0' has {between[size]} elements; its shape takes 3"
    else:
        assert text == f"input 'x0' has an element that exceeds its {size} bytes"


def test_an_element_longer_than_any_message_is_invalid():
    text = refusal((BYTES, [1], {}), raw=[b"\xff" * 8])
    assert text == "input 'x0' has an element that exceeds its 8 bytes"


@pytest.mark.parametrize("raw", [[bytes(8)], []], ids=["raw", "typed"])
def test_contents_beside_shared_memory_are_invalid(raw):
    message = pb.ModelInferResponse(raw_output_contents=raw)
    entry = message.outputs.add(name="y", datatype="FP32", shape=[2])
    entry.parameters["shared_memory_region"].string_param = "r"
    if not raw:
        entry.contents.fp32_contents.extend([1.0, 2.0])
    with pytest.raises(InvalidMessage, match="'y' lies in shared memory, expected no"):
        decode_response(message.SerializeToString())


def test_a_raw_entry_for_an_input_in_shared_memory_is_invalid():
    message = message_with(("FP32", [1], {}), raw=[bytes(4)])
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(InvalidMessage, match="got 1 raw contents for 0 inputs"):
        decode_request(message.SerializeToString())


def test_a_parameter_without_a_value_is_invalid():
    message = pb.ModelInferRequest(id="7")
    message.parameters["timeout"].SetInParent()
    with pytest.raises(InvalidMessage, match="parameter 'timeout' carries no value") as caught:
        decode_request(message.SerializeToString())
    assert caught.value.request_id == "7"


def test_the_id_of_an_invalid_request_is_known():
    message = message_with(("FP32", [2], {}), raw=[bytes(4)], id="request 7")
    with pytest.raises(InvalidMessage) as caught:
        decode_request(message.SerializeToString())
    assert caught.value.request_id == "request 7"


def test_a_malformed_request_has_no_id():
    with pytest.raises(InvalidMessage, match=r"^malformed ModelInferRequest") as caught:
        decode_request(pb.ModelInferRequest(id="7").SerializeToString() + b"\x3a\x05abc")
    assert caught.value.request_id == ""


def test_of_two_ids_each_must_be_text_and_the_last_one_counts():
    message = encode_request(InferRequest("m", (), id="first"))
    assert decode_request(message + b"\x1a\x04last").id == "last"
    with pytest.raises(InvalidMessage, match="malformed"):
        decode_request(message.replace(b"first", b"f\xffrst") + b"\x1a\x04last")


def test_text_that_is_not_utf8_is_malformed():
    with pytest.raises(InvalidMessage, match=r"^malformed ModelInferRequest"):
        decode_request(b"\x0a\x01\xff")


def test_an_id_that_is_not_utf8_is_malformed_whatever_else_is_wrong():
    response = pb.ModelInferResponse(model_name="m", outputs=[{"name": "x", "datatype": "UINT"}])
    with pytest.raises(InvalidMessage, match="malformed ModelInferResponse"):
        decode_response(response.SerializeToString() + b"\x1a\x01\xdb")
    request = pb.ModelInferRequest(model_name="m", inputs=[{"name": "x", "datatype": "UINT"}])
    with pytest.raises(InvalidMessage, match="malformed ModelInferRequest"):
        decode_request(request.SerializeToString() + b"\x1a\x01\xdb")


# Datatypes.


@pytest.mark.parametrize("dtype", [np.complex64, "M8[s]", np.longdouble, [("a", "f4")]])
def test_a_dtype_that_the_protocol_lacks_is_a_type_error(dtype):
    with pytest.raises(TypeError, match="has no datatype in the protocol"):
        datatype_of(np.dtype(dtype))


@pytest.mark.parametrize(
    "value", [5, True, np.int64(3), [1, 2], 5.5, None, float("nan"), np.zeros(3), {}]
)
@pytest.mark.parametrize("role", ["input", "output"])
def test_an_element_that_is_neither_text_nor_bytes_is_refused_by_name(role, value):
    data = np.empty((2, 3), np.object_)
    data[:] = b"a"
    data[1, 2] = value
    tensors = (Tensor.of("x", data),)
    encode = encode_request if role == "input" else encode_response
    message = (InferRequest if role == "input" else InferResponse)("m", tensors)
    with pytest.raises(InvalidMessage) as caught:
        encode(message)
    assert str(caught.value).startswith(f"{role} 'x': element [1, 2] is ")
    assert str(caught.value).endswith(f"of type {type(value).__name__}; expected str or bytes")


def test_text_of_every_kind_of_array_travels_as_utf8():
    texts = [["", "one"], ["na\u00efve", "four"]]
    arrays = (
        np.array(texts, np.object_),
        np.array(texts),
        np.array(texts, np.dtypes.StringDType()),
        np.asfortranarray(np.array(texts, np.object_)),
        np.array([[text.encode() for text in row] for row in texts]),
    )
    for array in arrays:
        (back,) = round_trip_request((Tensor.of("x", array),))
        assert back.datatype == "BYTES"
        assert [[value.decode() for value in row] for row in back.data] == texts


def test_an_output_is_found_by_its_name():
    response = InferResponse("m", (Tensor.of("y", np.arange(3)),))
    assert response.names == ("y",)
    np.testing.assert_array_equal(response["y"], np.arange(3))
    with pytest.raises(OutputMissing, match=r"no output 'z'; it has \['y'\]"):
        response["z"]
    elsewhere = InferResponse("m", (Tensor("y", "FP32", (2,), None),))
    with pytest.raises(OutputMissing, match="'y' lies in shared memory"):
        elsewhere["y"]
