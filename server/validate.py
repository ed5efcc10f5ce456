"""Load a model in a process of its own, which may crash: `python -m server.validate`."""

import json
import resource
import sys
from pathlib import Path

from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError, StartError
from server.execution_provider import ExecutionProvider
from server.model import Model, ModelLimits


def main() -> int:
    """Load what stdin says, a line of JSON before a ModelConfig. 0: done, stdout has the outcome.

    The outcome is JSON: null, or what kind of error came, with its text.
    """
    job = json.loads(sys.stdin.buffer.readline())
    config = ModelConfig.FromString(sys.stdin.buffer.read())
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, job["most_bytes"]),
        # Should nobody be left to end it.
        (resource.RLIMIT_CPU, job["most_cpu_s"]),
    ):
        _, hard = resource.getrlimit(limit)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, hard))
    outcome = None
    try:
        limits = ModelLimits(**{**job["limits"], "ep": ExecutionProvider(**job["limits"]["ep"])})
        Model(job["name"], job["version"], Path(job["path"]), config, limits).close()
    except StartError as error:
        outcome = {"of_configuration": isinstance(error, LoadError), "text": str(error)}
    print(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
