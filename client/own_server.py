"""Export the experiment's model and serve it, for measurements without a server given."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.channel import MAX_MESSAGE_BYTES
from client.errors import UsageError
from client.verification import Experiment

_SOURCE = Path(__file__).resolve().parent.parent


def export(experiment: Experiment, model: str, models: Path) -> Path:
    """Export the model of an experiment below `models`; its file.

    UsageError with the exporter's own words when that fails.
    """
    command = [sys.executable, "-m", "model", "export", "--out", str(models.resolve())]
    command += ["--name", model, "--dtype", experiment.dtype, "--seed", str(experiment.seed)]
    command += ["--classes", str(experiment.classes), "--features", str(experiment.features)]
    if experiment.wire is not None:
        command += ["--wire", experiment.wire]
    if experiment.wire_scale is not None:
        command += ["--wire-scale", repr(experiment.wire_scale)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_SOURCE, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UsageError(f"the model could not be exported: {said[-1]}")
    return models / model / "1" / "model.onnx"


def options(
    experiment: Experiment, batch_sizes: Sequence[int], threads: int, ep: str, *, whole: bool
) -> Iterator[str]:
    """Room for the largest batch; `whole`: as one message, if a message can be that large."""
    fitting = [b * experiment.row_bytes + 2**20 for b in batch_sizes]
    message_bytes = max((b for b in fitting if b <= MAX_MESSAGE_BYTES), default=MAX_MESSAGE_BYTES)
    if whole:
        yield from ("--max-message-bytes", str(max(message_bytes, 128 * 2**20)))
        yield from ("--max-inflight-bytes", str(max(2 * message_bytes, 256 * 2**20)))
    yield from ("--max-batch-rows", str(max(*batch_sizes, 1024)))
    yield from ("--threads", str(threads))
    # The model was just exported here, and start-up is to be what loading takes.
    yield from ("--validation", "off")
    yield from ("--ep", ep)
