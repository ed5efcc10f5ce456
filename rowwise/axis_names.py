"""Whether the names of the first axes say that they are one batch axis."""

import re
from collections.abc import Mapping, Sequence

# Exporters number sizes without a name.
_GENERATED = re.compile(r"unk__\d+|\w*_dim_\d+|DynamicDimension\.\d+|\?|None|-1|")


def doubt(inputs: Mapping[str, Sequence[str]], outputs: Mapping[str, Sequence[str]]) -> str | None:
    """Why the first axes have different names; None if they may be one axis.

    Each tensor has the names of its axes, "" for those without one.
    """
    tensors = [("input", *item) for item in inputs.items()]
    tensors += [("output", *item) for item in outputs.items()]
    first = [(kind, tensor, axes[0]) for kind, tensor, axes in tensors if _named(axes[:1])]
    for kind, tensor, name in first[1:]:
        if name != first[0][2]:
            return (
                f"the first axis of {first[0][0]} {first[0][1]!r} is named {first[0][2]!r}, "
                f"that of {kind} {tensor!r} {name!r}"
            )
    for kind, tensor, axes in tensors:
        if first and first[0][2] in axes[1:]:
            return f"{kind} {tensor!r} has another axis that is named {first[0][2]!r} as well"
    return None


def _named(axes: Sequence[str]) -> bool:
    return bool(axes) and _GENERATED.fullmatch(axes[0]) is None
