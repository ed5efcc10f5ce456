"""Move tensors through memory that clients share with the server.

A client owns its region, so it may truncate or rewrite it at any moment. Touching a mapping beyond
the end of its file kills a process with SIGBUS. So bytes are read with preadv into the server's own
memory, where a truncated region is a short read, an error of that request alone. Only memory that
is sealed against shrinking is mapped, and its rows are run where they lie.
"""

import math
import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from command_line import shortage
from protos.tensors import Parameter, decode_elements
from server.batching import sealed_memory
from server.errors import (
    InvalidInput,
    OutOfResources,
    RegionExists,
    RegionForbidden,
    RegionNotFound,
    ServingError,
    TooMany,
    Unsupported,
)

FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}")
# Each holds a file descriptor, of which a process often has at most 1024, and its name.
_MOST_REGIONS = 512
_LONGEST_NAME = 1024


class Region:
    """A registered stretch of a shared-memory object, kept open while a request uses it."""

    def __init__(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open the object. InvalidInput or RegionForbidden if it cannot be read."""
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        # None unless it cannot shrink.
        self.memory: memoryview | None = None
        sealed = sealed_memory.is_sealed(key)
        self._fd = sealed_memory.open_sealed(key) if sealed else _open(key)
        try:
            self._check_owner_and_size()
            if sealed:
                self.memory = sealed_memory.mapped(self._fd, offset + byte_size)[offset:]
        except Exception:
            os.close(self._fd)
            self._fd = -1
            raise

    def __del__(self) -> None:
        # Requests in flight hold the region, so it closes after the last of them.
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def check(self, offset: int, byte_size: int) -> None:
        """InvalidInput unless these bytes lie within the region."""
        if offset < 0 or byte_size < 0 or offset + byte_size > self.byte_size:
            raise InvalidInput(
                f"got {byte_size} bytes at offset {offset} of region {self.name!r}, which has "
                f"{self.byte_size} bytes"
            )

    def read(self, offset: int, into: NDArray[Any]) -> None:
        """Fill an array from `offset`; InvalidInput or OutOfResources if that is not possible."""
        left = into.reshape(-1).view(np.uint8).data
        self.check(offset, len(left))
        at = self.offset + offset
        while left:
            try:
                count = os.preadv(self._fd, [left], at)
            except OSError as error:
                raise self._failed("read", error) from None
            if count == 0:
                raise self._too_short()
            at += count
            left = left[count:]

    def write(self, offset: int, data: memoryview) -> None:
        """Store bytes at `offset`; InvalidInput or OutOfResources if that is not possible."""
        self.check(offset, len(data))
        at = self.offset + offset
        # Writing past the end would make a truncated object grow again.
        if os.fstat(self._fd).st_size < at + len(data):
            raise self._too_short()
        while data:
            try:
                count = os.pwritev(self._fd, [data], at)
            except OSError as error:
                raise self._failed("written", error) from None
            at += count
            data = data[count:]

    def _check_owner_and_size(self) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"the key of region {self.name!r} does not name shared memory")
        if status.st_uid != os.geteuid():
            raise RegionForbidden(f"the shared memory of region {self.name!r} is not accessible")
        if self.offset + self.byte_size > status.st_size:
            raise InvalidInput(
                f"region {self.name!r} spans bytes {self.offset} to "
                f"{self.offset + self.byte_size} of an object that is smaller"
            )

    def _failed(self, what: str, error: OSError) -> ServingError:
        """No room, or seals that forbid it."""
        text = f"region {self.name!r} cannot be {what}: {error.strerror}"
        return InvalidInput(text) if shortage.described(error) is None else OutOfResources(text)

    def _too_short(self) -> InvalidInput:
        return InvalidInput(f"the shared memory of region {self.name!r} has been truncated")


@dataclass(frozen=True, slots=True, eq=False)
class SharedTensor:
    """An input that still lies in a region: rows are read when their batch is assembled."""

    region: Region
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self) -> NDArray[Any]:
        """A copy of the whole tensor."""
        data = np.empty(self.shape, self.dtype)
        self.region.read(self.offset, data)
        return data

    def read_rows(self, start: int, into: NDArray[Any]) -> None:
        """Fill `into` with rows from row `start` on."""
        row_bytes = into.nbytes // len(into)
        self.region.read(self.offset + start * row_bytes, into)


@dataclass(frozen=True, slots=True)
class Placement:
    """Location of a tensor, from a request's parameters."""

    region: str
    offset: int
    byte_size: int

    @classmethod
    def of(cls, parameters: Mapping[str, Parameter]) -> "Placement | None":
        """Read a tensor's parameters; None when it lies in the message. Raises InvalidInput."""
        region = parameters.get("shared_memory_region")
        if region is None:
            return None
        offset = parameters.get("shared_memory_offset", 0)
        byte_size = parameters.get("shared_memory_byte_size")
        if not isinstance(region, str) or type(offset) is not int or type(byte_size) is not int:
            raise InvalidInput(
                f"got parameters {dict(parameters)}, expected shared_memory_region as a string, "
                "shared_memory_byte_size and shared_memory_offset as integers"
            )
        return cls(region, offset, byte_size)


class Regions:
    """The regions that clients registered, by name; safe to use from several threads."""

    def __init__(self, *, enabled: bool, prefix: str = "") -> None:
        """`prefix`: keys must start with it; other objects belong to somebody else."""
        self._enabled = enabled
        self._prefix = prefix
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region under a name.

        Raises Unsupported, RegionExists, TooMany, InvalidInput, RegionForbidden.
        """
        self._check_enabled()
        if not name:
            raise InvalidInput("got a region without a name")
        if len(name) > _LONGEST_NAME:
            raise InvalidInput(
                f"the name of a region has {len(name)} characters, expected {_LONGEST_NAME} at most"
            )
        sealed = sealed_memory.is_sealed(key)
        object_name = sealed_memory.object_name(key) if sealed else key.removeprefix("/")
        if not object_name.startswith(self._prefix):
            raise RegionForbidden(
                f"got the key of a region without the prefix {self._prefix!r} of this server"
            )
        if byte_size == 0:
            raise InvalidInput(f"region {name!r} has no bytes")
        with self._lock:
            if name in self._regions:
                raise RegionExists(f"region {name!r} is already registered")
            if len(self._regions) >= _MOST_REGIONS:
                raise TooMany(f"{_MOST_REGIONS} regions are registered, the limit")
            self._regions[name] = Region(name, key, offset, byte_size)

    def unregister(self, name: str) -> None:
        """Unregister a region, "" all of them; an unknown one is no error.

        Running requests that use it still get their answers.
        """
        self._check_enabled()
        with self._lock:
            if name:
                self._regions.pop(name, None)
            else:
                self._regions.clear()

    def status(self, name: str) -> list[Region]:
        """One region, or all of them for ""; RegionNotFound."""
        self._check_enabled()
        if name:
            return [self.get(name)]
        with self._lock:
            return list(self._regions.values())

    def get(self, name: str) -> Region:
        """Region of that name; RegionNotFound, Unsupported."""
        self._check_enabled()
        with self._lock:
            region = self._regions.get(name)
        if region is None:
            raise RegionNotFound(f"region {name!r} is not registered")
        return region

    def tensor(
        self, what: str, parameters: Mapping[str, Parameter], shape: tuple[int, ...], dtype: Any
    ) -> SharedTensor | NDArray[Any]:
        """An input that its parameters place in a region.

        Floating-point numbers in sealed memory are not copied: the client can change them while
        they are run, which changes its own answer. Other kinds could be indices, which a model
        checks before it uses them. BYTES elements, whose size is known only from their content, are
        read at once. Raises
        Unsupported, RegionNotFound, InvalidInput.
        """
        placement = Placement.of(parameters)
        if placement is None:
            raise InvalidInput(f"{what} has no data")
        region = self.get(placement.region)
        region.check(placement.offset, placement.byte_size)
        if dtype == np.object_:
            encoded = np.empty(placement.byte_size, np.uint8)
            region.read(placement.offset, encoded)
            return decode_elements(what, encoded.data, shape)
        needed = math.prod(shape) * dtype.itemsize
        if placement.byte_size != needed:
            raise InvalidInput(
                f"{what} has {placement.byte_size} bytes in shared memory; "
                f"its shape {list(shape)} takes {needed}"
            )
        if region.memory is not None and np.issubdtype(dtype, np.floating):
            count = math.prod(shape)
            return np.frombuffer(region.memory, dtype, count, placement.offset).reshape(shape)
        return SharedTensor(region, placement.offset, shape, dtype)

    def copied_bytes(self, parameters: Mapping[str, Parameter], dtype: np.dtype[Any]) -> int:
        """Bytes of an input that are copied where it is read at once, as `tensor` has it.

        0 where its place is wrong, which `tensor` says.
        """
        try:
            placement = Placement.of(parameters)
            if placement is None:
                return 0
            region = self.get(placement.region)
        except ServingError:
            return 0
        if region.memory is not None and np.issubdtype(dtype, np.floating):
            return 0
        return max(0, min(placement.byte_size, region.byte_size))

    def _check_enabled(self) -> None:
        if not self._enabled:
            raise Unsupported("shared memory is off in this server")


def _open(key: str) -> int:
    if not _KEY.fullmatch(key) or not key.strip("/."):
        raise InvalidInput(
            "the key of a region must be up to 200 letters, digits, '_', '.' and '-', "
            "with at most one '/' before them"
        )
    # A FIFO must not block the server, and a symbolic link must not lead elsewhere.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(FOLDER / key.lstrip("/"), flags)
    except PermissionError:
        raise RegionForbidden("the shared memory with that key is not accessible") from None
    except OSError:
        raise InvalidInput("there is no shared memory with that key") from None
