"""What a stream sends: messages as the buffers they lie in, and its place in the queue."""

from collections import deque
from collections.abc import Callable, Sequence

from transport.http2.frames import Buffer
from transport.messages import PREFIX_BYTES, as_bytes, prefix

# Called when the kernel has the last byte of a message, with the instant at which the write began
# that took it (time.monotonic_ns). The connection's lock is held: it must not block.
OnSent = Callable[[int], None]
# Called in its place when the message is dropped: its stream, or the connection, has ended. It must
# not block either.
OnDropped = Callable[[], None]


class Message:
    """A message that is being sent."""

    __slots__ = ("end_stream", "left", "on_dropped", "on_sent", "views")

    def __init__(
        self,
        buffers: Sequence[Buffer],
        *,
        end_stream: bool = False,
        packed: bool = False,
        on_sent: OnSent | None = None,
        on_dropped: OnDropped | None = None,
    ) -> None:
        views = as_bytes(buffers)
        size = sum(map(len, views))
        # Views are taken from the end.
        views.reverse()
        views.append(memoryview(prefix(size, packed=packed)))
        self.views = views
        self.left = size + PREFIX_BYTES
        self.end_stream = end_stream
        self.on_sent = on_sent
        self.on_dropped = on_dropped

    @classmethod
    def without_prefix(cls, body: bytes) -> "Message":
        """The body of an answer that is not gRPC's; it ends its stream."""
        message = cls((body,), end_stream=True)
        message.views.pop()
        message.left -= PREFIX_BYTES
        return message

    def take(self, count: int, buffers: list[Buffer]) -> None:
        """Move the first `count` bytes to `buffers`."""
        self.left -= count
        views = self.views
        while count:
            view = views[-1]
            if len(view) > count:
                buffers.append(view[:count])
                views[-1] = view[count:]
                return
            buffers.append(views.pop())
            count -= len(view)


class Framed:
    """A small message with the headers around it, all framed already; it ends its stream.

    The windows had room for its `left` bytes of DATA, and were narrowed when it was framed.
    """

    __slots__ = ("frames", "left", "on_dropped", "on_sent")

    def __init__(
        self, frames: bytes, left: int, on_sent: OnSent | None, on_dropped: OnDropped | None = None
    ) -> None:
        self.frames = frames
        self.left = left
        self.on_sent = on_sent
        self.on_dropped = on_dropped


class Outgoing:
    """The sending half of a stream."""

    __slots__ = (
        "entries",
        "local_ended",
        "pending",
        "progress_s",
        "queued",
        "send_window",
        "stream_id",
    )

    def __init__(self, stream_id: int, send_window: int) -> None:
        self.stream_id = stream_id
        self.send_window = send_window
        # Framed headers as bytes; they take no window.
        self.entries: deque[bytes | Message | Framed] = deque()
        self.pending = 0  # bytes of messages that are not framed yet
        self.queued = False
        self.local_ended = False
        self.progress_s = 0.0

    def on_framed(self) -> None:
        """Bytes of a message were framed. The connection's lock is held: do little."""

    def end(self) -> None:
        """END_STREAM was framed; the connection's lock is held."""
        self.local_ended = True
        self.on_local_end()

    def on_local_end(self) -> None:
        """END_STREAM was framed. The connection's lock is held: do little."""
