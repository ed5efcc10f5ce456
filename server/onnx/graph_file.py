"""Read a graph for ONNX Runtime, with weights from inside the model repository only.

ONNX Runtime rejects other files too, but not in every release and for every tensor: 1.24.1 reads
the values of sparse initializers from anywhere. Its rules for links differ from release to release.
So weights elsewhere in the repository are passed to it by the path that was checked.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from server.errors import StartError

# Protobuf's own limit; weights beyond it are in files beside the graph.
MOST_BYTES = 2**31 - 1
# For a session that gets a graph as bytes: the folder that locations are relative to.
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"

# The key without which ONNX Runtime reads no other file.
_LOCATION = "location"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph whose weights were found to be inside the repository.

    `content`: the graph with the locations of its weights relative to `root`, the repository's real
    path. None: all are in the graph's own folder, and it can be loaded from `path`.
    """

    path: Path
    root: str
    content: bytes | None = None


def read(path: Path, repository: Path) -> Graph:
    """The graph in a file, which is parsed if it names other files.

    StartError names the first location outside the folder or, by a link, outside the repository,
    and any file that is a Git LFS pointer.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StartError(
                f"{path} has {path.stat().st_size} bytes, expected at most {MOST_BYTES} and larger "
                "weights in files beside it"
            )
        _refuse_pointer(path)
        root, folder = os.path.realpath(repository), os.path.realpath(path.parent)
        # Most graphs hold their weights themselves, and parsing them would be slow.
        if not _contains(path, _LOCATION.encode()):
            return Graph(path, root)
        # Importing it would delay every start, and few graphs need it.
        from onnx import ModelProto  # noqa: PLC0415

        model = ModelProto.FromString(path.read_bytes())
        linked = False
        for entry in _locations(model):
            target = _target(path, _text(path, entry.value), root)
            elsewhere = not Path(target).is_relative_to(folder)
            if elsewhere and not os.path.isfile(target):
                raise StartError(f"{path} has weights in {entry.value!r}, a broken link")
            _refuse_pointer(Path(target))
            linked |= elsewhere
            entry.value = os.path.relpath(target, root)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    except DecodeError:
        raise StartError(f"{path} is not an ONNX model") from None
    return Graph(path, root, model.SerializeToString() if linked else None)


def _text(graph: Path, location: str | bytes) -> str:
    # Protobuf gives texts that are no UTF-8 as bytes.
    if isinstance(location, bytes):
        raise StartError(f"{graph} has weights in {location!r}, expected UTF-8")
    return location


def _target(graph: Path, location: str, root: str) -> str:
    """Return the real path of weights."""
    path = os.path.normpath(graph.parent / location)
    if "\0" in location or not Path(path).is_relative_to(os.path.normpath(graph.parent)):
        raise StartError(f"{graph} has weights in {location!r}, outside its folder")
    target = os.path.realpath(graph.parent / location)
    if not Path(target).is_relative_to(root):
        raise StartError(
            f"{graph} has weights in {location!r}, which leads out of the model repository"
        )
    _refuse_shared(graph, location, target)
    return target


def _refuse_shared(graph: Path, location: str, target: str) -> None:
    """Weights that a link to a folder above leads to are not among the version's checked files."""
    # ONNX Runtime reports a missing file, with the tensor that needs it.
    if not os.path.lexists(target):
        return
    stat = os.stat(target)
    if not S_ISREG(stat.st_mode):
        raise StartError(f"{graph} has weights in {location!r}, which is no file")
    if stat.st_nlink > 1:
        raise StartError(
            f"{graph} has weights in {location!r}, which has {stat.st_nlink} names (hard links), "
            "expected a copy"
        )


def _refuse_pointer(path: Path) -> None:
    # ONNX Runtime reports a missing file, with the tensor that needs it.
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise StartError(
                f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` where the "
                "repository was cloned"
            )


def _contains(path: Path, pattern: bytes) -> bool:
    kept = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if pattern in kept + chunk:
                return True
            kept = chunk[1 - len(pattern) :]
    return False


def _locations(message: Any) -> Iterator[Any]:
    """External data entries of every tensor, also in nodes, functions and nested graphs."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (each for each in message.external_data if each.key == _LOCATION)
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                yield from _locations(part)
