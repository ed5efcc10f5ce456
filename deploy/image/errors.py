"""Why an image could not be built."""


class ImageError(Exception):
    """The image could not be built; the text gives the reason in one line."""
