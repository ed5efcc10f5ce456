"""Run the programs that an image is built with."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.image.errors import ImageError

# Each is a package of Debian by the same name.
_PROGRAMS = ("mmdebstrap", "umoci")
_SHOWN_LINES = 5


def check() -> None:
    """Raise ImageError if a program is missing."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        names = " and ".join(missing)
        raise ImageError(f"{names} not found; on Debian: apt-get install {' '.join(missing)}")


def run(words: Sequence[str | Path], *, variables: Mapping[str, str] | None = None) -> str:
    """Run a program with further environment variables; its stdout.

    Raises ImageError with the last lines of its stderr if it fails.
    """
    command = [str(word) for word in words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(variables or {})},
    )
    if done.returncode != 0:
        said = " | ".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise ImageError(f"{' '.join(command[:3])}: exit code {done.returncode}: {said}")
    return done.stdout
