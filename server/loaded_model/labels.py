"""Label files: line i names class i of a model's output."""

import json
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import overload

from protos import text_file
from protos.errors import InvalidText
from server.errors import LoadError

# ImageNet's 21,843 classes take half a megabyte.
MOST_BYTES = 16 * 2**20
# Every answer of the classification extension may repeat a label as often as it has elements.
_LONGEST = 1024
# Of quotes, a comma and a space.
_LEAST_JSON_BYTES = 4


class LabelTable(Sequence[str]):
    """Labels by class, in two blocks of bytes.

    A label becomes a string when it is used: as strings, those of a large file would take many
    times its size, and the time to make them from other threads.
    """

    def __init__(self, text: bytes, ends: "array[int]") -> None:
        """`text`: all labels one after another, UTF-8; `ends`: where each ends in it, uint32."""
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, labels: Sequence[str]) -> "LabelTable":
        """The table of labels that are strings."""
        encoded = [label.encode() for label in labels]
        return cls(b"".join(encoded), array("I", accumulate(map(len, encoded))))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        if index < 0:
            index = range(len(self))[index]
        stop = self.ends[index]
        return self.text[self.ends[index - 1] if index else 0 : stop].decode()

    def as_json(self, most_bytes: int) -> str | None:
        """The labels as a list in JSON, in ASCII; None if that takes more than `most_bytes`."""
        # Tens of megabytes of text are not made just to see that.
        if len(self.text) + _LEAST_JSON_BYTES * len(self) > most_bytes:
            return None
        text = json.dumps(list(self))
        return text if len(text) <= most_bytes else None


# Those of outputs that have a label file.
Labels = Mapping[str, LabelTable]


def parse(data: bytes) -> LabelTable:
    """Labels by class, without the blanks around them; an empty one where a line is blank.

    LoadError says which line or byte is at fault.
    """
    try:
        text = text_file.decode(data)
    except InvalidText as error:
        raise LoadError(str(error)) from None
    labels = [line.strip() for line in text.split("\n")]
    for number, label in enumerate(labels, start=1):
        if len(label) > _LONGEST:
            raise LoadError(
                f"line {number} has {len(label)} characters, expected at most {_LONGEST}"
            )
    # The text after the last newline is no line.
    return LabelTable.of(labels if labels[-1] else labels[:-1])
