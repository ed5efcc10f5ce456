"""Import packages that only an extra of this distribution installs."""

from types import ModuleType

from command_line import extras
from model.errors import ModelError


def imported(module: str, extra: str) -> ModuleType:
    """Import a module of an extra, or one of ours that needs it.

    Raises:
        ModelError: a package is not installed; the text says how to install it.
    """
    try:
        imported: ModuleType = extras.imported(module, extra)
    except extras.MissingExtra as error:
        raise ModelError(str(error)) from error
    return imported
