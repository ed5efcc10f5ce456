"""Protobuf messages as JSON, as Triton's HTTP endpoint writes them.

protobuf's own writer makes texts of 64-bit numbers, which Triton's clients do not expect.
"""

import json
from typing import Any

from google.protobuf.message import Message


def encode(message: Message) -> bytes:
    """Every field by its name in the protocol, those without a value too; enums by name."""
    return json.dumps(_of(message)).encode()


def _of(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            entry = kind.fields_by_name["value"]
            shown[field.name] = {str(key): _value(entry, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            shown[field.name] = [_value(field, each) for each in value]
        elif not field.has_presence or message.HasField(field.name):
            shown[field.name] = _value(field, value)
    return shown


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _of(value)
    if field.enum_type is not None:
        found = field.enum_type.values_by_number.get(value)
        return value if found is None else found.name
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
