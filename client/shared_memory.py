"""Arrays in shared memory that a server on the same machine can read."""

import contextlib
import fcntl
import mmap
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protos.datatypes import datatype_of
from protos.tensors import Tensor

_FOLDER = Path("/dev/shm")


class SharedArray:
    """An array in its own shared-memory object, removed by `close`.

    With `sealed` the object cannot shrink: this project's servers compute on it where it lies. They
    find it by this process's number, so they must see the same processes. Other servers take only
    objects by name. Raises OSError if there is no room for it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, *, sealed: bool = False) -> None:
        name = f"argmax-{os.getpid()}-{secrets.token_hex(8)}"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._fd = -1
        self._path: Path | None = None
        if sealed:
            fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self.key = f"memfd:{os.getpid()}:{fd}:{name}"
        else:
            self._path = _FOLDER / name
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.key = name
        self._fd = fd
        try:
            # Unlike ftruncate this fails now, and not with SIGBUS when a page is touched later.
            os.posix_fallocate(fd, 0, size)
            if sealed:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._memory = mmap.mmap(fd, size)
        except Exception:
            self.close()
            raise
        self.array: NDArray[Any] = np.frombuffer(self._memory, dtype).reshape(shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def byte_size(self) -> int:
        """Bytes of the whole array."""
        return len(self._memory)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `[start:stop]` as the input `name` of a request; the region has our key's name."""
        shape = (stop - start, *self.array.shape[1:])
        row_bytes = self.array.nbytes // len(self.array)
        return Tensor(
            name,
            datatype_of(self.array.dtype),
            shape,
            None,
            {
                "shared_memory_region": self.key,
                "shared_memory_offset": start * row_bytes,
                "shared_memory_byte_size": (stop - start) * row_bytes,
            },
        )

    def close(self) -> None:
        """Remove the object; servers that use it keep it until they close it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        # The mapping itself is freed with the last array in it.
