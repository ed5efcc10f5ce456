"""Turn the parameters of requests, responses and tensors into Python values."""

from collections.abc import Mapping
from typing import Any

from protos.errors import InvalidMessage

Parameter = bool | int | float | str


def read_parameters(parameters: Any) -> Mapping[str, Parameter]:
    """Values of a map of InferParameter by name; InvalidMessage for one without a value."""
    if not parameters:
        return {}
    read: dict[str, Parameter] = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidMessage(f"parameter {name!r} carries no value")
        read[name] = getattr(value, choice)
    return read


def write_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
    """Set values in a map of InferParameter."""
    for name, value in parameters.items():
        entry = target[name]
        if isinstance(value, bool):
            entry.bool_param = value
        elif isinstance(value, int):
            entry.int64_param = value
        elif isinstance(value, float):
            entry.double_param = value
        else:
            entry.string_param = value
