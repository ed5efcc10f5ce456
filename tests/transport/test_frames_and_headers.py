"""Frames, header blocks, messages and headers of calls, on anything that may come."""

import contextlib
import math
import struct
import tracemalloc

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import Frame
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transport import call, compression, messages
from transport.http2 import frames, headers
from transport.http2.fields import malformed
from transport.http2.frames import ConnectionFault, ErrorCode, StreamFault
from transport.messages import MessageReader
from transport.serving import request
from transport.status import Code, Status, StatusError, escape, unescape

IDS = st.integers(0, frames.MAX_STREAM_ID)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126))
NAMES = st.from_regex(r"[0-9a-z_.-]{1,20}", fullmatch=True).filter(
    lambda name: not name.endswith("-bin") and name not in call.RESERVED
)
FIELDS = st.lists(st.tuples(NAMES, TEXT), max_size=10)


@settings(deadline=None)
@given(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 255), IDS, st.booleans())
def test_a_frame_header_is_read_as_it_was_written(length, kind, flags, stream_id, reserved):
    raw = frames.header(length, kind, flags, stream_id | reserved << 31)
    assert frames.parse_header(b"x" + raw, 1) == (length, kind, flags, stream_id)


@settings(deadline=None)
@given(st.dictionaries(st.integers(7, 2**16 - 1), st.integers(0, 2**32 - 1)))
def test_settings_are_read_as_they_were_written(values):
    raw = frames.settings(values)
    assert dict(frames.parse_settings(raw[9:])) == values
    frame, length = Frame.parse_frame_header(memoryview(raw[:9]))
    frame.parse_body(memoryview(raw[9 : 9 + length]))
    assert dict(frame.settings) == values


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(0, 255), st.integers(1, 2**31 - 1))
def test_payloads_are_read_or_refused_in_the_protocols_words(payload, flags, stream_id):
    view = memoryview(payload)
    for parse in (
        frames.parse_settings,
        frames.parse_goaway,
        frames.parse_increment,
        lambda data: frames.header_fragment(data, flags, stream_id),
        lambda data: frames.check_priority(data, stream_id),
    ):
        with contextlib.suppress(ConnectionFault, StreamFault):
            parse(view)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({frames.ENABLE_PUSH: 2}, ErrorCode.PROTOCOL_ERROR),
        ({frames.INITIAL_WINDOW_SIZE: 2**31}, ErrorCode.FLOW_CONTROL_ERROR),
        ({frames.MAX_FRAME_SIZE: 16_383}, ErrorCode.PROTOCOL_ERROR),
        ({frames.MAX_FRAME_SIZE: 2**24}, ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_settings_out_of_range_are_refused(values, code):
    with pytest.raises(ConnectionFault) as caught:
        frames.parse_settings(frames.settings(values)[9:])
    assert caught.value.code is code


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(1, 60), st.booleans())
def test_long_header_blocks_are_cut_into_continuations(block, most, ends):
    raw = frames.headers(5, block, most, end_stream=ends)
    pieces, kinds = [], []
    while raw:
        length, kind, flags, stream_id = frames.parse_header(raw)
        assert (length <= most, stream_id) == (True, 5)
        assert bool(flags & frames.END_HEADERS) == (len(raw) == 9 + length)
        kinds.append(kind)
        pieces.append(raw[9 : 9 + length])
        if kind == frames.HEADERS:
            assert bool(flags & frames.END_STREAM) == ends
        raw = raw[9 + length :]
    assert b"".join(pieces) == block
    assert kinds == [frames.HEADERS] + [frames.CONTINUATION] * (len(kinds) - 1)


@settings(deadline=None)
@given(FIELDS)
def test_any_decoder_reads_our_blocks(fields):
    assert [tuple(each) for each in Decoder().decode(headers.encode(fields))] == fields


# `make fuzz` tries millions.
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(range(4)), st.booleans()), max_size=30), st.data())
def test_remembered_blocks_mean_what_they_would_mean_decoded_anew(order, data):
    lists = [data.draw(FIELDS) for _ in range(4)]
    encoder, plain = Encoder(), Decoder()
    reader = headers.HeaderReader(lambda fields: fields)
    for which, shrink in order:
        if shrink:
            encoder.header_table_size = 64 if encoder.header_table_size > 64 else 4096
        block = encoder.encode(lists[which])
        assert list(reader.read(block)) == [tuple(each) for each in plain.decode(block)]


