"""Drive servers with perf_analyzer, Triton's own load generator, written in C++."""

import contextlib
import csv
import functools
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure.core.comparison import interleaved
from measure.core.processes import child, last_words
from measure.peers.environments import FOLDER, NotAvailable, found, installed
from measure.peers.peer_servers import MODEL
from measure.side_by_side.rounds import Cell

_REQUIREMENTS = ("tritonclient==2.41.0", "nvidia-cuda-runtime-cu12")
_DEBIAN = "libb64-0d"
_DEBIAN_FOLDER = FOLDER / "debian"
_DEBIAN_LIBRARY = _DEBIAN_FOLDER / "usr" / "lib" / "x86_64-linux-gnu"
_CONCURRENCY = 2
_WINDOW_MS = 1000
_WINDOWS = 3
_TIMEOUT_S = 120.0
# Room for both outputs of one row; perf_analyzer multiplies by the batch size.
_OUTPUT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A server to drive, with tensors in messages or in shared memory."""

    name: str
    address: str
    shared: bool


class PerfAnalyzer:
    """The installed program; NotAvailable names what is missing."""

    def __init__(self, *, install: bool = True) -> None:
        """`install`: fetch it if it is missing."""
        if install:
            venv = installed("perf_analyzer", _REQUIREMENTS, dependencies=False)
            _fetch_debian_library()
        else:
            venv = found("perf_analyzer", _REQUIREMENTS)
        self._program = venv.folder / "bin" / "perf_analyzer"
        folders = [venv.packages / "nvidia" / "cuda_runtime" / "lib", _DEBIAN_LIBRARY]
        libraries = [*map(str, folders), os.environ.get("LD_LIBRARY_PATH", "")]
        self._environment = {"LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
        self._check_libraries()

    def _check_libraries(self) -> None:
        done = subprocess.run(
            ["ldd", str(self._program)],
            capture_output=True,
            text=True,
            env={**os.environ, **self._environment},
            check=False,
        )
        missing = [line.split()[0] for line in done.stdout.splitlines() if "not found" in line]
        if missing or done.returncode != 0:
            raise NotAvailable(f"it lacks {', '.join(missing) or done.stderr.strip()}")

    def rows_per_s(self, target: Target, batch_size: int, concurrency: int = _CONCURRENCY) -> float:
        """Rows per second, `concurrency` requests at a time, mean of three windows.

        NotAvailable if it fails.
        """
        measured = self.measure(target, batch_size, concurrency=concurrency)
        return float(measured["Inferences/Second"])

    def measure(
        self,
        target: Target,
        batch_size: int,
        *options: str,
        concurrency: int = _CONCURRENCY,
        window_ms: int = _WINDOW_MS,
    ) -> dict[str, str]:
        """The program's report for `concurrency` requests at a time, by its column names.

        NotAvailable with its last line of output if there is none.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.csv"
            command = [str(self._program), "-m", MODEL, "-u", target.address, "-i", "grpc"]
            command += ["-b", str(batch_size), "--concurrency-range", str(concurrency)]
            command += ["--measurement-interval", str(window_ms), "--max-trials", str(_WINDOWS)]
            # Its own criterion for a stable rate would end some runs early, others late.
            command += ["--stability-percentage", "999", "-f", str(report), *options]
            if target.shared:
                size = _OUTPUT_BYTES * batch_size
                command += ["--shared-memory", "system", "--output-shared-memory-size", str(size)]
            with (
                tempfile.TemporaryFile() as log,
                child(
                    command, stdout=log, stderr=subprocess.STDOUT, environment=self._environment
                ) as process,
            ):
                try:
                    status = process.wait(_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    raise NotAvailable(f"it did not end within {_TIMEOUT_S:g} s") from None
                if status != 0 or not report.exists():
                    raise NotAvailable(f"it ended with {status}: {last_words(log)}")
            with report.open(newline="") as file:
                return next(csv.DictReader(file))


def drive(
    program: PerfAnalyzer,
    targets: Sequence[Target],
    batch_size: int,
    rounds: int,
    report: Callable[[str], None],
) -> list[Cell]:
    """Measure a cell for each target in turn; labels are not checked."""
    cells = [Cell(target.name, batch_size) for target in targets]

    def run(target: Target, cell: Cell) -> float:
        if cell.error is not None:
            return math.nan
        try:
            cell.rows_per_s.append(program.rows_per_s(target, batch_size))
        except NotAvailable as error:
            cell.error = str(error)
            return math.nan
        return cell.rows_per_s[-1]

    report(f"batch size {batch_size}: {rounds} rounds of perf_analyzer")
    pairs = zip(targets, cells, strict=True)
    interleaved([functools.partial(run, *pair) for pair in pairs], rounds)
    return cells


def _fetch_debian_library() -> None:
    """Extract Debian's base64 library from its package."""
    folder = _DEBIAN_FOLDER
    if list(_DEBIAN_LIBRARY.glob("libb64.so*")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Unpacking it here does not change the system; if it fails, ldd reports the missing library.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        _quietly(["apt-get", "download", _DEBIAN], folder)
        for package in folder.glob(f"{_DEBIAN}_*.deb"):
            _quietly(["dpkg-deb", "-x", str(package), "."], folder)


def _quietly(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=False)
