"""Read label files: line i names class i of a model's output."""

from collections.abc import Mapping, Sequence

from protos import text_file
from protos.errors import InvalidText
from server.errors import LoadError

# Names of classes by output.
Labels = Mapping[str, Sequence[str]]

# ImageNet's 21,843 classes take half a megabyte.
MOST_BYTES = 16 * 2**20
# Every answer of the classification extension may repeat a label as often as it has elements.
_LONGEST = 1024


def parse(data: bytes) -> tuple[str, ...]:
    """Labels by class, without the blanks around them; an empty one where a line is blank.

    LoadError says which line or byte is at fault.
    """
    try:
        text = text_file.decode(data)
    except InvalidText as error:
        raise LoadError(str(error)) from None
    labels = tuple(line.strip() for line in text.split("\n"))
    for number, label in enumerate(labels, start=1):
        if len(label) > _LONGEST:
            raise LoadError(
                f"line {number} has {len(label)} characters, expected at most {_LONGEST}"
            )
    # The text after the last newline is no line.
    return labels if labels[-1] else labels[:-1]
