"""The layers of the image, as folders and as archives that are the same for the same content."""

import shutil
import stat
import sys
import tarfile
from pathlib import Path

import installer
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from deploy.image import tools
from deploy.image.errors import ImageError

SUITE = "bookworm"
PYTHON = (3, 11)
HOME = Path("/opt/argmax-serving")
USER_ID = 65532

_SYSTEM_PYTHON = Path("/usr/bin/python3.11")
_SITE_PACKAGES = HOME / "lib" / "python3.11" / "site-packages"
# libstdc++ is for ONNX Runtime and gRPC.
_PACKAGES = "python3.11,libstdc++6"
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
# Scanners look here for Debian's packages where an image has no package manager.
DPKG_STATUS = Path("var/lib/dpkg/status.d")
_KEEP_STATUS = (
    f'mkdir -p "$1/{DPKG_STATUS}"; for deb in "$1"/var/cache/apt/archives/*.deb; do '
    f'dpkg-deb --field "$deb" > "$1/{DPKG_STATUS}/$(dpkg-deb --field "$deb" Package)"; done'
)
# What a server does not use: the package manager, manuals, caches, and parts of the standard
# library that need a screen, a compiler or a package index. Copyright notices stay.
_UNUSED = (
    *(
        "etc/*",
        "boot",
        "home",
        "media",
        "var/cache",
        "var/log",
        "var/lib/apt",
        "var/lib/dpkg/status",
    ),
    *("usr/games", "usr/lib/dpkg", "usr/sbin/*", "usr/share/[!d]*", "usr/share/dpkg"),
    *("usr/bin/dpkg*", "usr/bin/pdb*", "usr/bin/py[!t]*", "usr/bin/tar", "usr/bin/update-*"),
    *("usr/lib/python3.11/idlelib", "usr/lib/python3.11/lib2to3", "usr/lib/python3.11/tkinter"),
    *("usr/lib/python3.11/ensurepip", "usr/lib/python3.11/test", "usr/lib/python3.11/config-*"),
    *("usr/lib/python3.11/pydoc_data", "usr/lib/python3.11/turtledemo"),
)
_FOLDERS = ("dev", "etc", "models", "proc", "sys", "tmp")
_PASSWD = (
    "root:x:0:0:root:/nonexistent:/sbin/nologin\n"
    f"argmax:x:{USER_ID}:{USER_ID}:argmax-serving:/nonexistent:/sbin/nologin\n"
)
_GROUP = f"root:x:0:\nargmax:x:{USER_ID}:\n"
# Scanners recognise the distribution by this file.
_OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
_READ_ALL, _EXECUTE = 0o644, 0o111


def check_python() -> None:
    """Raise ImageError if this Python is not of the image's version."""
    if sys.version_info[:2] != PYTHON:
        got, expected = (".".join(map(str, each)) for each in (sys.version_info[:2], PYTHON))
        raise ImageError(f"Python: got {got}, expected {expected}, the version in the image")


def system(folder: Path, scratch: Path, epoch_s: int) -> None:
    """Make the layer with Debian's Python and the libraries below it, and nothing else."""
    archive = scratch / "system.tar"
    words = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={_PACKAGES}"]
    words += [f"--hook-dir={_MERGED_USR}", f"--extract-hook={_KEEP_STATUS}", SUITE, str(archive)]
    tools.run(words, variables={"SOURCE_DATE_EPOCH": str(epoch_s)})
    with tarfile.open(archive) as tar:
        files = [each for each in tar if not each.isdev()]
        tar.extractall(folder, members=files, filter="tar")
    for pattern in _UNUSED:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in _FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    for name, text in {"group": _GROUP, "os-release": _OS_RELEASE, "passwd": _PASSWD}.items():
        (folder / "etc" / name).write_text(text)


def environment(folder: Path) -> None:
    """Make an empty virtual environment in a layer."""
    home = under(folder, HOME)
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(_SYSTEM_PYTHON)
    (home / "pyvenv.cfg").write_text(f"home = {_SYSTEM_PYTHON.parent}\nversion = 3.11\n")


def install(folder: Path, wheels: list[Path]) -> None:
    """Install wheels into the virtual environment; scripts name the Python of the image."""
    scheme = {"purelib": _SITE_PACKAGES, "platlib": _SITE_PACKAGES, "scripts": HOME / "bin"}
    scheme |= {"headers": HOME / "include", "data": HOME}
    destination = SchemeDictionaryDestination(
        {name: str(path) for name, path in scheme.items()},
        interpreter=str(HOME / "bin" / "python"),
        script_kind="posix",
        destdir=str(folder),
    )
    for wheel in sorted(wheels):
        with WheelFile.open(wheel) as opened:
            installer.install(opened, destination, additional_metadata={"INSTALLER": b"installer"})


def site_packages(folder: Path) -> Path:
    """Return the folder of the packages in a layer."""
    return under(folder, _SITE_PACKAGES)


def compile_all(folder: Path) -> None:
    """Compile all modules, since nothing can be written where the image runs.

    The image's modules do not change, so they are not compared with their sources. One process
    compiles all: what it compiled before shows in how a module is written.
    """
    command = [sys.executable, "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(folder), "-p", "/", str(folder)]
    tools.run(command, variables={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""})


def under(folder: Path, path: Path) -> Path:
    """Return where a path of the image is in a layer."""
    return folder / path.relative_to("/")


def archive(folder: Path, epoch_s: int) -> Path:
    """Write a layer as an archive beside it: sorted, of one time, root's, readable by all."""
    target = folder.with_suffix(".layer")
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, str(path.relative_to(folder)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = epoch_s
            executable = entry.isdir() or entry.mode & stat.S_IXUSR
            entry.mode = _READ_ALL | (_EXECUTE if executable else 0)
            if entry.isreg():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return target
