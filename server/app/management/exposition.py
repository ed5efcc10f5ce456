"""Write metrics in the format that a scraper asks for."""

from collections.abc import Callable, Iterator
from functools import lru_cache

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.utils import floatToGoString

_OPENMETRICS = "application/openmetrics-text"
_TEXT = "text/plain"
# Triton's counters lack the suffix that the library gives to all counters, so they are declared as
# of an unknown type; the text format may call them what they are.
_TRITON_COUNTERS = "nv_inference_"
_MOST_LABELS = 2**14
_number: Callable[[float], str] = floatToGoString


def encode(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All metrics in the text format, and its type.

    In OpenMetrics if `accept`, the header of that name, has that alone: the library writes it, and
    takes ten times as long. Parameters, which the library chokes on where they are malformed,
    choose nothing that matters here.
    """
    if _OPENMETRICS in accept and _TEXT not in accept:
        write, content_type = choose_encoder(_OPENMETRICS)
        return write(registry), content_type
    lines = [line for family in registry.collect() for line in _family(family)]
    return "".join(lines).encode(), CONTENT_TYPE_PLAIN_0_0_4


def _family(family: Metric) -> Iterator[str]:
    """Lines of counters, gauges, histograms, and of Triton's counters, the only kinds here.

    The library looks at the name of each label of each sample: 20 us a line, so that a scrape every
    second would take one core's hundredth from requests.
    """
    name, kind = family.name, family.type
    if kind == "counter":
        name += "_total"
    elif kind == "unknown":
        kind = "counter" if name.startswith(_TRITON_COUNTERS) else "untyped"
    yield f"# HELP {name} {_escaped(family.documentation)}\n# TYPE {name} {kind}\n"
    for sample in family.samples:
        labels = _labels(tuple(sample.labels.items())) if sample.labels else ""
        yield f"{sample.name}{labels} {_number(sample.value)}\n"


@lru_cache(_MOST_LABELS)
def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    values = [f'{name}="{_escaped(value, quoted=True)}"' for name, value in sorted(labels)]
    return "{" + ",".join(values) + "}"


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text
