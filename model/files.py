"""Replace a file atomically."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 1 << 20


def replace(
    path: Path, content: bytes | memoryview, accept: Callable[[Path], None] | None = None
) -> bool:
    """Write content (bytes, or a memoryview of bytes) to a file, and sync it to disk.

    Readers see the old file or the new one, also after a crash. A file that has this content
    already is left untouched. Returns whether it was written. `accept` gets the path of a file with
    the content, in the same folder, before the replacement; it may raise.

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
            # Name the caller's file: a write error names none, an open error the temporary one.
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
    """Sync the folder; without this a crash may bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
