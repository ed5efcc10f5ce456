"""Run servers as containers run them: process 1, another user, a root file system of their own."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from conftest import ROOT

UID = 65532
MODELS = "/models"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_DEVICES = ("null", "zero", "urandom")
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


@cache
def why_not():
    """Why no container can be made here, as a text; None where one can."""
    try:
        done = subprocess.run(
            [*_UNSHARE, "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else f"namespaces: {done.stderr.strip()}"


def command(models, root):
    """Words before those of a program that run it in a container.

    It has nothing to write to, no /tmp, no /dev/shm and no environment, its user has no name, and
    `models` are at MODELS. `root`: an empty folder. Python is where it is here.
    """
    folders = dict.fromkeys([sys.base_prefix, sys.prefix, ROOT])
    lines = ["set -e", "mount --make-rprivate /", f"root={shlex.quote(str(root))}"]
    lines += ["mount -t tmpfs -o mode=755 tmpfs $root"]
    for folder in map(Path, _SYSTEM):
        if folder.is_symlink():
            lines += [f"ln -s {os.readlink(folder)} $root{folder}"]
        elif folder.is_dir():
            lines += _bound(folder, folder)
    for folder in folders:
        lines += _bound(folder, folder)
    lines += _bound(models, MODELS)
    lines += ["mkdir $root/proc $root/dev", *_kernel(), "mount -o remount,ro $root"]
    user = f"--reuid {UID} --regid {UID} --clear-groups --no-new-privs --inh-caps=-all"
    path = shlex.quote(f"PYTHONPATH={ROOT}")
    lines += [f'exec chroot $root setpriv {user} env -i {path} "$@"']
    return (*_UNSHARE, "sh", "-c", "\n".join(lines), "container")


def of_image(bundle, models, root):
    """Words before those of a program that run it in an unpacked image; the image's own words.

    `bundle`: the image as `umoci unpack` leaves it. User and environment are the image's; its files
    cannot be written to. `models` are at MODELS. `root`: an empty folder.
    """
    process = json.loads((bundle / "config.json").read_text())["process"]
    user = process["user"]
    lines = ["set -e", "mount --make-rprivate /", f"root={shlex.quote(str(root))}"]
    lines += _bound(bundle / "rootfs", "")
    lines += _bound(models, MODELS)
    lines += ["mount -t tmpfs tmpfs $root/dev", *_kernel(), "mount -o remount,ro $root/dev"]
    variables = " ".join(map(shlex.quote, process["env"]))
    # The image has neither of these programs, and its PATH is for what it has.
    setpriv, chroot = (shlex.quote(shutil.which(name)) for name in ("setpriv", "chroot"))
    as_user = f"--userspec={user['uid']}:{user['gid']} --groups= $root"
    lines += [f"cd {shlex.quote(process['cwd'])}"]
    lines += [f'exec env -i {variables} {setpriv} --no-new-privs {chroot} {as_user} "$@"']
    return (*_UNSHARE, "sh", "-c", "\n".join(lines), "container"), process["args"]


def process_1(unshare):
    """The process that is the first of its namespace: the child of `unshare`, a psutil.Process."""
    return next(iter(unshare.children()), None)


def _kernel():
    yield "mount -t proc proc $root/proc"
    for name in _DEVICES:
        yield f"touch $root/dev/{name}"
        yield f"mount --bind /dev/{name} $root/dev/{name}"


def _bound(source, target):
    source, target = shlex.quote(str(source)), shlex.quote(str(target))
    yield f"mkdir -p $root{target}"
    yield f"mount --bind {source} $root{target}"
    yield f"mount -o remount,bind,ro $root{target}"
