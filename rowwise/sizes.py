"""Sizes of axes that are known as numbers, as symbols, or as products of both."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_ROWS = "rows"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Size:
    """A number times symbols, each of which stands for a number of at least 0.

    The number of rows is one of the symbols; the others do not depend on it.
    """

    number: int = 1
    symbols: tuple[str, ...] = ()

    @property
    def of_rows(self) -> bool:
        """Whether it changes with the number of rows."""
        return _ROWS in self.symbols

    def __mul__(self, other: "Size") -> "Size":
        return Size(self.number * other.number, tuple(sorted(self.symbols + other.symbols)))

    def over(self, other: "Size") -> "Size | None":
        """The exact quotient; None unless it exists for every value of the symbols."""
        if not self.number or not other.number or self.number % other.number:
            return None
        left = Counter(self.symbols)
        if Counter(other.symbols) - left:
            return None
        symbols = sorted((left - Counter(other.symbols)).elements())
        return Size(self.number // other.number, tuple(symbols))

    def __str__(self) -> str:
        number = () if self.symbols and self.number == 1 else (str(self.number),)
        return "*".join((*number, *self.symbols))


ONE = Size()
ROWS = Size(1, (_ROWS,))


def product(sizes: Iterable[Size]) -> Size:
    """All of them multiplied; 1 for none."""
    result = ONE
    for size in sizes:
        result *= size
    return result


def unknown() -> Size:
    """A size that is not known, nor known to equal any other."""
    return Size(1, (f"?{next(_numbers)}",))
