import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import inference_pb2 as pb
from protos.wire import RememberedStarts, encode_varint, length_prefix, split

RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
ID = pb.ModelInferRequest.ID_FIELD_NUMBER
VARINT, FIXED64, LEN, GROUP, END_GROUP, FIXED32 = range(6)
UNKNOWN = st.integers(20, 2**29 - 1)


def varint(value, size=0):
    """A varint of at least `size` bytes."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    groups += [0] * (size - len(groups))
    return bytes([group | 0x80 for group in groups[:-1]]) + bytes([groups[-1]])


def tag(field, wire_type, size=0):
    return varint(field << 3 | wire_type, size)


def length_delimited(field, payload, tag_size=0, length_size=0):
    return tag(field, LEN, tag_size) + varint(len(payload), length_size) + payload


def parsed(message):
    """What protobuf makes of it, unknown fields left out; None when it refuses."""
    try:
        request = pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return None
    request.DiscardUnknownFields()
    return request


def agrees_with_protobuf(message):
    """Whether `split` takes the message apart; if so, as protobuf does."""
    parts = split(message, RAW)
    if parts is None:
        return False
    whole, rest = parsed(message), parsed(parts.rest)
    if whole is None:
        assert rest is None
        return True
    assert [message[start:stop] for start, stop in parts.spans] == list(whole.raw_input_contents)
    whole.ClearField("raw_input_contents")
    assert rest == whole
    return True


raw_fields = st.builds(
    length_delimited, st.just(RAW), st.binary(max_size=40), st.integers(0, 5), st.integers(0, 5)
)
known_fields = st.builds(
    length_delimited,
    st.sampled_from([1, 2, 3]),
    st.text(max_size=5).map(str.encode),
    st.integers(0, 5),
    st.integers(0, 5),
)
flat_fields = st.one_of(
    st.builds(length_delimited, UNKNOWN, st.binary(max_size=9), st.integers(0, 5)),
    # Also the sought field, with wire types that make it an unknown one.
    *(
        st.builds(lambda field, value, kind=kind: tag(field, kind) + value, fields, values)
        for fields in (UNKNOWN, st.just(RAW))
        for kind, values in (
            (VARINT, st.builds(varint, st.integers(0, 2**64 - 1), st.integers(0, 10))),
            (FIXED64, st.binary(min_size=8, max_size=8)),
            (FIXED32, st.binary(min_size=4, max_size=4)),
        )
    ),
)
groups = st.builds(
    lambda field, inside: tag(field, GROUP) + b"".join(inside) + tag(field, END_GROUP),
    UNKNOWN,
    st.lists(st.one_of(flat_fields, raw_fields), max_size=3),
)
ordinary = st.lists(st.one_of(raw_fields, known_fields, flat_fields), max_size=6)


@settings(deadline=None, max_examples=120)
@given(ordinary)
def test_ordinary_messages_split_as_protobuf_parses_them(fields):
    message = b"".join(fields)
    assert parsed(message) is not None
    assert agrees_with_protobuf(message)


@settings(deadline=None)
@given(ordinary, groups, st.data())
def test_groups_are_left_to_protobuf(fields, group, data):
    fields.insert(data.draw(st.integers(0, len(fields))), group)
    message = b"".join(fields)
    assert parsed(message) is not None
    assert split(message, RAW) is None


@settings(deadline=None, max_examples=40)
@given(ordinary)
def test_a_message_cut_anywhere_splits_as_protobuf_parses_it(fields):
    message = b"".join(fields)
    for size in range(len(message)):
        if not agrees_with_protobuf(message[:size]):
            # Without groups or over-long varints only what protobuf refuses is left to it.
            assert parsed(message[:size]) is None


@settings(deadline=None, max_examples=120)
@given(st.one_of(st.binary(max_size=60), ordinary.map(b"".join)), st.data())
def test_changed_bytes_split_as_protobuf_parses_them(message, data):
    changed = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3)) if message else 0):
        changed[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    agrees_with_protobuf(bytes(changed))


@settings(deadline=None, max_examples=300)
@given(ordinary, raw_fields, st.data())
def test_what_is_remembered_is_what_split_finds(fields, last, data):
    message = b"".join((*fields, last))
    starts = RememberedStarts()
    for _ in range(4):
        changed = bytearray(message)
        for _ in range(data.draw(st.integers(0, 2))):
            changed[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        found = split(bytes(changed), RAW, id_field=ID)
        assert starts.known(bytes(changed)) in (None, found)
        if found is not None:
            starts.remember(bytes(changed), found)


def test_messages_that_differ_in_their_data_alone_are_remembered():
    starts = RememberedStarts()
    first = length_delimited(1, b"model") + length_delimited(RAW, b"data")
    found = split(first, RAW, id_field=ID)
    starts.remember(first, found)
    assert starts.known(memoryview(first[:-4] + b"more")) is found
    assert starts.known(first + b"x") is None
    assert starts.known(b"x" + first[1:]) is None


@pytest.mark.parametrize(
    "message",
    [
        length_delimited(ID, b"1") + length_delimited(RAW, b"data"),
        length_delimited(RAW, b"data") + length_delimited(1, b"model"),
        length_delimited(RAW, b"data") * 2,
        length_delimited(1, b"m" * 300) + length_delimited(RAW, b"data"),
    ],
    ids=["an id", "data not at the end", "two data", "a long start"],
)
def test_other_messages_are_not_remembered(message):
    starts = RememberedStarts()
    starts.remember(message, split(message, RAW, id_field=ID))
    assert starts.known(message) is None


@settings(deadline=None)
@given(ordinary, st.binary(max_size=9), st.binary(max_size=9))
def test_only_the_given_range_is_looked_at(fields, before, after):
    message = b"".join(fields)
    inner = split(before + message + after, RAW, len(before), len(before) + len(message))
    alone = split(message, RAW)
    assert inner.rest == alone.rest
    shift = len(before)
    assert inner.spans == [(start + shift, stop + shift) for start, stop in alone.spans]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 127, 128, 300, 2**14 - 1, 2**14, 2**21])
def test_payloads_of_any_size_are_found(size):
    message = length_delimited(RAW, b"a" * size) + length_delimited(RAW, b"b" * size)
    assert agrees_with_protobuf(message)


def test_the_rest_keeps_every_other_byte_in_order():
    others = [length_delimited(1, b"m"), tag(99, VARINT) + b"\x07", length_delimited(3, b"id")]
    raw = length_delimited(RAW, b"payload")
    message = raw + others[0] + raw + raw + others[1] + others[2] + raw
    parts = split(message, RAW)
    assert parts.rest == b"".join(others)
    assert [message[slice(*span)] for span in parts.spans] == [b"payload"] * 4


@pytest.mark.parametrize(
    "message",
    [
        tag(RAW, LEN, 6) + b"\x01x",
        tag(RAW, LEN) + varint(1, 6) + b"x",
        tag(99, VARINT) + varint(1, 11),
        tag(2**29, LEN) + b"\x01x",
        varint(LEN) + b"\x01x",
        tag(99, END_GROUP),
        tag(99, 6),
        tag(99, 7),
        tag(RAW, LEN) + varint(2**31) + b"x",
        tag(RAW, LEN) + varint(2**35 - 1) + b"x",
    ],
    ids=[
        "tag of 6 bytes",
        "length of 6 bytes",
        "value of 11 bytes",
        "field number over 2**29 - 1",
        "field number 0",
        "group that was not begun",
        "wire type 6",
        "wire type 7",
        "length of 2**31",
        "length of 35 bits",
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_protobuf(message):
    assert split(message, RAW) is None


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**31 - 1, 2**32, 2**63])
def test_varints_are_the_shortest(value):
    assert encode_varint(value) == varint(value)


@settings(deadline=None)
@given(st.integers(1, 2**29 - 1), st.integers(0, 2**31 - 1))
def test_a_length_prefix_is_tag_and_length(field, length):
    assert length_prefix(field, length) == tag(field, LEN) + varint(length)
