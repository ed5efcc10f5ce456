"""Print an inspection."""

from collections.abc import Iterable

from command_line.pairs import pairs
from model.inspect.contents import Inspection, TensorValue

# Longer values, such as a list of a thousand class names, are cut.
MOST_LETTERS = 100
NAME_WIDTH = 14


def facts(inspection: Inspection) -> dict[str, str]:
    """Return the facts that take one line each."""
    held = size(inspection.size_bytes)
    if inspection.external_bytes:
        held += f", and {size(inspection.external_bytes)} beside it"
    opsets = ", ".join(f"{domain} {version}" for domain, version in inspection.opsets.items())
    return {
        "model": str(inspection.path),
        "size": held,
        "opset": f"{opsets}, IR {inspection.ir_version}",
        "producer": inspection.producer or "not recorded",
        "batching": f"off: {inspection.unbatched}" if inspection.unbatched else "on",
    }


def text(inspection: Inspection, width: int) -> str:
    """Return an inspection as text, one line per fact if it fits into `width`."""
    sections = {
        **{name: [fact] for name, fact in facts(inspection).items()},
        "inputs": _columns(_value(value) for value in inspection.inputs),
        "outputs": _columns(_value(value) for value in inspection.outputs),
        "operators": _columns((name, str(count)) for name, count in inspection.operators.items()),
        "initializers": _columns(map(_initializer, inspection.initializers)),
        "metadata": _columns((name, _short(value)) for name, value in inspection.metadata.items()),
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
