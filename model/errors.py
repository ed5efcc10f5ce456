"""The error of models, their weights and their examples."""


class ModelError(Exception):
    """A model that cannot be made or trusted; the text says what it got and what it expected."""
