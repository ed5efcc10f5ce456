"""Find the models of a repository on disk, and nothing outside of it.

Links are followed while they lead to files of the repository.

The layout is Triton's: NAME/config.pbtxt, which may be missing, and NAME/VERSION/model.onnx, where
versions are integers.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from protos import text_file
from protos.errors import InvalidText
from server.errors import InvalidInput, LoadError, StartError
from server.loaded_model import labels
from server.repository import misplaced
from server.repository.misplaced import VERSION

CONFIG = "config.pbtxt"

# The files, with the stat fields that change when they do.
Fingerprint = tuple[tuple[str, int, int, int], ...]

_ABSOLUTE = re.compile(r"""(?<![\w./-])/[^/\s"']+[^\s"']*""")


def model_names(repository: Path) -> list[str]:
    """Folders that hold a version or a configuration, sorted; LoadError when none can be read."""
    with _named_errors():
        return sorted(
            folder.name
            for folder in repository.iterdir()
            if not folder.name.startswith(".") and folder.is_dir() and _is_model(repository, folder)
        )


def is_name(name: str) -> bool:
    """Whether it names a folder directly below the repository."""
    return bool(name) and not name.startswith(".") and not {"/", "\0"} & set(name)


class ModelFolder:
    """The folder of one model; its methods raise LoadError that names the path at fault."""

    def __init__(self, repository: Path, name: str) -> None:
        """InvalidInput for a name that no folder can have; the folder need not exist."""
        if not is_name(name):
            raise InvalidInput(f"got model name {name!r}, expected the name of a folder")
        self.name = name
        self.path = repository / name
        self._repository = repository

    @property
    def exists(self) -> bool:
        """Whether the folder exists."""
        return self.path.is_dir()

    def config(self) -> str | None:
        """Text of the configuration; None without one."""
        path = self.path / CONFIG
        if not os.path.lexists(path):
            return None
        with _named_errors():
            try:
                return text_file.decode(self._own(path).read_bytes())
            except InvalidText as error:
                raise LoadError(f"{path}: {error}") from None

    def versions(self, graph: str) -> list[int]:
        """Versions that hold a file of that name, highest first."""
        _check_file_name(graph)
        numbers = [number for number in self.version_folders() if self._version(number, graph)]
        return sorted(numbers, reverse=True)

    def version_folders(self) -> list[int]:
        """Versions that have a folder, whatever its content."""
        with _named_errors():
            return sorted(
                int(entry.name)
                for entry in self._inside(self.path).iterdir()
                if VERSION.fullmatch(entry.name) and entry.is_dir()
            )

    def missing(self, version: int, graph: str) -> str:
        """Why the folder of a version holds no graph of that name; empty where it does."""
        if self._version(version, graph):
            return ""
        with suppress(LoadError):
            folder = self._inside(self.path / str(version))
            return f"{folder}: {misplaced.in_version(folder, graph)}"
        return ""

    def misplaced(self, graph: str) -> list[str]:
        """Names that look like a version of the model, but are none."""
        with suppress(LoadError):
            return misplaced.in_model(self._inside(self.path), graph)
        return []

    def graph(self, version: int, graph: str) -> Path:
        """Path of a version's graph; files in the same folder may be read with it."""
        folder = self._inside(self.path / str(version))
        with _named_errors():
            for path in self._below(folder):
                # Some may be gone by now: writers rename them when they are complete.
                with suppress(FileNotFoundError):
                    self._own(path)
            return self._own(folder / graph)

    def labels(self, name: str) -> tuple[str, ...]:
        """Labels of classes from the file of that name in the folder."""
        _check_file_name(name)
        path = self.path / name
        with _named_errors(), self._own(path).open("rb") as file:
            data = file.read(labels.MOST_BYTES + 1)
        if len(data) > labels.MOST_BYTES:
            raise LoadError(f"{path} has more than {labels.MOST_BYTES} bytes of labels")
        try:
            return labels.parse(data)
        except StartError as error:
            raise LoadError(f"{path}: {error}") from None

    def fingerprint(self) -> tuple[object, ...]:
        """A value that changes when the folder or its versions do; never raises."""

        def or_error(look: Callable[[], object]) -> object:
            try:
                return look()
            except LoadError as error:
                return str(error)

        folders = or_error(self.version_folders)
        numbers = folders if isinstance(folders, list) else []
        versions = [or_error(partial(self.version_files, number)) for number in numbers]
        return folders, or_error(self.own_files), versions

    def shown(self, text: str) -> str:
        """A text for clients: without paths of the server."""
        for path in (self._repository.resolve(), self._repository.absolute(), self._repository):
            text = text.replace(f"{path}/", "")
        return _ABSOLUTE.sub(_hidden, text)

    def own_files(self) -> Fingerprint:
        """The folder's content without its versions."""
        with _named_errors():
            paths = self._inside(self.path).iterdir()
            return _fingerprint(path for path in paths if not path.name.startswith("."))

    def version_files(self, version: int) -> Fingerprint:
        """The content of a version's folder, links resolved to the files that they lead to.

        Files that are being written start with a dot, until they are renamed.
        """
        folder = self._inside(self.path / str(version))
        with _named_errors():
            return _fingerprint(
                path
                for path in self._below(folder)
                if not any(part.startswith(".") for part in path.relative_to(folder).parts)
            )

    def _version(self, number: int, graph: str) -> bool:
        path = self.path / str(number) / graph
        # A link that leads elsewhere counts, so that loading it fails with an error.
        return path.is_symlink() or path.is_file()

    def _below(self, folder: Path) -> Iterator[Path]:
        """Everything below a folder, also through links that stay inside the repository."""
        left, visited = [folder], set()
        while left:
            place = left.pop()
            real = os.path.realpath(place)
            if real in visited:  # links may lead in a circle
                continue
            visited.add(real)
            with suppress(FileNotFoundError):
                for path in sorted(place.iterdir()):
                    yield path
                    if path.is_dir() and _leads_inside(self._repository, path):
                        left.append(path)

    def _own(self, path: Path) -> Path:
        """The path itself, after checking that its file is only inside the repository."""
        stat = self._inside(path).stat()
        if not (S_ISREG(stat.st_mode) or S_ISDIR(stat.st_mode)):
            raise LoadError(f"{path} is neither a file nor a folder")
        # Its other name may be that of a file which clients must not read.
        if S_ISREG(stat.st_mode) and stat.st_nlink > 1:
            raise LoadError(f"{path} has {stat.st_nlink} names (hard links), expected a copy")
        return path

    def _inside(self, path: Path) -> Path:
        """The path itself, after checking that it leads nowhere else."""
        if not _leads_inside(self._repository, path):
            raise LoadError(
                f"{path} leads out of the model repository; links are followed inside it only"
            )
        return path


def _hidden(path: re.Match[str]) -> str:
    """Replacement for a path of this machine; names of nodes that look like one stay."""
    first = "/" + path[0].split("/")[1]
    return "..." if os.path.lexists(first) else path[0]


def _fingerprint(paths: Iterable[Path]) -> Fingerprint:
    files = []
    for path in paths:
        if path.is_file():
            with suppress(FileNotFoundError):
                stat = path.stat()
                files.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(sorted(files))


def _is_model(repository: Path, folder: Path) -> bool:
    if not _leads_inside(repository, folder):
        return True  # loading it raises the error
    return (folder / CONFIG).exists() or any(
        VERSION.fullmatch(entry.name) and entry.is_dir() for entry in folder.iterdir()
    )


def _leads_inside(repository: Path, path: Path) -> bool:
    # Unlike Path.resolve, this raises nothing where links lead in a circle.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(repository))


def _check_file_name(name: str) -> None:
    if not is_name(name):
        raise LoadError(f"got file name {name!r}, expected one in the model's own folder")


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LoadError(f"{error.filename}: {error.strerror}") from None
