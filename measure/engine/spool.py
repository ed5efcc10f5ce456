"""Write what became of each request to a file, fast, while a load runs; and read it afterwards.

Records have a fixed size. They are collected in memory and written in large pieces, so that
neither memory nor the time of the sending thread grows with the load.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import RequestFailed
from measure.core.stages import Stages
from measure.engine.loop import Completion
from measure.engine.requests import Requests
from transport.status import Code

_PIECE_BYTES = 256 * 2**10
_RECORDS = 2**16
UNKNOWN = -1
# The server's stages, as in `Stages`.
STAGES = ("receive_ns", "decode_ns", "queue_ns", "assemble_ns", "compute_ns", "handover_ns")
# Each field with its letter of `struct` and its dtype. Instants are time.perf_counter_ns; other
# times are UNKNOWN where they were not reported, as is the instant of an answer that did not come.
_FIELDS = (
    ("slice", "I", "<u4"),
    ("number", "I", "<u4"),
    ("kind", "I", "<u4"),
    ("code", "B", "u1"),
    ("server", "H", "<u2"),
    ("scheduled_ns", "q", "<i8"),
    ("sent_ns", "q", "<i8"),
    ("answered_ns", "q", "<i8"),
    ("request_bytes", "Q", "<u8"),
    ("answer_bytes", "Q", "<u8"),
    ("send_ns", "q", "<i8"),
    *((name, "q", "<i8") for name in (f"server_{STAGES[0]}", *STAGES[1:])),
    ("answer_receive_ns", "q", "<i8"),
    ("batch_rows", "f", "<f4"),
)
RECORD = np.dtype([(name, kind) for name, _, kind in _FIELDS])
_PACK = struct.Struct("<" + "".join(letter for _, letter, _ in _FIELDS)).pack
_NO_STAGES: tuple[int, ...] = (UNKNOWN,) * len(STAGES)
_CODES = {code.name: int(code) for code in Code}
_LATE = int(Code.DEADLINE_EXCEEDED)


class Spool:
    """The log of one process's part of a load; see `measure.engine.loop.Log`."""

    def __init__(self, path: Path, requests: Requests, sizes: Sequence[int]) -> None:
        """`sizes`: bytes of the encoded requests, by their index."""
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._requests = requests
        self._sizes = sizes
        self._records = bytearray()
        # 0 is unknown.
        self._servers: dict[str, int] = {"": 0}

    def ended(
        self, slice_number: int, item: Completion, judged: Stages | RequestFailed | None
    ) -> None:
        """See Log."""
        code, stages, batch_rows = 0, _NO_STAGES, 0.0
        if isinstance(judged, RequestFailed):
            code = _CODES.get(judged.code, int(Code.UNKNOWN))
        elif judged is not None:
            stages, batch_rows = _known(judged), judged.batch_rows
        times = item.times
        self._add(
            slice_number,
            item.number,
            code,
            0 if times is None else self._server(times.call.server),
            (item.intended_ns, item.sent_ns, item.done_ns),
            0 if times is None else times.answer_bytes,
            UNKNOWN if times is None or times.send_ns is None else times.send_ns,
            stages,
            UNKNOWN if times is None or times.receive_ns is None else times.receive_ns,
            batch_rows,
        )

    def unanswered(self, slice_number: int, number: int, intended_ns: int, sent_ns: int) -> None:
        """See Log."""
        instants = (intended_ns, sent_ns, UNKNOWN)
        self._add(slice_number, number, _LATE, 0, instants, 0, UNKNOWN, _NO_STAGES, UNKNOWN, 0.0)

    def close(self) -> None:
        """Write the rest."""
        self._write()
        self._file.close()
        _servers_path(self._path).write_text(json.dumps(list(self._servers)))

    def _add(
        self,
        slice_number: int,
        number: int,
        code: int,
        server: int,
        instants: tuple[int, int, int],
        answer_bytes: int,
        send_ns: int,
        stages: tuple[int, ...],
        receive_ns: int,
        batch_rows: float,
    ) -> None:
        self._records += _PACK(
            slice_number,
            number,
            self._requests.kind_of(number),
            code,
            server,
            *instants,
            self._sizes[self._requests.pick(number)],
            answer_bytes,
            send_ns,
            *stages,
            receive_ns,
            batch_rows,
        )
        if len(self._records) >= _PIECE_BYTES:
            self._write()

    def _server(self, name: str) -> int:
        known = self._servers.get(name)
        if known is None:
            known = self._servers[name] = len(self._servers)
        return known

    def _write(self) -> None:
        left = memoryview(self._records)
        while left:
            left = left[self._file.write(left) :]
        self._records = bytearray()


def read(path: Path) -> Iterator[NDArray[Any]]:
    """The records of a closed spool, of dtype RECORD, some at a time; not ordered."""
    with path.open("rb") as file:
        while len(found := np.fromfile(file, RECORD, _RECORDS)):
            yield found


def servers_of(path: Path) -> list[str]:
    """The addresses that `server` of the records is an index of; empty: unknown."""
    names: list[str] = json.loads(_servers_path(path).read_text())
    return names


def _servers_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.servers")


def _known(reported: Stages) -> tuple[int, ...]:
    values = (getattr(reported, name) for name in STAGES)
    return tuple(UNKNOWN if value is None else value for value in values)
