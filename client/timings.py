"""Read where the time went from what answers tell."""

from collections.abc import Mapping, Sequence

import numpy as np

from client.samples import Stages
from protos.codec import InferResponse
from protos.parameters import Parameter


def stages_of(responses: Sequence[InferResponse]) -> Stages | None:
    """Mean over the messages of a batch; None when the server gives no timings."""
    told = [response.parameters for response in responses]
    if any("compute_ns" not in parameters for parameters in told):
        return None
    return Stages(
        decode_ns=int(_mean(told, "decode_ns")),
        queue_ns=int(_mean(told, "queue_ns")),
        assemble_ns=int(_mean(told, "assemble_ns")),
        compute_ns=int(_mean(told, "compute_ns")),
        batch_rows=_mean(told, "batch_rows"),
        execution_provider=str(told[0]["execution_provider"]),
    )


def _mean(told: Sequence[Mapping[str, Parameter]], name: str) -> float:
    return float(np.mean([float(parameters[name]) for parameters in told]))
