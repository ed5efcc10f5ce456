"""Arrays in shared memory that a server on the same machine can read."""

import contextlib
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

    Raises OSError if there is no room for it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.key = f"argmax-{os.getpid()}-{secrets.token_hex(4)}"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        path = _FOLDER / self.key
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Unlike ftruncate this fails now, and not with SIGBUS when a page is touched later.
            os.posix_fallocate(fd, 0, size)
            self._memory = mmap.mmap(fd, size)
        except Exception:
            path.unlink()
            raise
        finally:
            os.close(fd)
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
        with contextlib.suppress(FileNotFoundError):
            (_FOLDER / self.key).unlink()
        # The mapping itself is freed with the last array in it.