def test_the_same_bytes_mean_something_else_once_the_table_has_changed():
    encoder = Encoder()
    reader = headers.HeaderReader(lambda fields: fields)
    for fields in ((("x-first", "1"),), (("x-second", "2"),)):
        blocks = [encoder.encode(fields) for _ in range(3)]
        assert [reader.read(block) for block in blocks] == [fields] * 3
        assert blocks[1] == blocks[2] == b"\xbe"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_damaged_blocks_are_a_fault_of_the_connection(block):
    reader = headers.HeaderReader(request.parse)
    with contextlib.suppress(ConnectionFault):
        reader.read(block)


@settings(deadline=None)
@given(FIELDS)
def test_requests_are_read_or_called_malformed(fields):
    parsed = request.parse(tuple(fields))
    assert parsed.malformed or parsed.path


class Owner:
    """Takes messages; each is admitted at once, or when it is asked for."""

    def __init__(self, admits):
        self.admits = list(admits)
        self.messages = []
        self.over = False
        self.stashed = 0

    def admit(self, length):
        return self.admits.pop() if self.admits else True

    def deliver(self, message):
        self.messages.append(bytes(message))

    def measure(self, packed):
        self.packed = packed

    def stash(self, count):
        self.stashed += count
        return True

    def unstash(self, count):
        self.stashed -= count

    def ended(self):
        self.over = True


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=30) | st.integers(5000, 9000).map(bytes), max_size=8),
    st.lists(st.integers(1, 6000), min_size=1, max_size=20),
    st.lists(st.booleans(), max_size=8),
)
@example([b""] * 3, [8], [False, True, False])
def test_messages_are_put_together_whatever_pieces_they_come_in(sent, cuts, admits):
    owner = Owner(admits)
    reader = MessageReader(owner, 10_000)
    stream = b"".join(messages.prefix(len(each)) + each for each in sent)
    turn = 0
    while stream:
        count = cuts[turn % len(cuts)]
        turn += 1
        target = reader.target(count)
        piece, stream = stream[:count], stream[count:]
        if target is not None:
            target = target[: len(piece)]
            target[:] = piece[: len(target)]
            reader.filled(len(target))
            piece = piece[len(target) :]
        reader.feed(memoryview(piece))
        if turn % 3 == 0 and reader.waiting:
            reader.resume()
    reader.end()
    while reader.waiting:
        assert not owner.over
        reader.resume()
    assert owner.messages == sent
    assert owner.over
    assert owner.stashed == 0


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_anything_that_is_no_message_ends_its_call(data):
    owner = Owner(())
    reader = MessageReader(owner, 100)
    with contextlib.suppress(StatusError):
        reader.feed(memoryview(data))
        reader.end()
        assert owner.over


def unpacked(packed, encoding, most):
    return compression.unpack(packed, encoding, compression.size(packed, encoding, most))


@settings(deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]), st.integers(0, 4000))
def test_packed_messages_are_unpacked_up_to_the_limit(data, encoding, most):
    packed = compression.pack([data[:10], data[10:]], encoding)
    if len(data) > most:
        with pytest.raises(StatusError, match="larger than the limit"):
            unpacked(packed, encoding, most)
    else:
        assert unpacked(packed, encoding, most) == data
        with pytest.raises(StatusError, match=r"cannot be unpacked|larger than the limit"):
            unpacked(packed[:-1], encoding, most)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_unpacking_takes_no_more_memory_than_the_limit_allows(encoding):
    packed = compression.pack([bytes(2**20)] * 64, encoding)
    tracemalloc.start()
    try:
        with pytest.raises(StatusError, match="larger than the limit"):
            unpacked(packed, encoding, 10**6)
        # Nor where a message states that it is smaller than it is.
        with pytest.raises(StatusError, match="larger than the limit"):
            compression.unpack(packed, encoding, 1000)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_unpacking_ends_once_nobody_waits(encoding):
    packed = compression.pack([bytes(2**20)] * 64, encoding)
    asked = []

    def wanted():
        asked.append(True)
        return len(asked) < 3

    with pytest.raises(StatusError, match="nobody waits"):
        compression.unpack(packed, encoding, 64 * 2**20, wanted)
    assert len(asked) == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_message_that_goes_on_after_its_end_is_damaged(encoding):
    packed = compression.pack([b"abc"], encoding)
    with pytest.raises(StatusError, match="goes on after its end"):
        compression.unpack(packed + b"\3\0\0\0", encoding, 3)


