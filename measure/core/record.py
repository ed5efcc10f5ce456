"""Write records as JSON, whole or not at all, and say what is wrong with one that is read."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class RecordError(ValueError):
    """A record that cannot be read, with what came or what is missing."""


@contextlib.contextmanager
def reading(record: Mapping[str, Any], schema: str) -> Iterator[None]:
    """Read a record inside of the block.

    RecordError on another schema, a key that is missing, or a value of a wrong type.
    """
    if record.get("schema") != schema:
        raise RecordError(
            f"the record's schema is {record.get('schema')!r}; this version reads {schema!r}"
        )
    try:
        yield
    except KeyError as error:
        raise RecordError(f"the record lacks {error}") from None
    except TypeError as error:
        raise RecordError(f"the record holds a value of a wrong type: {error}") from None


def dumps(record: Mapping[str, Any]) -> str:
    """JSON text of a record. Raises ValueError where a number is not finite."""
    # A hard-won record must not be lost to a path among the settings.
    return json.dumps(record, indent=2, allow_nan=False, default=str) + "\n"


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all. Raises OSError."""
    # A command line that is not UTF-8 reaches us as lone surrogates, which UTF-8 refuses.
    write_bytes_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; a file that was there stays. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def finite(value: Any) -> Any:
    """Return a value for JSON; numbers in it that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
