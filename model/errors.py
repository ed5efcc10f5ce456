"""What can be wrong with a model, its weights or its examples."""


class ModelError(Exception):
    """A model that cannot be made or trusted; the text says what came, then what was wanted."""
