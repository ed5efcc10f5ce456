"""Import packages that only an extra of this distribution installs, or say how to install it."""

import importlib
import sys
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


def missing(user: str, extra: str, module: str | None) -> MissingExtra:
    """The error for what needs an extra: `user` is the command, option or file that does."""
    # The command is for the folder of the checkout: no package index has this distribution.
    return MissingExtra(
        f"{user} needs the extra [{extra}]: run `pip install -e '.[{extra}]'` in the folder of "
        f"argmax-serving (no module named {module!r})",
        name=module,
    )


def imported(module: str, extra: str, user: str) -> Any:
    """A module, or one of ours that needs what an extra installs.

    Raises:
        MissingExtra: a package is not installed; the text names `user`, which needs it.
    """
    try:
        return importlib.import_module(module)
    except MissingExtra:
        raise
    except ModuleNotFoundError as error:
        # An extra would not install a missing part of a package that is installed.
        if error.name is None or _whole(error.name.partition(".")[0]):
            raise
        raise missing(user, extra, error.name) from error


def _whole(package: str) -> bool:
    """Whether a package is installed, by one distribution: several may share a namespace."""
    return getattr(sys.modules.get(package), "__file__", None) is not None


def optional(module: str, extra: str, user: str) -> Any:
    """A module of an extra; if that is not installed, an object that raises MissingExtra when used.

    So --help works in every environment.
    """
    try:
        return imported(module, extra, user)
    except MissingExtra as error:
        return _Missing(error)
