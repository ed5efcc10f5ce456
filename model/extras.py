"""Import what only an extra of this distribution installs."""

import importlib
from types import ModuleType

from command_line.extras import how_to_install
from model.errors import ModelError


def imported(module: str, extra: str) -> ModuleType:
    """Import a module, or one of ours that needs what the extra installs.

    Raises:
        ModelError: a package is not installed; the text says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModelError(f"{error.name} is not installed; {how_to_install(extra)}") from error
