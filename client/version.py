"""Name this client, as it does to servers and in records."""

from functools import cache
from importlib import metadata

_DISTRIBUTION = "argmax-serving"


@cache
def client_name() -> str:
    """Library and version, such as `argmax-serving/0.1.0`; no version if it is not installed."""
    try:
        return f"{_DISTRIBUTION}/{metadata.version(_DISTRIBUTION)}"
    except metadata.PackageNotFoundError:
        return _DISTRIBUTION
