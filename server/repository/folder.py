"""Find the models of a repository on disk, and nothing outside of it.

Links are followed while they lead to files of the repository.

The layout is Triton's: NAME/config.pbtxt, which may be missing, and NAME/VERSION/model.onnx, where
versions are integers.
"""

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from server.errors import InvalidInput, LoadError
from server.repository import misplaced
from server.repository.names import VERSION, is_model_name, printable
from server.repository.preflight import model_files

CONFIG = "config.pbtxt"

# The files, with the stat fields that change when they do.
Fingerprint = tuple[tuple[str, int, int, int], ...]

_ABSOLUTE = re.compile(r"""(?<![\w./-])/[^/\s"']+[^\s"']*""")


def leads_inside(repository: Path, path: Path) -> bool:
    """Whether a path is inside the repository, with links followed."""
    # Unlike Path.resolve, this raises nothing where links lead in a circle.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(repository))


def leads_up(path: Path) -> bool:
    """Whether it is a link to a folder that it lies in, at whatever depth."""
    if not path.is_symlink():
        return False
    return Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path))


def version_numbers(model: Path) -> list[int]:
    """Versions that have a folder in that of a model, lowest first; OSError."""
    return sorted(
        int(entry.name)
        for entry in model.iterdir()
        if VERSION.fullmatch(entry.name) and _is_folder(entry) and not leads_up(entry)
    )


def _is_folder(path: Path) -> bool:
    # Unlike Path.is_dir, whose later versions take what cannot be read for no folder.
    try:
        return S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


class ModelFolder:
    """The folder of one model; its methods raise LoadError that names the path at fault."""

    def __init__(self, repository: Path, name: str) -> None:
        """InvalidInput for a name that no folder can have; the folder need not exist."""
        if not is_model_name(name):
            raise InvalidInput(f"got model name {name!r}, expected the name of a folder")
        self.name = name
        self.path = repository / name
        self._repository = repository

    @property
    def exists(self) -> bool:
        """Whether the folder exists."""
        return os.path.isdir(self.path)

    def config_file(self) -> Path | None:
        """The configuration; None without one."""
        path = self.path / CONFIG
        if not os.path.lexists(path):
            return None
        with _named_errors():
            model_files.check_config_size(path, self._own(path).stat().st_size)
        return path

    def versions(self, graph: str) -> list[int]:
        """Versions that hold a file of that name, highest first."""
        _check_file_name(graph)
        numbers = [number for number in self.version_folders() if self._version(number, graph)]
        return sorted(numbers, reverse=True)

    def version_folders(self) -> list[int]:
        """Versions that have a folder, whatever its content."""
        with _named_errors():
            return version_numbers(self._inside(self.path))

    def missing(self, version: int, graph: str) -> str:
        """Why the folder of a version holds no graph of that name; empty where it does."""
        try:
            if self._version(version, graph):
                return ""
            folder = self._inside(self.path / str(version))
        except LoadError as error:
            return str(error)
        return f"{folder}: {misplaced.in_version(folder, graph)}"

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

    def label_files(self, names: Collection[str]) -> dict[str, Path]:
        """The label files of these names in the folder, which are not too large together."""
        paths = {}
        total = 0
        for name in names:
            _check_file_name(name)
            path = paths[name] = self.path / name
            with _named_errors():
                size = self._own(path).stat().st_size
            model_files.check_label_size(path, size)
            total += size
        if total > model_files.MOST_LABEL_BYTES_OF_MODEL:
            raise LoadError(
                f"{self.path} has {total} bytes of labels, expected at most "
                f"{model_files.MOST_LABEL_BYTES_OF_MODEL} in all files"
            )
        return paths

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
        return printable(_ABSOLUTE.sub(_hidden, text))

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
        with _named_errors(), suppress(FileNotFoundError, NotADirectoryError):
            mode = (self.path / str(number) / graph).lstat().st_mode
            # A link that leads elsewhere counts, so that loading it fails with an error.
            return S_ISLNK(mode) or S_ISREG(mode)
        return False

    def _below(self, folder: Path) -> Iterator[Path]:
        """Everything below a folder, also through links that stay inside the repository.

        What lies in folders above it is not its own, whatever links to them it has.
        """
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
                    if (
                        path.is_dir()
                        and leads_inside(self._repository, path)
                        and not leads_up(path)
                    ):
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
        if not leads_inside(self._repository, path):
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


def _check_file_name(name: str) -> None:
    if not is_model_name(name):
        raise LoadError(f"got file name {name!r}, expected one in the model's own folder")


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LoadError(f"{error.filename}: {error.strerror}") from None
