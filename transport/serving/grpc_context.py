"""grpcio's ServicerContext for a call of this transport."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import grpc

from transport.serving.server_call import ServerCall
from transport.status import Code, Metadata, Status

_log = logging.getLogger(__name__)

_COMPRESSION = {
    grpc.Compression.NoCompression: "identity",
    grpc.Compression.Deflate: "deflate",
    grpc.Compression.Gzip: "gzip",
}


class Metadatum(NamedTuple):
    """One pair of metadata, as grpcio gives them."""

    key: str
    value: str | bytes


class Aborted(Exception):
    """`abort` was called; the call has its status."""


def code_of(code: Any) -> Code:
    """The code of a grpc.StatusCode, or of a number."""
    return Code(code.value[0] if isinstance(code, grpc.StatusCode) else int(code))


def as_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Metadata as the transport keeps it."""
    return tuple((key, value) for key, value in metadata or ())


class Context(grpc.ServicerContext):  # type: ignore[misc]
    """What a servicer's method gets beside its request."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._ended = False
        self._code: Any = None
        self._details: Any = None
        self._trailing: Metadata = ()

    # --- what the method asks for

    def is_active(self) -> bool:
        """Whether the client still waits."""
        return not self._call.done

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return self._call.time_remaining_s()

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """The client's metadata."""
        return tuple(Metadatum(*pair) for pair in self._call.metadata)

    def peer(self) -> str:
        """The client's address."""
        return self._call.peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What is known of the client from TLS."""
        return self._call.server_connection.auth_context

    def peer_identity_key(self) -> str | None:
        """The property of `auth_context` that names the client."""
        properties = self.auth_context()
        for key in ("x509_subject_alternative_name", "x509_common_name"):
            if key in properties:
                return key
        return None

    def peer_identities(self) -> Iterable[bytes] | None:
        """The client's names."""
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` once the call has ended; False: it has."""
        with self._lock:
            if self._ended:
                return False
            self._callbacks.append(callback)
            return True

    # --- what the method says

    def cancel(self) -> None:
        """End the call as cancelled."""
        self._call.cancel()

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send metadata before the first message."""
        if not self._call.start(as_metadata(initial_metadata)) and not self._call.done:
            raise ValueError("Initial metadata no longer allowed!")

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set metadata that goes with the status."""
        self._trailing = as_metadata(trailing_metadata)

    def trailing_metadata(self) -> Metadata:
        """See `set_trailing_metadata`."""
        return self._trailing

    def set_compression(self, compression: Any) -> None:
        """Compress the answers, where the client takes it; before the first one."""
        self._call.compression = _COMPRESSION[compression]

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._call.plain_next = True

    def set_code(self, code: Any) -> None:
        """Set the status code that the call ends with."""
        self._code = code

    def set_details(self, details: Any) -> None:
        """Set the status's text."""
        self._details = details

    def code(self) -> Any:
        """See `set_code`."""
        return self._code

    def details(self) -> Any:
        """See `set_details`."""
        return self._details

    def abort(self, code: Any, details: Any) -> NoReturn:
        """End the call with a status; raises."""
        if code == grpc.StatusCode.OK:
            _log.error("abort() called with StatusCode.OK")
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._code, self._details = code, details
        raise Aborted

    def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a grpc.Status; raises."""
        self._trailing = as_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)

    # --- for the adapter

    def status(self, failure: str | None = None) -> Status:
        """How the call ends when its method has returned, or has raised `failure`."""
        code = self._code if failure is None or self._code is not None else Code.UNKNOWN
        if code is None:
            code = Code.OK
        if failure is not None and code in {Code.OK, grpc.StatusCode.OK}:
            code = Code.UNKNOWN
        text = self._details if self._details is not None else failure or ""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return Status(code_of(code), text, self._trailing)

    def end(self) -> None:
        """The call has ended: call the callbacks."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _log.exception("a callback of a call that has ended failed")
