"""Load a model in a process of its own, which may crash: `python -m server.validate`."""

import json
import math
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from command_line.parser import positionals
from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError, StartError
from server.execution_provider import ExecutionProvider
from server.model import Model, ModelLimits


def main() -> int:
    """Load what stdin says, a line of JSON before a ModelConfig. 0: done, stdout has the outcome.

    The outcome is JSON: what `server.validation.Tried` has, or `text` of an error and whether it is
    `of_configuration`.
    """
    job = json.loads(sys.stdin.buffer.readline())
    config = ModelConfig.FromString(sys.stdin.buffer.read())
    # Should nobody be left to end it.
    signal.alarm(math.ceil(job["most_s"]) + 1)
    # Not the address space, of which GPU libraries reserve far more than they ever use.
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, job["most_bytes"])):
        _, hard = resource.getrlimit(limit)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, hard))
    outcome: dict[str, object]
    try:
        limits = ModelLimits(**{**job["limits"], "ep": ExecutionProvider(**job["limits"]["ep"])})
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
    print(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    positionals("server.validate", __doc__)
    sys.exit(main())
