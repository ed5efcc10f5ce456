"""Virtual environments of the other servers and clients, created once below `.bench/`."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from measure.core.processes import SOURCE

FOLDER = SOURCE / ".bench"
_INSTALL_TIMEOUT_S = 900.0


class NotAvailable(Exception):
    """A peer cannot be installed or started; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Venv:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def marker(self) -> Path:
        """The file that lists the packages, written when all are installed."""
        return self.folder / "installed"

    @property
    def packages(self) -> Path:
        """The folder of its packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def versions(self) -> dict[str, str]:
        """Version of each package, for the record."""
        found = metadata.distributions(path=[str(self.packages)])
        return {package.name: package.version for package in found}


def installed(name: str, requirements: Sequence[str], *, dependencies: bool = True) -> Venv:
    """The environment NAME with `requirements`; created unless it exists with exactly these.

    NotAvailable with pip's last line of output.
    """
    try:
        return found(name, requirements)
    except NotAvailable:
        venv = Venv(FOLDER / "venvs" / name)
    _run([sys.executable, "-m", "venv", "--clear", str(venv.folder)], "venv")
    options = () if dependencies else ("--no-deps",)
    command = [str(venv.python), "-m", "pip", "install", "--quiet"]
    _run([*command, "--disable-pip-version-check", *options, *requirements], "pip")
    venv.marker.write_text(_contents(requirements))
    return venv


def found(name: str, requirements: Sequence[str]) -> Venv:
    """The environment NAME if it exists with exactly these `requirements`; else NotAvailable."""
    venv = Venv(FOLDER / "venvs" / name)
    if venv.marker.exists() and venv.marker.read_text() == _contents(requirements):
        return venv
    raise NotAvailable(f"{name} is not installed below {FOLDER}")


def _contents(requirements: Sequence[str]) -> str:
    return "\n".join((sys.version, *requirements))


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{what}: {error}") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
        raise NotAvailable(f"{what}: {said[-1] if said else f'ended with {done.returncode}'}")
