"""The checkout that an image is made of."""

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from deploy.image import tools

ROOT = Path(__file__).resolve().parents[2]
# An extra is installed if this version of the project has it.
_EXTRAS = ("server", "otel")


@dataclass(frozen=True, slots=True)
class Source:
    """A copy of the tracked files, and where they come from."""

    folder: Path
    name: str
    version: str
    description: str
    extras: tuple[str, ...]
    revision: str
    epoch_s: int


def copy(folder: Path) -> Source:
    """Copy the files that git tracks, as they are now, to `folder`.

    Other files of the checkout, such as an old `build/`, would end up in the image. The revision
    ends with `-dirty` if a tracked file differs from it. Raises ImageError outside a checkout.
    """
    for name in _git("ls-files", "-z").split("\0"):
        source = ROOT / name
        if name and source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    revision, seconds = _git("log", "-1", "--format=%H %ct").split()
    dirty = "-dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return Source(
        folder=folder,
        name=project["name"],
        version=project["version"],
        description=project["description"],
        extras=tuple(each for each in _EXTRAS if each in project["optional-dependencies"]),
        revision=revision + dirty,
        epoch_s=int(seconds),
    )


def _git(*words: str) -> str:
    return tools.run(["git", "-C", ROOT, *words])
