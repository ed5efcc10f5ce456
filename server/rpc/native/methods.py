"""What answers each call on the project's own transport."""

import threading
import weakref
from collections.abc import Callable

from server.repository.repository import Repository
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.native import status
from server.rpc.native.stream_call import StreamCall
from server.rpc.native.unary_call import UnaryCall
from server.rpc.servicer import StreamLimits
from server.rpc.thread_pools import ThreadPools
from transport.serving.handler import CallHandler, Method
from transport.serving.server_call import ServerCall
from transport.workers import Workers

_MOST_DECODED = 2**31
# Raises a ServingError for a call of this path, with this metadata, that is not permitted.
Authorize = Callable[[str, tuple[tuple[str, str | bytes], ...]], None]


class InferenceMethods:
    """Makes the handlers of ModelInfer and ModelStreamInfer."""

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        limits: StreamLimits,
        idle_trim: IdleTrim,
        pools: ThreadPools,
    ) -> None:
        self._repository = repository
        self._inference = inference
        self._limits = limits
        self._idle_trim = idle_trim
        self._pools = pools
        # One thread: the interpreter runs no more of them at once. Each call has one message here.
        self._workers = Workers(1, _MOST_DECODED, "decode")
        self._streams: weakref.WeakSet[StreamCall] = weakref.WeakSet()
        self._lock = threading.Lock()

    def unary(self, call: ServerCall) -> CallHandler:
        """Answer a ModelInfer."""
        return UnaryCall(call, self._inference, self._workers, self._pools.unary, self._idle_trim)

    def stream(self, call: ServerCall) -> CallHandler:
        """Answer a ModelStreamInfer."""
        stream = StreamCall(
            call,
            self._inference,
            self._limits,
            self._workers,
            self._pools.streams,
            self._idle_trim,
        )
        with self._lock:
            self._streams.add(stream)
        if not self._repository.ready:
            # It may have come too late for `stop_streams` to see it.
            stream.stop()
        return stream

    def close(self) -> None:
        """End the threads; no call may be open."""
        self._workers.close()

    def stop_streams(self) -> None:
        """End every stream once what was read of it is answered."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.stop()


def authorized(method: Method, path: str, authorize: Authorize) -> Method:
    """The method, for calls that may have it; others end before a message of theirs is read."""

    def start(call: ServerCall) -> CallHandler:
        with status.RAISED:
            authorize(path, call.metadata)
        return method(call)

    return start
