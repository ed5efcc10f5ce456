"""Numbers as tables and pages show them."""

from rich.text import Text

# The style of what is wrong, in the terminal; a page shows such text in red.
BAD = "bold red"


def rows(count: float) -> str:
    """Mean number of rows with at most one decimal."""
    return f"{count:,.1f}".removesuffix(".0")


def milliseconds(time_ns: float | None) -> str:
    """Milliseconds with three significant digits; `-` for None."""
    return significant(None if time_ns is None else time_ns / 1e6)


def significant(value: float | None) -> str:
    """Number with three significant digits, thousands separated; `-` for None.

    It is never written in powers of ten.
    """
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    # The exponent of what is shown, not of the value: 9.996 is shown as 10.0.
    exponent = int(f"{rounded:e}".partition("e")[2])
    return f"{rounded:,.{max(2 - exponent, 0)}f}"


def mebibytes(count: int | None) -> str:
    """Whole MiB of so many bytes; `-` for None."""
    return "-" if count is None else f"{count / 2**20:,.0f}"


def share(value: float | None, decimals: int = 4) -> str:
    """Percentage that reads 100% only where nothing is missing; `-` for None."""
    if value is None:
        return "-"
    return "100%" if value == 1 else f"{min(value, 1 - 10 ** -(decimals + 2)):.{decimals}%}"


def sentence(note: str) -> str:
    """Note of the terminal as a sentence of a page."""
    return f"{note[0].upper()}{note[1:]}."


def flagged(text: str, *, bad: bool) -> Text:
    """Return text that is red if it is `bad`."""
    return Text(text, style=BAD if bad else "")


def alarm(count: int | None) -> Text:
    """Return a count that is red unless it is 0; `-` for None."""
    return flagged("-" if count is None else f"{count:,}", bad=bool(count))
