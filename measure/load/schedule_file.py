"""Read the arrivals that a load replays: CSV, or lines of JSON."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import UsageError
from measure.engine.schedule import Kind, Schedule
from protos import text_file
from protos.errors import InvalidText

AT, ROWS, MODEL = COLUMNS = ("at_s", "rows", "model")
# Longer ones are more likely times of the day, or since 1970, than since the start.
_LONGEST_S = 7 * 86_400
_EXPECTED = f"expected {AT} and, where requests differ, {ROWS} and {MODEL}"


@dataclass(frozen=True, slots=True)
class ScheduleFile:
    """What a record says of a schedule: the file, and what it holds at `speed`.

    `seconds`: from the start of the load until the last request is due.
    """

    path: str
    sha256: str
    speed: float
    requests: int
    seconds: float
    rows: int
    models: tuple[str, ...]

    @property
    def rate_per_s(self) -> float:
        """Mean rate of the requests."""
        return self.requests / self.seconds if self.seconds else float(self.requests)

    @property
    def text(self) -> str:
        """Name of the file, and the speed."""
        speed = "" if self.speed == 1 else f" x{self.speed:g}"
        return f"{Path(self.path).name}{speed}"


def read(path: Path, model: str, rows: int, speed: float) -> tuple[ScheduleFile, Schedule]:
    """Read a schedule; `model` and `rows` are those of lines that name none.

    The times are divided by `speed`. Raises UsageError, which names the line, the value and the
    expectation.
    """
    try:
        data = path.read_bytes()
        text = text_file.decode(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except InvalidText as error:
        raise UsageError(f"{path} is not text: {error}") from None
    entries: list[tuple[float, Kind]] = []
    lines = _json_lines if text.lstrip()[:1] == "{" else _csv_lines
    for number, values in lines(path, text):
        where = f"{path}, line {number}"
        entries.append((_at_s(values, where), _kind(values, where, model, rows)))
    if not entries:
        raise UsageError(f"{path}: got no request, expected at least one")
    models = tuple(dict.fromkeys(kind.model for _, kind in entries))
    if model not in models:
        raise UsageError(
            f"{path}: got requests for {', '.join(models)} only, expected some for --model {model}"
        )
    # Logs of several servers may be a little out of order.
    entries.sort(key=lambda entry: entry[0])
    numbers = {kind: index for index, kind in enumerate(dict.fromkeys(k for _, k in entries))}
    schedule = Schedule(
        at_ns=[int(at_s / speed * 1e9) for at_s, _ in entries],
        kind_of=[numbers[kind] for _, kind in entries],
        kinds=list(numbers),
    )
    described = ScheduleFile(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        speed=speed,
        requests=len(entries),
        seconds=schedule.seconds,
        rows=schedule.rows,
        models=models,
    )
    return described, schedule


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        _check_names(names, f"{path}, line 1")
        reader.fieldnames = names
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            # The reader puts values without a column under None, and None into missing ones.
            if None in values or None in values.values():
                got = sum(value is not None for value in values.values())
                got += len(values.get(None) or ()) - (None in values)
                raise UsageError(f"{where}: got {got} values, expected {len(names)}")
            yield reader.line_num, {k: v.strip() for k, v in values.items() if v.strip()}
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.reader.line_num}: not CSV: {error}") from None


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"{where}: got {line.strip()[:40]!r}, expected an object")
        _check_names(list(values), where)
        yield number, values


def _check_names(names: list[str], where: str) -> None:
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            raise UsageError(f"{where}: got the column {name[:40]!r}, {_EXPECTED}")
    if AT not in names:
        raise UsageError(f"{where}: got no column {AT}, {_EXPECTED}")


def _at_s(values: Mapping[str, Any], where: str) -> float:
    got = values.get(AT, "")
    try:
        at_s = math.nan if isinstance(got, bool) else float(got)
    except (ValueError, TypeError, OverflowError):
        at_s = math.nan
    if not 0 <= at_s <= _LONGEST_S:
        raise UsageError(
            f"{where}: {AT}: got {_shown(got)}, expected seconds since the start of the load, "
            f"from 0 to {_LONGEST_S}"
        )
    return at_s


def _kind(values: Mapping[str, Any], where: str, model: str, rows: int) -> Kind:
    got = values.get(ROWS, rows)
    number = got
    if isinstance(got, str):
        number = int(got) if got.isascii() and got.isdigit() and len(got) < 19 else 0
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"{where}: {ROWS}: got {_shown(got)}, expected an integer of at least 1")
    name = values.get(MODEL, model)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: {MODEL}: got {_shown(name)}, expected the name of a model")
    return Kind(name, number)


def _shown(value: object) -> str:
    return repr(value)[:40]
