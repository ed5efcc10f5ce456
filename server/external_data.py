"""Look for files that a graph has its weights in, and refuse those outside of its folder.

ONNX Runtime refuses them too, but not every release does wherever a tensor may stand: 1.24.1 reads
the values of sparse initializers from anywhere.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from server.errors import LoadError

# The key without which ONNX Runtime reads no other file.
_LOCATION = "location"
_CHUNK_BYTES = 2**20


def check(graph: Path) -> None:
    """LoadError names the first location that leads out of the graph's folder."""
    try:
        # Most graphs hold their weights themselves, and parsing those would take a while.
        if not _contains(graph, _LOCATION.encode()):
            return
        # Importing it would delay every start, and few graphs come this far.
        from onnx import ModelProto  # noqa: PLC0415

        model = ModelProto.FromString(graph.read_bytes())
    except OSError as error:
        raise LoadError(f"{graph}: {error.strerror}") from None
    except DecodeError:
        raise LoadError(f"{graph} is no ONNX model") from None
    folder = graph.parent.resolve()
    for location in _locations(model):
        if "\0" in location or not (folder / location).resolve().is_relative_to(folder):
            raise LoadError(f"{graph} has weights in {location!r}, outside of its folder")


def _contains(path: Path, wanted: bytes) -> bool:
    kept = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if wanted in kept + chunk:
                return True
            kept = chunk[1 - len(wanted) :]
    return False


def _locations(message: Any) -> Iterator[str]:
    """Of every tensor, however deep in nodes, functions and graphs within graphs."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (each.value for each in message.external_data if each.key == _LOCATION)
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                yield from _locations(part)
