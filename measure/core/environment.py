"""Describe the machine and software of a measurement, and what disturbed it."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from command_line.resources import cores

DISTRIBUTIONS = ("numpy", "onnx", "onnxruntime", "grpcio", "protobuf")
# Packages that add execution providers, instead of onnxruntime or beside it; recorded if installed.
PROVIDERS = ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-ep-openvino")
# The keys that identify the machine.
MACHINE = ("cpu_model", "cores", "affinity_cores", "governor", "memory_bytes", "kernel")
# The same, of records that have them.
_LATER = ("usable_cores",)
GIT_TIMEOUT_S = 10.0
SOURCE = Path(__file__).resolve().parents[2]
CPUINFO = Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of the machine at one instant; None where the system does not report it.

    `time` is ISO 8601 in UTC; the processor times are seconds since boot, summed over cores;
    `load_average` covers 1, 5 and 15 minutes.
    """

    time: str
    load_average: tuple[float, float, float] | None
    steal_s: float | None
    total_s: float | None
    free_memory_bytes: int | None


def snapshot() -> Moment:
    """Return the state of the machine now. Never raises: unreadable values are None."""
    steal_s, total_s = _processor_seconds()
    return Moment(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        load_average=_load_average(),
        steal_s=steal_s,
        total_s=total_s,
        free_memory_bytes=_memory_bytes("available"),
    )


def describe(
    start: Moment,
    end: Moment,
    command_line: Sequence[str] | None = None,
    source: Path = SOURCE,
) -> dict[str, object]:
    """JSON-ready description of the machine, software and load of a measurement, `start` to `end`.

    `command_line` defaults to this process's; `source` is the folder whose commit is recorded.
    Never raises: unreadable values are None.
    """
    commit, dirty = _commit(source)
    return {
        "command_line": shlex.join(sys.orig_argv if command_line is None else command_line),
        "commit": commit,
        "dirty": dirty,
        "started": start.time,
        "ended": end.time,
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in DISTRIBUTIONS}
        | {name: version for name in PROVIDERS if (version := _version(name)) is not None},
        "cpu_model": _cpu_model(CPUINFO),
        "cores": os.cpu_count(),
        "affinity_cores": _affinity_cores(),
        "usable_cores": cores(),
        "governor": _text(GOVERNOR),
        "memory_bytes": _memory_bytes("total"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average_start": _listed(start.load_average),
        "load_average_end": _listed(end.load_average),
        "steal_fraction": steal_fraction(start, end),
        "free_memory_start_bytes": start.free_memory_bytes,
        "free_memory_end_bytes": end.free_memory_bytes,
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences between two descriptions, of machine and software, one line each."""
    found = [
        f"{name}: {old.get(name)} and {new.get(name)}"
        for name in (*MACHINE, *(each for each in _LATER if each in old and each in new))
        if old.get(name) != new.get(name)
    ]
    before, after = old.get("versions") or {}, new.get("versions") or {}
    return found + [
        f"{name}: {before.get(name)} and {after.get(name)}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def steal_fraction(start: Moment, end: Moment) -> float | None:
    """Share of processor time that the hypervisor gave to others; None if unknown."""
    if start.steal_s is None or end.steal_s is None or start.total_s is None or end.total_s is None:
        return None
    passed_s = end.total_s - start.total_s
    return max(end.steal_s - start.steal_s, 0.0) / passed_s if passed_s > 0 else None


def _processor_seconds() -> tuple[float | None, float | None]:
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None, None
    fields = times._asdict()
    # Linux counts guest time inside user time already.
    total_s = sum(seconds for name, seconds in fields.items() if not name.startswith("guest"))
    return fields.get("steal"), total_s


def _load_average() -> tuple[float, float, float] | None:
    try:
        return psutil.getloadavg()
    except OSError:
        return None


def _listed(load_average: tuple[float, float, float] | None) -> list[float] | None:
    return None if load_average is None else [round(value, 2) for value in load_average]


def _memory_bytes(field: str) -> int | None:
    try:
        return int(getattr(psutil.virtual_memory(), field))
    except (OSError, psutil.Error):
        return None


def _affinity_cores() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model(cpuinfo: Path) -> str | None:
    for line in (_text(cpuinfo) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _commit(source: Path) -> tuple[str | None, bool | None]:
    answer = _git(source, "rev-parse", "--show-toplevel", "HEAD")
    lines = [] if answer is None else answer.splitlines()
    # An installed copy may lie inside an unrelated repository, whose commit is meaningless here.
    if len(lines) != 2 or Path(lines[0]) != source.resolve():
        return None, None
    changes = _git(source, "status", "--porcelain")
    return lines[1], None if changes is None else bool(changes.strip())


def _git(source: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(source), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout
