"""Import what only an extra of this distribution installs, or say how to install it."""

import importlib
from typing import Any


class MissingExtra(ModuleNotFoundError):
    """A package is not installed; the text says how to install it."""


class _Missing:
    """In the place of a module that is not installed: to use it is the error, not to import it."""

    def __init__(self, error: MissingExtra) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        # What asks for a special name only looks.
        raise AttributeError(name) if name.startswith("__") else self._error


def how_to_install(extra: str) -> str:
    """The command, as it is run in the folder of the checkout: no package index has this."""
    return f"run `pip install -e '.[{extra}]'` in the folder of argmax-serving"


def imported(module: str, extra: str) -> Any:
    """A module of ours that needs what an extra installs; MissingExtra where that is missing."""
    try:
        return importlib.import_module(module)
    except MissingExtra:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed; {how_to_install(extra)}", name=error.name
        ) from error


def optional(module: str, extra: str) -> Any:
    """A module that an extra installs; where it is missing, what raises MissingExtra when used.

    So --help works in every environment.
    """
    try:
        return imported(module, extra)
    except MissingExtra as error:
        return _Missing(error)
