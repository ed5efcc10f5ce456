"""Write a label file for a model's class indices, as in Triton's repositories."""

from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from model import files
from model.errors import ModelError
from protos import model_config_pb2 as config_pb

LABELS, CONFIG = "labels.txt", "config.pbtxt"


def check(classes: NDArray[np.generic]) -> list[str]:
    """Return the lines of a label file for classes [c].

    Raises:
        ModelError: a class whose text is no line of its own.
    """
    lines = [str(name) for name in classes.tolist()]
    for line in lines:
        if line.splitlines() != [line]:
            raise ModelError(f"a class is {line!r}, expected classes whose text is one line")
    return lines


def write(folder: Path, lines: list[str]) -> None:
    """Write a class per line into labels.txt in a model's folder.

    A config.pbtxt that names the file, for indices and for scores, is written if there is none; an
    existing one is left alone.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / LABELS, "".join(f"{line}\n" for line in lines).encode())
    config = folder / CONFIG
    if not config.exists():
        label = config_pb.ModelOutput(
            name="label", data_type=config_pb.TYPE_INT64, label_filename=LABELS
        )
        # Without a datatype, because the graph may be replaced by one with another datatype.
        scores = config_pb.ModelOutput(name="scores", label_filename=LABELS)
        text = text_format.MessageToString(config_pb.ModelConfig(output=[label, scores]))
        files.replace(config, text.encode())
