"""Write metrics in the format that a scraper asks for."""

import re

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_OPENMETRICS = "application/openmetrics-text"
# Triton's counters lack the suffix that the library gives to all counters, so they are declared as
# of an unknown type; the older format may call them what they are.
_TRITON_TYPE = re.compile(
    rb"^(# TYPE nv_inference_(?!pending_request_count)\w+) untyped$", re.MULTILINE
)


def encode(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All metrics in the text format, or in OpenMetrics where `accept` asks for it; and its type.

    `accept`: the header of that name. Its parameters, which the library chokes on where they are
    malformed, choose nothing that matters here.
    """
    write, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
    text = write(registry)
    if content_type.startswith("text/plain"):
        text = _TRITON_TYPE.sub(rb"\1 counter", text)
    return text, content_type
