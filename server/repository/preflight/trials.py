"""Read and try models in separate processes first, with limits of time and memory.

So a file that takes more, or that crashes what reads it, is an error of its model.
"""

import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protos.model_config_pb2 import ModelConfig
from server.batching.argmax_labels import ArgmaxLabel
from server.errors import ServerStopping, StartError
from server.loaded_model.labels import LabelTable
from server.loaded_model.model import ModelLimits
from server.onnx import graph_file
from server.onnx.graph_file import Graph
from server.repository.preflight import model_files
from server.repository.preflight.process import (
    CONFIGURATION,
    LABELS,
    VERSION,
    PreflightProcess,
    ProcessLimits,
)

# Of answers. A number can take three times as much room as its text, and the end of each label four
# bytes where its line has one.
_MOST_CONFIG_BYTES = 8 * model_files.MOST_CONFIG_BYTES
_MOST_LABEL_BYTES = 8 * model_files.MOST_LABEL_BYTES


@dataclass(frozen=True, slots=True)
class Tried:
    """Findings from loading a model.

    Rows gathered for one execution, why, labels that are an ArgMax of linear scores, why requests
    share no execution ("": they do), and the graph with the places of its weights.
    """

    group_rows: int
    group_reason: str
    argmax_labels: tuple[ArgmaxLabel, ...]
    unbatched: str
    graph: Graph


class Preflight:
    """Tries models; safe to use from several threads."""

    def __init__(self, most_s: float, most_bytes: int) -> None:
        """How long a process may take to answer, and how much memory of its own it may have."""
        self._limits = ProcessLimits(most_s, most_bytes)
        self._lock = threading.Lock()
        self._running: set[PreflightProcess] = set()
        self._stopped = False

    @contextmanager
    def trial(self) -> Iterator["Trial"]:
        """A trial of one model; its processes have ended after the block."""
        trial = Trial(self)
        try:
            yield trial
        finally:
            trial.end()

    def stop(self) -> None:
        """Kill the running processes, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def start(self, what: object) -> PreflightProcess:
        """A process, to be given to `end`; ServerStopping, or StartError that names `what`."""
        with self._lock:
            self.check_running()
            process = PreflightProcess(what, self._limits)
            self._running.add(process)
        return process

    def end(self, process: PreflightProcess) -> None:
        """End a process, and wait for that."""
        process.end()
        with self._lock:
            self._running.discard(process)

    def check_running(self) -> None:
        """ServerStopping after `stop`."""
        if self._stopped:
            raise ServerStopping("the server is stopping")


class Trial:
    """What is found out about one model: a process answers, until it has loaded a version.

    Raises StartError or LoadError for a fault in the files, StartError also where the process
    exceeds its limits or crashes, and ServerStopping.
    """

    def __init__(self, preflight: Preflight) -> None:
        self._preflight = preflight
        self._process: PreflightProcess | None = None

    def configuration(
        self, name: str, path: Path, override: str | None
    ) -> tuple[ModelConfig, Sequence[str]]:
        """See `model_files.configuration`."""
        what = path if override is None else model_files.PARAMETER
        fields = {"name": name, "override": override is not None}
        answer, (config,) = self._ask(
            CONFIGURATION, path, what, fields, (override or "").encode(), _MOST_CONFIG_BYTES
        )
        return ModelConfig.FromString(config), answer["warnings"]

    def labels(self, path: Path) -> LabelTable:
        """See `model_files.labels`."""
        _, (text, ends) = self._ask(LABELS, path, path, {}, b"", _MOST_LABEL_BYTES)
        return LabelTable(text, array("I", ends))

    def version(
        self, name: str, version: str, path: Path, config: ModelConfig, limits: ModelLimits
    ) -> Tried:
        """Load a version; the process has ended when this returns."""
        fields = {"name": name, "version": version, "limits": asdict(limits)}
        found, content = self._ask(
            VERSION, path, path, fields, config.SerializeToString(), graph_file.MOST_BYTES
        )
        self.end()
        return Tried(
            int(found["group_rows"]),
            str(found["group_reason"]),
            tuple(ArgmaxLabel(**label) for label in found["argmax_labels"]),
            str(found["unbatched"]),
            Graph(path, str(found["root"]), content[0] if content else None),
        )

    def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            self._preflight.end(process)

    def _ask(
        self,
        kind: str,
        path: Path,
        what: object,
        fields: dict[str, Any],
        block: bytes,
        most_bytes: int,
    ) -> tuple[dict[str, Any], list[bytes]]:
        # It is in another folder. In texts, paths are as they were given to this one.
        there = str(path.absolute())
        try:
            if self._process is None:
                self._process = self._preflight.start(what)
            answer = self._process.ask(kind, what, {**fields, "path": there}, block, most_bytes)
        except StartError as error:
            self.end()
            self._preflight.check_running()
            raise type(error)(str(error).replace(there, str(path))) from None
        self._preflight.check_running()
        return answer


class InServer:
    """Reads files in this process, and tries no version: --validation off.

    It has the methods of Preflight and of Trial.
    """

    configuration = staticmethod(model_files.configuration)
    labels = staticmethod(model_files.labels)

    @contextmanager
    def trial(self) -> Iterator["InServer"]:
        """As `Preflight.trial`, without a process."""
        yield self

    def version(self, *_: object) -> Tried | None:
        """Nothing is found out about a version before it is loaded."""
        return None

    def stop(self) -> None:
        """There is no process to end."""
