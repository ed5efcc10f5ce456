"""Import what only an extra of this distribution installs."""

from types import ModuleType

from command_line import extras
from model.errors import ModelError


def imported(module: str, extra: str, user: str) -> ModuleType:
    """Import a module, or one of ours that needs what the extra installs; `user` needs it.

    Raises:
        ModelError: a package is not installed; the text says how to install it.
    """
    try:
        found: ModuleType = extras.imported(module, extra, user)
    except extras.MissingExtra as error:
        raise ModelError(str(error)) from error
    return found
