"""Replace a file at once or not at all."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 1 << 20


def replace(
    path: Path, content: bytes | memoryview, accept: Callable[[Path], None] | None = None
) -> bool:
    """Make content (bytes, or a memoryview of bytes) the content of a file, on disk.

    Readers see the old file or the new one, also after a crash. A file that has this content
    already is left untouched; whether it had to be written is returned. `accept` gets the path
    of a file with the content, in the same folder, before that takes its place; it may raise.

    Raises:
        OSError: the file cannot be written; the old one is intact, nothing is left behind.
    """
    if _has(path, content):
        if accept:
            accept(path)
        return False
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if accept:
            accept(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # Name the file the caller knows: writing names none, opening names the temporary one.
            error.filename, error.filename2 = str(path), None
        raise
    _sync_folder(path.parent)
    return True


def _has(path: Path, content: bytes | memoryview) -> bool:
    """Compare a file with content, a chunk at a time."""
    if not path.is_file() or path.stat().st_size != len(content):
        return False
    view = memoryview(content)
    with path.open("rb") as stream:
        return all(
            stream.read(CHUNK_BYTES) == view[start : start + CHUNK_BYTES]
            for start in range(0, len(view), CHUNK_BYTES)
        )


def _sync_folder(folder: Path) -> None:
    """Put the new name on disk; without this a crash may bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
