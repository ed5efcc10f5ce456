"""Stop servers that are short of memory, descriptors or threads: each ends, and in time."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure.core.processes import SOURCE
from soak.known_answers import SMALL, put_model
from soak.tally import Tally

_GRACE_S = 2
# The promise: the grace period and so much more.
_MORE_S = 5.0
# When the signal is sent: while Python starts, imports, loads models, and serves.
_LATEST_S = 4.0
_PATIENCE_S = 60.0
_MIB = 2**20
_PROCESSES = "RLIMIT_NPROC"
_LIMITS: Mapping[str, tuple[int, int]] = {
    "RLIMIT_DATA": (20 * _MIB, 600 * _MIB),
    "RLIMIT_AS": (100 * _MIB, 2000 * _MIB),
    "RLIMIT_NOFILE": (3, 64),
    _PROCESSES: (1, 60),
    "RLIMIT_FSIZE": (0, 4096),
    "RLIMIT_STACK": (64 * 1024, 8 * _MIB),
}
# The kernel counts all processes and threads of a user, and does not limit root's. So root's
# servers get a user of their own, each another one, who may read what root may: Python and its
# packages can lie where nobody else can.
_FIRST_USER = 200_000
_READING = "+dac_read_search"
_LIMITED = (
    "import os, resource, sys; name, most = sys.argv[1], int(sys.argv[2]);"
    "hard = resource.getrlimit(getattr(resource, name))[1];"
    "most = most if hard == resource.RLIM_INFINITY else min(most, hard);"
    "resource.setrlimit(getattr(resource, name), (most, most));"
    "os.execv(sys.executable, [sys.executable, *sys.argv[3:]])"
)


def run(tally: Tally, folder: Path) -> None:
    """Count servers that ended within the grace period and 5 s."""
    put_model(folder, SMALL)
    rng = random.Random(tally.seed)
    names = [each for each in _LIMITS if hasattr(resource, each)]
    if os.geteuid() == 0 and not _works(_as_user(_FIRST_USER)):
        # It would be no limit.
        names.remove(_PROCESSES)
    tally.facts |= {"limits": dict.fromkeys(names, 0), "longest_end_s": 0.0, "exit_codes": {}}
    user = _FIRST_USER
    while tally.take():
        name = rng.choice(names)
        most, after_s = rng.randint(*_LIMITS[name]), rng.uniform(0, _LATEST_S)
        what = f"{name} {most}, SIGTERM after {after_s:.2f} s"
        words = ["-m", "server", "--models", str(folder), "--address", "127.0.0.1:0"]
        before: Sequence[str] = ()
        if name == _PROCESSES and os.geteuid() == 0:
            user += 1
            before = _as_user(user)
        tally.facts["limits"][name] += 1
        limited = [name, str(most), *words, "--grace-s", str(_GRACE_S)]
        _end_one(tally, what, limited, after_s, before)


def _as_user(user: int) -> Sequence[str]:
    """Words before those of a program that run it as another user."""
    ids = ("--reuid", str(user), "--regid", str(user), "--clear-groups")
    return ("setpriv", *ids, "--inh-caps", _READING, "--ambient-caps", _READING)


def _works(words: Sequence[str]) -> bool:
    if shutil.which(words[0]) is None:
        return False
    return not subprocess.run([*words, "true"], capture_output=True, check=False).returncode


def _end_one(
    tally: Tally, what: str, words: Sequence[str], after_s: float, before: Sequence[str] = ()
) -> None:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", _LIMITED, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=SOURCE,
    )
    try:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE_S)
            took_s = time.monotonic() - began_s
        else:
            took_s = 0.0
    except subprocess.TimeoutExpired:
        tally.fail(what, f"it had not ended {_PATIENCE_S:g} s after the signal")
        return
    finally:
        process.kill()
        process.wait()
    codes = tally.facts["exit_codes"]
    codes[str(process.returncode)] = codes.get(str(process.returncode), 0) + 1
    tally.facts["longest_end_s"] = max(tally.facts["longest_end_s"], round(took_s, 2))
    if took_s > _GRACE_S + _MORE_S:
        tally.fail(what, f"it ended after {took_s:.1f} s, with {process.returncode}")
    else:
        tally.add()
