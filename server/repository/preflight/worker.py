"""Read and load a model in a separate process, which may crash.

python -m server.repository.preflight.worker CONNECTION
"""

import ctypes
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from command_line import shortage
from command_line.parser import positionals
from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError, StartError
from server.repository.preflight import messages, model_files
from server.repository.preflight.process import CONFIGURATION, LABELS, VERSION

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# A text may quote what it is about.
_LONGEST_TEXT = 4000

# Fields of a question and its block; fields of the answer and its blocks.
Answer = tuple[Mapping[str, object], list[bytes]]


def main() -> int:
    """Answer the questions that come over a socket, by its number, until it is closed.

    Each has the limits that hold from then on. The answer is what was found, or the `text` of an
    error and whether it is `of_configuration`.
    """
    (number,) = positionals("server.repository.preflight.worker", __doc__, "connection")
    with socket.socket(fileno=int(number)) as connection:
        while True:
            try:
                question, (block,) = messages.receive(connection, sys.maxsize)
            except messages.Ended:
                return 0
            if not _limited(question):
                return 1
            fields, blocks = _answer(question, block)
            messages.send(connection, fields, *blocks)


def _limited(question: Mapping[str, Any]) -> bool:
    """Set the limits; False if the parent has ended, so that nobody would end this process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent's own limit comes first.
    signal.alarm(math.ceil(question["most_s"]) + 1)
    # Not the address space: GPU libraries reserve far more of it than they use.
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, question["most_bytes"])):
        _, hard = resource.getrlimit(limit)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, hard))
    return bool(os.getppid() == question["parent"])


def _answer(question: Mapping[str, Any], block: bytes) -> Answer:
    try:
        return _ANSWERS[question["kind"]](question, block)
    except StartError as error:
        text = str(error)[:_LONGEST_TEXT]
        return {"of_configuration": isinstance(error, LoadError), "text": text}, []
    except Exception as error:
        if shortage.described(error) is not None:
            # The process ends, and its limit of memory is named.
            raise
        text = f"{question['path']}: it cannot be read: {type(error).__name__}: {error}"
        return {"of_configuration": False, "text": text[:_LONGEST_TEXT].replace("\n", " ")}, []


def _configuration(question: Mapping[str, Any], override: bytes) -> Answer:
    """`override`: JSON that came with a request, if the field of this name is set."""
    config, warnings = model_files.configuration(
        question["name"],
        Path(question["path"]),
        override.decode() if question["override"] else None,
    )
    shown = [warning[:_LONGEST_TEXT] for warning in warnings]
    return {"warnings": shown}, [config.SerializeToString()]


def _labels(question: Mapping[str, Any], _: bytes) -> Answer:
    table = model_files.labels(Path(question["path"]))
    return {}, [table.text, table.ends.tobytes()]


def _version(question: Mapping[str, Any], config: bytes) -> Answer:
    """`config`: a ModelConfig. The answer has what `trials.Tried` has."""
    # Reading text files does not have to wait for ONNX Runtime to be imported.
    from server.loaded_model.model import Model, ModelLimits  # noqa: PLC0415
    from server.onnx import graph_file  # noqa: PLC0415
    from server.onnx.execution_provider import ExecutionProvider  # noqa: PLC0415
    from server.onnx.session_settings import SessionSettings  # noqa: PLC0415

    limits = question["limits"]
    nested = {
        "ep": ExecutionProvider(**limits["ep"]),
        "session": SessionSettings(**limits["session"]),
    }
    path = Path(question["path"])
    graph = graph_file.read(path, path.parents[2])
    model = Model(
        question["name"],
        question["version"],
        path,
        ModelConfig.FromString(config),
        ModelLimits(**limits | nested),
        graph=graph,
    )
    found = {
        "group_rows": model.batching.group_rows,
        "group_reason": model.group_reason,
        "argmax_labels": [asdict(label) for label in model.argmax_labels],
        "unbatched": model.unbatched,
        "root": graph.root,
    }
    model.close()
    return found, [] if graph.content is None else [graph.content]


_ANSWERS: Mapping[str, Callable[[Mapping[str, Any], bytes], Answer]] = {
    CONFIGURATION: _configuration,
    LABELS: _labels,
    VERSION: _version,
}


if __name__ == "__main__":
    sys.exit(main())
