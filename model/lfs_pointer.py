"""Detect the pointer that a clone without Git LFS has in place of a file."""

from pathlib import Path

from model.errors import ModelError

_START = b"version https://git-lfs.github.com/spec/"


def refuse(path: Path) -> None:
    """Raise ModelError if the file is a Git LFS pointer.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_START)) == _START:
            raise ModelError(
                f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` where the "
                "repository was cloned"
            )
