"""Import packages that only an extra of this distribution installs, or say how to install it."""

import importlib
from typing import Any


class MissingExtra(ModuleNotFoundError):
    """A package is not installed; the text says how to install it."""


class _Missing:
    """Stands for a module that is not installed: using it is the error, not importing it."""

    def __init__(self, error: MissingExtra) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        # Code that reads a special name only inspects the module.
        raise AttributeError(name) if name.startswith("__") else self._error


def how_to_install(extra: str) -> str:
    """The command, to be run in the folder of the checkout: no package index has this package."""
    return f"run `pip install -e '.[{extra}]'` in the folder of argmax-serving"


def imported(module: str, extra: str) -> Any:
    """A module of ours that needs an extra; MissingExtra if that is not installed."""
    try:
        return importlib.import_module(module)
    except MissingExtra:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed; {how_to_install(extra)}", name=error.name
        ) from error


def optional(module: str, extra: str) -> Any:
    """A module of an extra; if that is not installed, an object that raises MissingExtra when used.

    So --help works in every environment.
    """
    try:
        return imported(module, extra)
    except MissingExtra as error:
        return _Missing(error)
