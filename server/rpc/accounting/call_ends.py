"""Count each call of any method once, when it ends, and hand it to observers."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.batching.statistics import Histogram
from server.rpc import health, reflection
from server.rpc.rpcs import RPCS, SERVICE, Kind
from transport.serving.ended_call import EndedCall, OnCallEnded
from transport.status import Code

_log = logging.getLogger(__name__)

# As the common interceptors for Prometheus name them.
_UNARY, _SERVER_STREAM, _BIDI_STREAM = "unary", "server_stream", "bidi_stream"
# Stands for all that clients may invent.
_UNKNOWN = "unknown"
_FIRST_NS = 500_000


def _times() -> Histogram:
    return Histogram(_FIRST_NS)


@dataclass(slots=True)
class MethodCounts:
    """Calls of one method by code, and their times; of any unknown method together."""

    kind: str
    service: str
    name: str
    # By the number of the code: looking one up in a dictionary calls Python's own code.
    codes: list[int] = field(default_factory=lambda: [0] * len(Code))
    times: Histogram = field(default_factory=_times)

    def copy(self) -> "MethodCounts":
        """What was counted so far."""
        copied = MethodCounts(self.kind, self.service, self.name, self.codes.copy())
        copied.times.merge(self.times)
        return copied


class CallEnds:
    """The one place where calls end; any thread."""

    def __init__(self) -> None:
        self._observers: tuple[OnCallEnded, ...] = ()
        self._lock = threading.Lock()
        self._methods = {
            f"/{service}/{name}": MethodCounts(kind, service, name)
            for service, name, kind in _known()
        }
        self._others = MethodCounts(_UNKNOWN, _UNKNOWN, _UNKNOWN)
        self._refused: Counter[Code] = Counter()

    def observe(self, observer: OnCallEnded) -> None:
        """Call `observer` with each call that ends from now on, in the thread that ended it.

        It must be quick: it may hold up the I/O thread, or the worker of a model.
        """
        self._observers = (*self._observers, observer)

    @property
    def observed(self) -> bool:
        """Whether anything observes them."""
        return bool(self._observers)

    def ended(self, call: EndedCall) -> None:
        """Count one call; see ServerOptions.on_call_ended."""
        ns = int((time.monotonic() - call.began_s) * 1e9)
        method = self._methods.get(call.path, self._others)
        with self._lock:
            method.codes[call.status.code] += 1
            method.times.add(ns)
            if call.refused:
                self._refused[call.status.code] += 1
        for observer in self._observers:
            try:
                observer(call)
            except Exception:
                _log.exception("an observer of calls failed")

    @property
    def methods(self) -> Sequence[MethodCounts]:
        """What was counted so far; unknown methods together are the last."""
        with self._lock:
            return [each.copy() for each in (*self._methods.values(), self._others)]

    @property
    def refused(self) -> Counter[Code]:
        """Calls that no handler had, by the code that their clients got."""
        with self._lock:
            return Counter(self._refused)


def _known() -> list[tuple[str, str, str]]:
    """Service, name and kind of every method."""
    own = [(SERVICE, rpc.name, _BIDI_STREAM if rpc.kind is Kind.STREAM else _UNARY) for rpc in RPCS]
    return [
        *own,
        (health.SERVICE, "Check", _UNARY),
        (health.SERVICE, "Watch", _SERVER_STREAM),
        (reflection.SERVICE, "ServerReflectionInfo", _BIDI_STREAM),
    ]
