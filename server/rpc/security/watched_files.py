"""Cache the content of a few files, and read them again when they change."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Generic, TypeVar

from server.errors import StartError

_log = logging.getLogger(__name__)

Value = TypeVar("Value")
# By option, so that errors can name it.
Files = Mapping[str, Path]
Contents = Mapping[str, bytes]
Fingerprint = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles(Generic[Value]):
    """The result of `read` on the files; safe to use from several threads."""

    def __init__(self, files: Files, read: Callable[[Contents], Value]) -> None:
        """Read the files; StartError, also from `read`, names the option and the file at fault."""
        self._files = files
        self._read = read
        self._changing = threading.Lock()
        self._complaint = ""
        # Before they are read: a change in between is then seen later, not missed.
        self._seen = _fingerprint(files)
        self._value = read(_contents(files))

    def current(self) -> Value:
        """The current content; the last usable one, with a log line, while reading fails."""
        seen = _fingerprint(self._files)
        if seen != self._seen:
            with self._changing:
                if seen != self._seen:
                    self._read_again(seen)
        return self._value

    def _read_again(self, seen: Fingerprint) -> None:
        options = list(self._files)
        try:
            self._value = self._read(_contents(self._files))
        except (StartError, OSError) as error:
            # They are read again next time: the cause may be gone by then.
            if self._complaint != str(error):
                self._complaint = str(error)
                extra = {"options": options, "reason": self._complaint}
                _log.error("changed files cannot be used, keeping the old content", extra=extra)
        else:
            self._seen, self._complaint = seen, ""
            _log.info("changed files loaded", extra={"options": options})


def _fingerprint(files: Files) -> Fingerprint:
    """A value that changes when the files do."""
    return tuple(_file_fingerprint(path) for path in files.values())


def _file_fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _contents(files: Files) -> dict[str, bytes]:
    contents = {}
    for option, path in files.items():
        try:
            # Reading a pipe would block until somebody writes to it.
            if not S_ISREG(os.stat(path).st_mode):
                raise StartError(f"{option} {path} is not a regular file")
            contents[option] = path.read_bytes()
        except OSError as error:
            raise StartError(f"{option} {path}: {error.strerror}") from None
    return contents
