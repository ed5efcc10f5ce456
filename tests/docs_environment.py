"""Copies of the checkout, with an environment in them that programs of its pages run in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[1]

INSTALL_S = 900

# Of pip's --no-compile: compiling all that is installed takes as long as installing it, and most
# of it is never imported. "0" is how pip's variable for a negative option says yes.
NO = "0"

_MADE_HERE = (
    *(".git", ".venv*", "results", "models", ".bench", ".examples", "build", "*.egg-info"),
    *("__pycache__", ".*_cache", ".hypothesis", ".image", "node_modules", "target", "dist"),
)
# A test run by make must not hand its own variables on to the commands that it runs.
_DROPPED = ("MAKE", "MFLAGS", "ARGS", "OUT", "DTYPE", "MINUTES", "SECONDS", "ARGMAX_")
_DROPPED += ("PYTHON", "VIRTUAL_ENV", "PYTEST_")


def newcomers_variables() -> dict[str, str]:
    """Return the variables of a terminal in which nothing has been set up: Python on PATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
    # The interpreter that the environment of the tests was made from.
    python = Path(sys.base_prefix, "bin")
    path = f"{python}:/usr/local/bin:/usr/bin:/bin"
    return kept | {"PATH": path, "COLUMNS": "100", "PIP_NO_COMPILE": NO}


def copy_checkout(folder: Path) -> None:
    """Copy the checkout to `folder`, without what programs made in it."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_MADE_HERE))


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


class Environment:
    """A virtual environment that checkouts are made with."""

    def __init__(self, venv: Path) -> None:
        """Take one in which the project is installed."""
        self.venv = venv

    @classmethod
    def of_tests(cls) -> Self:
        """The environment that the tests run in. It has more than a newcomer's, and is there."""
        return cls(Path(sys.prefix))

    @classmethod
    def fresh(cls, folder: Path) -> Self:
        """Copy the checkout to `folder` and make its `.venv` as README.md says, by make.

        Raises subprocess.CalledProcessError, with what pip wrote on stderr.
        """
        copy_checkout(folder)
        subprocess.run(
            ["make", ".venv/installed"],
            cwd=folder,
            env=newcomers_variables(),
            check=True,
            timeout=INSTALL_S,
        )
        return cls(folder / ".venv")

    def checkout(self, folder: Path) -> None:
        """Make a checkout in `folder` with an environment of its own that has the same packages.

        Packages that are installed into it are seen by no other checkout.
        """
        copy_checkout(folder)
        venv = folder / ".venv"
        subprocess.run(
            [self.venv / "bin" / "python", "-m", "venv", "--without-pip", venv], check=True
        )
        packages = self._packages(venv)
        shared = self._packages(self.venv)
        # addsitedir also runs the .pth files there, of which editable installs consist.
        (packages / "shared.pth").write_text(f"import site; site.addsitedir({str(shared)!r})\n")
        for script in (self.venv / "bin").iterdir():
            here = venv / "bin" / script.name
            if not here.exists() and not script.is_symlink() and _is_script(script):
                here.write_text(script.read_text().replace(str(self.venv), str(venv)))
                shutil.copymode(script, here)
        self._made(folder, ".venv")
        self._lend_tests_environment(folder)

    def _lend_tests_environment(self, folder: Path) -> None:
        """Let `make test` and `make soak` run in the environment of this very test."""
        python = folder / ".venv-dev" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        self._made(folder, ".venv-dev")

    @staticmethod
    def _made(folder: Path, venv: str) -> None:
        """Mark an environment as newer than what it is made from."""
        os.utime(folder / "pyproject.toml", (0, 0))
        (folder / venv / "installed").touch()

    @staticmethod
    def _packages(venv: Path) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return venv / "lib" / version / "site-packages"
