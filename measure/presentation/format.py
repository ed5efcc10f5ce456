"""Numbers as tables and pages show them."""

from rich.text import Text


def rows(count: float) -> str:
    """Mean number of rows with at most one decimal."""
    return f"{count:,.1f}".removesuffix(".0")


def milliseconds(time_ns: float | None) -> str:
    """Milliseconds with three significant digits; `-` for None."""
    return "-" if time_ns is None else significant(time_ns / 1e6)


def significant(value: float) -> str:
    """Number with three significant digits, thousands separated, never in powers of ten."""
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    # The exponent of what is shown, not of the value: 9.996 is shown as 10.0.
    exponent = int(f"{rounded:e}".partition("e")[2])
    return f"{rounded:,.{max(2 - exponent, 0)}f}"


def share(value: float | None, decimals: int = 4) -> str:
    """Percentage that reads 100% only where nothing is missing; `-` for None."""
    if value is None:
        return "-"
    return "100%" if value == 1 else f"{min(value, 1 - 10 ** -(decimals + 2)):.{decimals}%}"


def alarm(count: int) -> Text:
    """Return a count that is red unless it is 0."""
    return Text(f"{count:,}", style="bold red" if count else "")
