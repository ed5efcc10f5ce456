"""Read the text files of a model: its configuration and its label files.

Parsing takes time and memory out of proportion to the size of a file: 8 MiB of blanks in a
configuration have taken 1.2 GiB. So sizes are checked first, and the server has files read in a
process with limits (`trials`), unless it is started with --validation off.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from stat import S_ISREG

from protos import text_file
from protos.errors import InvalidText
from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError
from server.loaded_model import labels as label_files
from server.loaded_model import model_config
from server.loaded_model.labels import LabelTable

MOST_CONFIG_BYTES = 2**20
MOST_LABEL_BYTES = label_files.MOST_BYTES
MOST_LABEL_BYTES_OF_MODEL = 4 * MOST_LABEL_BYTES
# What a request's configuration is called in errors.
PARAMETER = "parameter 'config'"

_MOST_WARNINGS = 100


def check_config_size(what: object, size: int) -> None:
    """LoadError for more bytes than a configuration may have."""
    if size > MOST_CONFIG_BYTES:
        raise LoadError(f"{what} has {size} bytes, expected at most {MOST_CONFIG_BYTES}")


def check_label_size(what: object, size: int) -> None:
    """LoadError for more bytes than a label file may have."""
    if size > MOST_LABEL_BYTES:
        raise LoadError(f"{what} has more than {MOST_LABEL_BYTES} bytes of labels")


def configuration(name: str, path: Path, override: str | None) -> tuple[ModelConfig, Sequence[str]]:
    """The configuration of the model `name`, and texts about fields without effect.

    It is read from `path`, or from JSON that came with a request. LoadError names either, with the
    fault.
    """
    if override is not None:
        with naming(PARAMETER):
            config = model_config.parse_json(override)
            return config, _warnings(config, name)
    data = _content(path, MOST_CONFIG_BYTES)
    check_config_size(path, len(data))
    with naming(path):
        try:
            text = text_file.decode(data)
        except InvalidText as error:
            raise LoadError(str(error)) from None
        config = model_config.parse_text(text)
        return config, _warnings(config, name)


def labels(path: Path) -> LabelTable:
    """The labels in a file; LoadError names it, with the fault."""
    data = _content(path, MOST_LABEL_BYTES)
    check_label_size(path, len(data))
    with naming(path):
        return label_files.parse(data)


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Begin the text of a LoadError with what is at fault."""
    try:
        yield
    except LoadError as error:
        raise LoadError(f"{what}: {error}") from None


def _warnings(config: ModelConfig, name: str) -> Sequence[str]:
    return list(islice(model_config.check(config, name), _MOST_WARNINGS))


def _content(path: Path, most_bytes: int) -> bytes:
    """What is in a file, or one byte more than it may have."""
    try:
        with open(path, "rb", opener=_open) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not S_ISREG(mode):
                raise LoadError(f"{path} is neither a file nor a folder")
            return file.read(most_bytes + 1)
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror}") from None


def _open(path: str, flags: int) -> int:
    # A pipe that has taken the place of the file would never be opened otherwise.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
