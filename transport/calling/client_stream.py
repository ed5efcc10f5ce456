"""The stream of one attempt of a client's call."""

from typing import TYPE_CHECKING

from transport import status as statuses
from transport.calling.failures import Cut
from transport.calling.response import Response
from transport.http2.frames import ErrorCode
from transport.http2.stream import Stream
from transport.status import DEADLINE_EXCEEDED, Code, Status

if TYPE_CHECKING:
    from transport.calling.client_call import ClientCall
    from transport.calling.client_connection import ClientConnection

# Of resets; by the others a server refuses the call.
_OF_CUTS = (Code.CANCELLED, Code.INTERNAL)


class ClientStream(Stream):
    """Reads the answer to a call; the I/O thread calls."""

    __slots__ = ("_trailers", "call", "started")

    def __init__(
        self, connection: "ClientConnection", stream_id: int, client_call: "ClientCall"
    ) -> None:
        super().__init__(
            connection,
            stream_id,
            connection.initial_send_window,
            connection.options.stream_window,
            connection.options.max_message_bytes,
        )
        self.call = client_call
        self.started = False
        self._trailers: Status | None = None

    def headers(self, response: Response, *, end_stream: bool) -> None:
        """A header block of the answer arrived."""
        if not self.started and response.http_status is not None and response.http_status < 200:
            return
        if response.status is not None and end_stream:
            self._trailers = response.status
        elif response.refused is not None:
            self.fail(response.refused)
            return
        elif end_stream:
            self._trailers = Status(Code.UNKNOWN, "the answer has no grpc-status")
        if not self.started:
            self.started = True
            self.reader.encoding = response.encoding
            self.call.on_start(() if end_stream else response.metadata)
        elif not end_stream:
            self.fail(Status(Code.INTERNAL, "got headers in the middle of the answer"))
            return
        if end_stream:
            self.connection.remote_end(self)

    def fail(self, status: Status) -> None:
        """End the call and its stream."""
        self.reset(ErrorCode.CANCEL)
        self.call.on_end(status)

    def admit(self, length: int) -> bool:
        """See Stream."""
        return self.call.admit(length)

    def deliver(self, message: memoryview) -> None:
        """See Stream."""
        self.call.on_message(message, self.reader.first_ns)

    def ended(self) -> None:
        """See Stream."""
        if not self.local_ended:
            # What the call still sends is of no use.
            self.reset(ErrorCode.NO_ERROR)
        status = self._trailers
        if status is None:
            status = Cut(Code.INTERNAL, "the answer ended without trailers")
        elif status.code is Code.CANCELLED:
            status = Cut(status.code, status.text, status.trailing)
        self.call.on_end(status)

    def failed(self, status: Status) -> None:
        """See Stream."""
        trailers = self._trailers
        self.fail(status if trailers is None or trailers.code is Code.OK else trailers)

    def on_reset(self, code: int) -> None:
        """See Stream."""
        if code == ErrorCode.REFUSED_STREAM and self.call.try_again():
            return
        if code == ErrorCode.CANCEL and self.call.time_remaining() == 0.0:
            # The server's timer was faster than ours.
            self.call.on_end(DEADLINE_EXCEEDED)
            return
        name = ErrorCode(code).name if code in ErrorCode.__members__.values() else str(code)
        kind = Cut if statuses.of_reset(code) in _OF_CUTS else Status
        self.call.on_end(kind(statuses.of_reset(code), f"the server reset the stream: {name}"))

    def on_lost(self, text: str) -> None:
        """See Stream."""
        self.call.on_end(Status(Code.UNAVAILABLE, text))

    def not_processed(self, text: str) -> None:
        """The server said that it has not seen the call."""
        if not self.call.try_again():
            self.call.on_end(Status(Code.UNAVAILABLE, text))
