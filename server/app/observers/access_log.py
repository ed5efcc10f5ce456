"""Which requests and calls get a line of the access log."""

import itertools
import logging

from server.app.log_writer import LogWriter
from server.app.observers.access_line import LOGGER, CallLine, RequestLine
from server.rpc import health, reflection
from server.rpc.accounting.ended_request import EndedRequest
from server.rpc.accounting.stages import total_ns
from server.rpc.rpcs import SERVICE
from transport.serving.ended_call import EndedCall
from transport.status import Code

_INFER = f"/{SERVICE}/ModelInfer"
# Orchestrators and command lines make these all the time.
_PROBES = frozenset(f"/{SERVICE}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady"))
_PROBED_SERVICES = tuple(f"/{service}/" for service in (health.SERVICE, reflection.SERVICE))
# How a watch of the health service ends.
_USUAL_ENDS = (Code.OK, Code.CANCELLED)
_log = logging.getLogger(LOGGER)


class AccessLog:
    """Hands lines to the writer of stderr, in the threads that end requests and calls."""

    def __init__(self, every: int, slow_ns: int | None, writer: LogWriter) -> None:
        """Log one of `every` requests that succeed, with 0 none, and nothing else.

        Requests that take longer than `slow_ns` are logged as warnings in any case.
        """
        self._every = every
        self._slow_ns = slow_ns
        self._writer = writer
        self._count = itertools.count()

    def request_ended(self, request: EndedRequest) -> None:
        """Log an inference request; see RequestEnds.observe."""
        slow = self._slow_ns is not None and total_ns(request) > self._slow_ns
        if slow or (self._every and self._sampled(request)):
            self._writer.write_later(RequestLine.of(request, slow=slow).text)

    def call_ended(self, call: EndedCall) -> None:
        """Log a call that is no inference request; see CallEnds.observe."""
        if not self._every or (call.path == _INFER and not call.refused):
            return
        if self._probe(call) and not _log.isEnabledFor(logging.DEBUG):
            return
        self._writer.write_later(CallLine.of(call).text)

    def _sampled(self, request: EndedRequest) -> bool:
        if request.code is not Code.OK:
            return True
        return self._every == 1 or next(self._count) % self._every == 0

    @staticmethod
    def _probe(call: EndedCall) -> bool:
        known = call.path in _PROBES or call.path.startswith(_PROBED_SERVICES)
        return known and call.status.code in _USUAL_ENDS
