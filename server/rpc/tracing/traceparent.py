"""Read the trace that a call belongs to (https://www.w3.org/TR/trace-context/)."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_KEY = "traceparent"
# Version, trace id, span id, flags; later versions may add to it.
_FORM = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_FIRST, _INVALID = "00", "ff"
_SAMPLED = 1


class TraceParent(NamedTuple):
    """The client's span; ids are lower-case hexadecimal digits, 32 and 16."""

    trace_id: str
    span_id: str
    sampled: bool


def parent(metadata: Sequence[tuple[str, str | bytes]]) -> TraceParent | None:
    """The client's span in the metadata of a call; None without one, or if it is not valid."""
    found: str | bytes | None = None
    for key, value in metadata:
        if key == _KEY:
            if found is not None:
                return None
            found = value
    return parsed(found) if isinstance(found, str) else None


def parsed(text: str) -> TraceParent | None:
    """The value of a traceparent; None if it is not valid."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == _INVALID or (version == _FIRST and more is not None):
        return None
    if not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