@settings(deadline=None)
@given(st.text())
def test_status_texts_survive_their_escapes(text):
    text = text.encode("utf-8", "replace").decode()
    escaped = escape(text)
    assert unescape(escaped) == text
    assert all(" " <= character <= "~" for character in escaped)


@settings(deadline=None)
@given(TEXT)
def test_a_damaged_text_is_kept_as_far_as_it_can_be_read(text):
    assert isinstance(unescape(text), str)


@settings(deadline=None)
@given(st.floats(0, 1e9))
def test_timeouts_are_never_shortened(timeout_s):
    written = call.encode_timeout(timeout_s)
    assert call.decode_timeout(written) >= timeout_s * (1 - 1e-12)
    assert call.decode_timeout(written) <= max(timeout_s * 1.1, timeout_s + 1e-3)


@pytest.mark.parametrize("timeout_s", [1e12, 1e305, math.inf])
def test_a_timeout_beyond_the_longest_is_the_longest(timeout_s):
    assert call.encode_timeout(timeout_s) == "99999999H"


@pytest.mark.parametrize("value", ["", "1", "S", "123456789S", "1x", "-1S", "1 S", "1.5S"])
def test_a_malformed_timeout_ends_the_call(value):
    with pytest.raises(StatusError, match="grpc-timeout"):
        call.decode_timeout(value)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, TEXT) | st.tuples(NAMES.map("{}-bin".format), st.binary())))
def test_metadata_come_back(metadata):
    assert call.decode_metadata(tuple(call.encode_metadata(metadata))) == tuple(metadata)


def test_joined_and_padded_binary_metadata_are_read():
    assert call.decode_metadata((("a-bin", "AAE=,AAE"),)) == (
        ("a-bin", b"\0\1"),
        ("a-bin", b"\0\1"),
    )
    with pytest.raises(StatusError, match="a key with -bin is not base64"):
        call.decode_metadata((("a-bin", "*"),))


@pytest.mark.parametrize("pair", [("Upper", "x"), ("te", "x"), ("a", "\n"), ("a", "é"), ("", "x")])
def test_metadata_that_cannot_be_sent_are_refused(pair):
    with pytest.raises(ValueError, match="metadata"):
        call.encode_metadata([pair])


@settings(deadline=None)
@given(st.sampled_from(Code), st.text(max_size=50))
def test_a_status_comes_back_from_its_trailers(code, text):
    text = text.encode("utf-8", "replace").decode()
    written = tuple(call.encode_status(Status(code, text, (("a-bin", b"\0"),))))
    assert call.decode_status(written) == Status(code, text, (("a-bin", b"\0"),))


def test_a_message_says_how_long_it_is():
    assert messages.prefix(258) == b"\0\0\0\1\2" == struct.pack(">BI", 0, 258)


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "header",
    [
        (f"bad name {SECRET}", "x"),
        (f":{SECRET}", "x"),
        ("te", SECRET),
        ("connection", SECRET),
        (f"x-{SECRET}", "line\nbreak"),
    ],
)
def test_a_fault_of_a_header_has_none_of_its_words(header):
    fault = malformed((header,), frozenset())
    assert fault
    assert SECRET not in fault


@pytest.mark.parametrize(
    "header",
    [("grpc-timeout", SECRET), ("grpc-encoding", SECRET), (f"{SECRET}-bin", "%")],
)
def test_a_status_for_a_header_has_none_of_its_words(header):
    usual = ((":method", "POST"), (":scheme", "http"), (":path", "/a/B"))
    found = request.parse((*usual, ("content-type", "application/grpc"), header))
    assert found.refused is not None
    assert SECRET not in found.refused.status.text
