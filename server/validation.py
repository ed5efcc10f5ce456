"""Try a model in a process of its own before it is loaded, so that a crash is an error."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError, StartError
from server.model import ModelLimits

_SOURCE = Path(__file__).resolve().parent.parent
_PROGRAM = "server.validate"


@dataclass(frozen=True, slots=True)
class Validation:
    """How long the process may take, and how much memory it may map."""

    most_s: float
    most_bytes: int

    def check(
        self, name: str, version: str, path: Path, config: ModelConfig, limits: ModelLimits
    ) -> None:
        """The StartError that loading the model raises, or one that says how its process ended."""
        job = {
            "name": name,
            "version": version,
            "path": str(path.absolute()),
            "limits": asdict(limits),
            "most_bytes": self.most_bytes,
            "most_cpu_s": int(self.most_s * limits.threads) + 1,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", _PROGRAM],
                input=json.dumps(job).encode() + b"\n" + config.SerializeToString(),
                capture_output=True,
                cwd=_SOURCE,
                timeout=self.most_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StartError(
                f"{path}: loading it took over {self.most_s:g} s (--validation-s) in a process of "
                "its own"
            ) from None
        if done.returncode:
            raise StartError(
                f"{path}: loading it in a process of its own ended that by "
                f"{_ending(done.returncode)}; it may map {self.most_bytes} bytes "
                "(--validation-bytes)"
            )
        # ONNX Runtime may have written lines of its own before.
        outcome = json.loads(done.stdout.splitlines()[-1])
        if outcome is not None:
            kind = LoadError if outcome["of_configuration"] else StartError
            raise kind(outcome["text"].replace(job["path"], str(path)))


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
