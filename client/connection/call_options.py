"""What a caller chooses for one call, and what holds where nothing was chosen."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypedDict

from client.connection.channel import RetryPolicy
from client.connection.metadata import Metadata, checked, merged
from client.connection.tracing import trace_metadata
from client.errors import UsageError


class CallOptions(TypedDict, total=False):
    """Keyword arguments of every method that calls a server; they hold for that call.

    `timeout_s`: a limit for the whole method, retries and reading of the model's metadata
    included, in place of the client's `deadline_s`; None: no limit. `metadata`: pairs (name,
    value), sent with every call of the method; values are str, or bytes for names that end with
    `-bin`. `retry` and `hedge_after_s`: in place of the client's own.
    """

    timeout_s: float | None
    metadata: Sequence[tuple[str, str | bytes]]
    retry: RetryPolicy
    hedge_after_s: float | None


@dataclass(frozen=True, slots=True)
class CallSettings:
    """Settings of one call, or of several that one method makes.

    `deadline_s` limits each call, `end_s` (time.monotonic) all together; None: no limit.
    """

    retry: RetryPolicy = RetryPolicy()
    deadline_s: float | None = None
    hedge_after_s: float | None = None
    metadata: Metadata = ()
    end_s: float | None = None

    def ends_s(self) -> float | None:
        """When a call ends that begins now (time.monotonic); None: no limit."""
        if self.end_s is not None or self.deadline_s is None:
            return self.end_s
        return time.monotonic() + self.deadline_s

    def of_call(self, options: CallOptions) -> "CallSettings":
        """These settings, changed for a call that begins now, with the trace of the caller.

        UsageError for a bad option; TypeError for an unknown one.
        """
        trace = trace_metadata()
        if not options and not trace:
            return self
        return self._changed(trace, **options)

    def _changed(self, trace: Metadata, **options: Any) -> "CallSettings":
        unknown = options.keys() - CallOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"got an unexpected keyword argument {min(unknown)!r}")
        deadline_s, end_s = self.deadline_s, self.end_s
        if "timeout_s" in options:
            deadline_s = options["timeout_s"]
            end_s = None if deadline_s is None else time.monotonic() + _seconds(deadline_s)
        retry = options.get("retry", self.retry)
        if not isinstance(retry, RetryPolicy):
            raise UsageError(f"retry: got {retry!r}, expected a RetryPolicy")
        return CallSettings(
            retry,
            deadline_s,
            options.get("hedge_after_s", self.hedge_after_s),
            merged(merged(self.metadata, trace), checked(options.get("metadata", ()))),
            end_s,
        )


def left_s(end_s: float | None) -> float | None:
    """Seconds until `end_s` (time.monotonic); None: no limit."""
    return None if end_s is None else end_s - time.monotonic()


def _seconds(timeout_s: float) -> float:
    if not isinstance(timeout_s, Real) or not 0 < timeout_s < math.inf:
        raise UsageError(f"timeout_s: got {timeout_s!r}, expected seconds over 0")
    return float(timeout_s)
