"""Load a model in a separate process, which may crash.

python -m server.repository.preflight_worker
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from command_line import shortage
from command_line.parser import positionals
from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError, StartError
from server.loaded_model.model import Model, ModelLimits
from server.onnx.execution_provider import ExecutionProvider
from server.onnx.session_settings import SessionSettings

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> int:
    """Load the model that stdin describes: a line of JSON, then a ModelConfig. Exit code 0: done.

    stdout gets the outcome as JSON: the fields of `server.repository.preflight.Tried`, or `text` of
    an error and whether it is `of_configuration`.
    """
    job = json.loads(sys.stdin.buffer.readline())
    config = ModelConfig.FromString(sys.stdin.buffer.read())
    # Nobody waits for the outcome, nor ends this process, once the parent has died.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:
        return 1
    # The parent's own limit comes first.
    signal.alarm(math.ceil(job["most_s"]) + 1)
    # Not the address space: GPU libraries reserve far more of it than they use.
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, job["most_bytes"])):
        _, hard = resource.getrlimit(limit)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, hard))
    outcome: dict[str, object]
    try:
        limits = ModelLimits(
            **job["limits"]
            | {
                "ep": ExecutionProvider(**job["limits"]["ep"]),
                "session": SessionSettings(**job["limits"]["session"]),
            }
        )
        model = Model(job["name"], job["version"], Path(job["path"]), config, limits)
        outcome = {
            "group_rows": model.batching.group_rows,
            "group_reason": model.group_reason,
            "argmax_labels": [asdict(label) for label in model.argmax_labels],
            "unbatched": model.unbatched,
        }
        model.close()
    except StartError as error:
        outcome = {"of_configuration": isinstance(error, LoadError), "text": str(error)}
    except Exception as error:
        short = shortage.described(error)
        if short is None:
            raise
        outcome = {"of_configuration": False, "text": f"{job['path']}: {short}"}
    print(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    positionals("server.repository.preflight_worker", __doc__)
    sys.exit(main())
