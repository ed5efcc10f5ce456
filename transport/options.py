"""What both sides choose about their connections."""

from dataclasses import dataclass

from transport.http2 import frames


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What both sides choose about a connection. Times in seconds; None: never."""

    # What a stream may send ahead of a message that is admitted, at first.
    stream_window: int = 1024 * 1024
    # The same for a stream with large messages, and how much more all streams get together.
    max_stream_window: int = 16 * 2**20
    read_ahead_bytes: int = 64 * 2**20
    max_frame: int = frames.LARGEST_MAX_FRAME
    max_message_bytes: int = 2**31 - 1
    max_header_bytes: int = 16 * 1024
    # Without a byte from the peer for so long it is asked with a PING, and given up as long after.
    keepalive_s: float | None = None
    keepalive_timeout_s: float = 20.0
    # The peer reads nothing of what is sent.
    send_stall_s: float | None = 60.0
    preface_s: float = 20.0


@dataclass(frozen=True, slots=True)
class ServerConnectionOptions(ConnectionOptions):
    """What a server chooses beside. Times in seconds; None: never."""

    max_concurrent_streams: int = 1_000
    # Of answers that a client has not taken, before no message of it is admitted.
    max_unread_bytes: int = 64 * 2**20
    # From a call's start, or the end of its last message, until a request of one message is here;
    # and of any message from its first byte to its last.
    receive_s: float | None = None
    # Without any call.
    idle_s: float | None = None
    # Of a connection, give or take a tenth, before its client is asked to make a new one; and how
    # long the calls on it may take from then on.
    max_age_s: float | None = None
    max_age_grace_s: float | None = None
