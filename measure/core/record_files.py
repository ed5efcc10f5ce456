"""Find records of results in files and folders, and report which file is bad and why."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from client.errors import UsageError
from protos import text_file
from protos.errors import InvalidText

_PREFIX = "argmax-serving/"
_VERSIONED = re.compile(r"(argmax-serving/.+)/([0-9]{1,9})")
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# More reasons than this would not fit in one line.
_MOST_REASONS = 3

Record = dict[str, Any]


def found(
    places: Sequence[Path],
    schemas: Collection[str],
    passed_over: Callable[[str], None] = lambda text: None,
) -> list[tuple[Path, Record]]:
    """Return the records of the given schemas in files and below folders, in order, with paths.

    Other JSON below a folder is skipped; `passed_over` is called for each file that may be a result
    but cannot be read. UsageError, which names the file and the reason, for a file that is not such
    a record, and for a folder without any.
    """
    records: dict[Path, Record] = {}
    for place in places:
        if place.is_dir():
            records |= _below(place, schemas, passed_over)
        else:
            records[place] = _known(place, read(place), schemas)
    return list(records.items())


def read(path: Path) -> Record:
    """Return the JSON object in a file. UsageError names the file and the problem."""
    try:
        text = text_file.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except InvalidText as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if not text.strip():
        raise UsageError(f"{path} is empty; expected JSON")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if _is_cut(text, error):
            raise UsageError(
                f"{path} is truncated: its JSON is not complete at the end, line {error.lineno}"
            ) from None
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{path} is not JSON: {where}: {error.msg}") from None
    except RecursionError:
        raise UsageError(f"{path} is no result: its JSON is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{path} is JSON of another kind: got a {kind}, expected an object")
    return content


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Turn an exception from reading a file's record into a UsageError that names the file."""
    try:
        yield
    except KeyError as error:
        raise UsageError(f"{path}: the record lacks {error}") from None
    except (UsageError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise UsageError(f"{path}: the record holds a value of a wrong type: {error}") from None


def _below(
    folder: Path, schemas: Collection[str], passed_over: Callable[[str], None]
) -> dict[Path, Record]:
    try:
        # Raises if the folder is unreadable; rglob would treat it as empty.
        os.listdir(folder)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from None
    files = sorted(path for path in folder.rglob("*.json") if not path.is_dir())
    if not files:
        raise UsageError(f"{folder}: no result that can be used: the folder holds no .json file")
    records: dict[Path, Record] = {}
    reasons: list[str] = []
    others: list[str] = []
    for path in files:
        try:
            content = read(path)
        except UsageError as error:
            reasons.append(str(error))
            continue
        try:
            records[path] = _known(path, content, schemas)
        except UsageError as error:
            stems = {_stem(schema) for schema in schemas}
            ours = _stem(str(content.get("schema"))) in stems
            (reasons if ours else others).append(str(error))
    if not records:
        why = [*reasons, *others]
        more = f"; and {len(why) - _MOST_REASONS} more" if len(why) > _MOST_REASONS else ""
        raise UsageError(
            f"{folder}: no result that can be used: {'; '.join(why[:_MOST_REASONS])}{more}"
        )
    for reason in reasons:
        passed_over(reason)
    return records


def _known(path: Path, content: Record, schemas: Collection[str]) -> Record:
    """Return the record; UsageError if it has another schema."""
    schema = content.get("schema")
    if not isinstance(schema, str) or schema not in schemas:
        raise UsageError(f"{path} {_why_unknown(schema, schemas)}")
    return content


def _why_unknown(schema: object, schemas: Collection[str]) -> str:
    wanted = f"expected one of {', '.join(sorted(schemas))}"
    if not isinstance(schema, str) or not schema.startswith(_PREFIX):
        got = "no schema" if schema is None else f"the schema {schema!r}"
        return f"is JSON of another kind: got {got}, {wanted}"
    for known in schemas:
        if _stem(known) == _stem(schema):
            # Both end in version numbers, or they would be equal.
            newer = _number(schema) > _number(known)
            age = "newer; update argmax-serving" if newer else "older; measure it again"
            return f"has the schema {schema}; this version reads {known}: the file is {age}"
    return f"has the schema {schema}, which is not used here; {wanted}"


def _stem(schema: str) -> str:
    match = _VERSIONED.fullmatch(schema)
    return match[1] if match else schema


def _number(schema: str) -> int:
    match = _VERSIONED.fullmatch(schema)
    return int(match[2]) if match else 0


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    rest = text[error.pos :].rstrip()
    return (
        not rest
        or error.msg.startswith("Unterminated string")
        or any(word.startswith(rest) for word in _LITERALS)
    )
