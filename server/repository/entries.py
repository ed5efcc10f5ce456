"""List what lies in the repository: models, and entries that no model can be made of.

Nothing that an entry may be keeps the others from being listed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK

from server.errors import LoadError
from server.repository.folder import CONFIG, leads_inside, leads_up, version_numbers
from server.repository.names import is_model_name, printable

_KINDS = (
    (S_ISFIFO, "a named pipe"),
    (S_ISSOCK, "a socket"),
    (S_ISCHR, "a device"),
    (S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Entries:
    """Names of models, sorted, and a text about each odd entry, which is not used.

    `unreadable`: names of odd entries that cannot be read now, and may be models.
    """

    models: list[str]
    odd: Mapping[str, str]
    unreadable: frozenset[str]


class _Odd(Exception):
    """The entry is neither a model, nor a file or folder that may lie beside models."""


def scan(repository: Path) -> Entries:
    """The entries, without those that start with a dot; LoadError if there is no reading them."""
    models, odd, unreadable = [], {}, set()
    try:
        names = sorted(name for name in os.listdir(repository) if not name.startswith("."))
    except OSError as error:
        raise LoadError(f"{repository}: {error.strerror}") from None
    for name in names:
        try:
            if _is_model(repository, name):
                models.append(name)
        except _Odd as error:
            odd[name] = f"{printable(name)} {error}"
        except FileNotFoundError:
            # It may have been deleted since.
            if os.path.lexists(repository / name):
                odd[name] = f"{name} is a link that leads nowhere"
        except OSError as error:
            odd[name] = f"{name} cannot be read: {error.strerror}"
            unreadable.add(name)
    return Entries(models, odd, frozenset(unreadable))


def _is_model(repository: Path, name: str) -> bool:
    """Whether it is a folder with a version or a configuration; _Odd or OSError if it is odd."""
    if not is_model_name(name):
        raise _Odd("has a name that is not UTF-8")
    folder = repository / name
    mode = folder.stat().st_mode
    if S_ISREG(mode):
        return False
    if not S_ISDIR(mode):
        raise _Odd(f"is {next((text for is_kind, text in _KINDS if is_kind(mode)), 'no file')}")
    if leads_up(folder):
        raise _Odd("is a link to a folder that it lies in")
    if not leads_inside(repository, folder):
        return True  # loading it raises the error
    return bool(version_numbers(folder)) or os.path.lexists(folder / CONFIG)
