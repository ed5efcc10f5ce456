"""Take paths from the command line, and reject URIs of other storage."""

import argparse
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOW = {
    "s3": "download it first, e.g. with `aws s3 cp --recursive`, or mount the bucket",
    "gs": "download it first, e.g. with `gcloud storage cp --recursive`, or mount the bucket",
    "hf": "download it first, e.g. with `hf download`",
}
_HOW_ELSE = "download it first, or mount where it is stored"


def path(text: str) -> Path:
    """A path, for argparse; ArgumentTypeError for an empty one and for a URI."""
    hint = uri_hint(text)
    if hint is not None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {hint}")
    if not text:
        raise argparse.ArgumentTypeError("got '', expected a path")
    return Path(text)


def uri_hint(text: str) -> str | None:
    """The expected form in place of a URI such as s3://bucket/models; None for a path.

    Otherwise a folder of that name would be read, or created, in the working directory.
    """
    if not _URI.match(text):
        return None
    scheme = text.partition(":")[0].lower()
    if scheme == "file":
        plain = unquote(urlsplit(text).path)
        return f"a plain path: {plain}" if plain else "a plain path"
    return f"a path on this machine: {_HOW.get(scheme, _HOW_ELSE)}"
