import contextlib
import socket
import threading
import time

import pytest

from transport.http2.frames import DATA, END_STREAM, HEADER_BYTES, parse_header
from transport.http2.outgoing import Framed, Message, Outgoing
from transport.http2.pipes import PlainPipe
from transport.http2.sending import Sender

LONG_S = 1000.0


class Watched(Outgoing):
    """Notes when its progress was counted from, each time that more is pending."""

    @property
    def pending(self):
        return self.bytes_pending

    @pending.setter
    def pending(self, count):
        self.bytes_pending = count
        if count:
            self.since_s = self.progress_s


@pytest.fixture
def peer():
    with contextlib.ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        theirs.settimeout(20)
        lock = threading.Lock()

        def nothing(*_):
            return None

        yield Sender(lock, PlainPipe(ours), nothing, nothing, nothing), theirs


@pytest.mark.parametrize("pending", [Message([b"late"]), Framed(b"frames", 4, None)])
def test_a_stream_that_was_silent_for_long_is_not_taken_for_one_that_makes_no_progress(
    peer, pending
):
    sender, _ = peer
    stream = Watched(1, send_window=0)
    stream.progress_s = time.monotonic() - LONG_S
    with sender.lock:
        sender.put_locked(stream, pending)
    assert time.monotonic() - stream.since_s < LONG_S / 2


def test_a_framed_message_is_sent_as_it_is_and_ends_its_stream(peer):
    sender, theirs = peer
    stream, sent = Outgoing(1, send_window=10), []
    with sender.lock:
        assert sender.reserve_locked(stream, 10)
        sender.put_locked(
            stream, Framed(b"ten frames", 10, lambda began_ns: sent.append(stream.stream_id))
        )
    assert theirs.recv(100) == b"ten frames"
    assert (stream.local_ended, stream.send_window, stream.pending, sent) == (True, 0, 0, [1])
    assert sender.pending == 0


@pytest.mark.parametrize("narrow", ["stream", "connection"])
def test_nothing_is_reserved_where_a_window_has_no_room(peer, narrow):
    sender, _ = peer
    stream = Outgoing(1, send_window=9 if narrow == "stream" else 100)
    sender.window = 9 if narrow == "connection" else 100
    before = stream.send_window, sender.window
    with sender.lock:
        assert not sender.reserve_locked(stream, 10)
    assert (stream.send_window, sender.window) == before


def test_what_waits_for_the_connections_window_comes_first(peer):
    sender, _ = peer
    sender.window = 100
    large, small = Outgoing(1, send_window=1000), Outgoing(3, send_window=100)
    sender.cork()
    with sender.lock:
        sender.put_locked(large, Message([bytes(200)]))
        assert not sender.reserve_locked(small, 10)
    sender.uncork()
    assert (sender.window, small.send_window) == (0, 100)


def test_what_a_dropped_stream_reserved_of_the_connections_window_is_given_to_others(peer):
    sender, theirs = peer
    sender.window = 10
    dropped, other = Outgoing(1, send_window=10), Outgoing(3, send_window=10)
    sender.cork()
    with sender.lock:
        assert sender.reserve_locked(dropped, 10)
        sender.put_locked(dropped, Framed(b"never sent", 10, None))
        sender.drop_locked(dropped)
        sender.put_locked(other, Message([b"other"], end_stream=True))
    sender.uncork()
    length, kind, flags, stream_id = parse_header(theirs.recv(HEADER_BYTES))
    assert (length, kind, flags, stream_id) == (10, DATA, END_STREAM, 3)
