"""Print an inspection."""

from collections.abc import Iterable

from command_line.pairs import pairs
from model.inspection import Inspection, TensorValue

# A list of a thousand class names would push everything else away.
MOST_LETTERS = 100
NAME_WIDTH = 14


def facts(found: Inspection) -> dict[str, str]:
    """Return what is said in a line each."""
    held = size(found.size_bytes)
    if found.external_bytes:
        held += f", and {size(found.external_bytes)} beside it"
    opsets = ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    return {
        "model": str(found.path),
        "size": held,
        "opset": f"{opsets}, IR {found.ir_version}",
        "producer": found.producer or "not recorded",
        "batching": f"off: {found.unbatched}" if found.unbatched else "on",
    }


def text(found: Inspection, width: int) -> str:
    """Say everything that an inspection found, a line each where it fits into `width`."""
    sections = {
        **{name: [fact] for name, fact in facts(found).items()},
        "inputs": _columns(_value(value) for value in found.inputs),
        "outputs": _columns(_value(value) for value in found.outputs),
        "operators": _columns((name, str(count)) for name, count in found.operators.items()),
        "initializers": _columns(map(_initializer, found.initializers)),
        "metadata": _columns((name, _short(value)) for name, value in found.metadata.items()),
    }
    lines = [
        ("" if number else section, row.rstrip())
        for section, rows in sections.items()
        for number, row in enumerate(rows or ["none"])
    ]
    return "\n".join(pairs(lines, width, name_width=NAME_WIDTH))


def size(size_bytes: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    amount = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _value(value: TensorValue) -> tuple[str, ...]:
    return value.name, value.dtype, value.shape


def _initializer(tensor: TensorValue) -> tuple[str, ...]:
    beside = (f"in {tensor.file}",) if tensor.file else ()
    return (*_value(tensor), size(tensor.size_bytes or 0), *beside)


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Join the cells of rows, which may be of different lengths, so that they are in columns."""
    table = list(rows)
    count = max(map(len, table), default=0)
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(count)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        for row in table
    ]


def _short(value: str) -> str:
    flat = " ".join(value.split())
    if len(flat) <= MOST_LETTERS:
        return flat
    return f"{flat[:MOST_LETTERS]}... ({len(value)} characters)"
