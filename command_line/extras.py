"""Say how an extra of this distribution is installed, for which there is no package index."""


def how_to_install(extra: str) -> str:
    """The command, as it is run in the folder of the checkout."""
    return f"run `pip install -e '.[{extra}]'` in the folder of argmax-serving"
