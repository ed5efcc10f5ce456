"""Compare an exported graph with the float64 reference of its own weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.examples import standard_normal
from model.graph import SCALE, scale_text
from model.layout import find
from model.stored import Stored, read, run, session
from model.weights import exported, from_seed, sha256
from protos.quantize import WIRE_DTYPES

# The reference is faster on many rows.
GROUP_ROWS = 256


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of running a graph.

    Attributes:
        path: the graph that was run.
        examples: number of rows that were compared.
        wrong_labels: number of labels that rounding cannot explain, for examples as the graph gets
            them: changes by float16 or int8 on the wire are not its fault.
        near_ties: number of those rows that rounding may decide.
        agreement: fraction of labels identical to the reference of the examples as they were drawn.
        sha_ok: whether W has the hash in the metadata; None without one.
        seed_ok: whether W is what the seed in the metadata gives; None without one.
        wire: input dtype of the graph.
        wire_scale: unit of int8 examples.
        wire_ok: whether the metadata agree on the wire, None without such metadata.
    """

    path: Path
    examples: int
    wrong_labels: int
    near_ties: int
    agreement: float
    sha_ok: bool | None
    seed_ok: bool | None
    wire: str
    wire_scale: float | None
    wire_ok: bool | None

    @property
    def ok(self) -> bool:
        """Whether no label is wrong, and no metadata contradict the graph."""
        return not self.wrong_labels and False not in (self.sha_ok, self.seed_ok, self.wire_ok)


def verify(path: Path, examples: int, seed: int) -> Verification:
    """Compare the labels of ONNX Runtime on the CPU with the reference.

    The reference is built from the W inside the graph, so that a fault of the graph shows apart
    from a fault of W, for which the metadata answer. Examples are standard normal, 256 at a time,
    of which ONNX Runtime gets 64 at a time, narrowed to the dtype that the graph takes.

    Raises:
        ModelError: path means no single graph, or one that is not a linear argmax model.
    """
    if examples < 1:
        raise ModelError(f"got {examples} examples, expected at least 1")
    graph = find(path)
    stored = read(graph)
    loaded = session(graph)
    wrong = ties = same = 0
    for first_row in range(0, examples, GROUP_ROWS):
        rows = min(GROUP_ROWS, examples - first_row)
        x = standard_normal(rows, stored.w.shape[1], seed, stored.w.dtype, first_row)
        sent = stored.sent(x)
        labels = run(loaded, sent)
        drawn = stored.expected(x)
        reference = drawn if sent is x else stored.expected_of_sent(sent)
        wrong += int(reference.wrong(labels).sum())
        ties += int(reference.near_ties.sum())
        same += int((labels == drawn.labels).sum())
    return Verification(
        path=graph,
        examples=examples,
        wrong_labels=wrong,
        near_ties=ties,
        agreement=same / examples,
        sha_ok=_sha_ok(stored),
        seed_ok=_seed_ok(stored),
        wire=stored.wire.dtype,
        wire_scale=stored.wire.scale,
        wire_ok=_wire_ok(stored),
    )


def _wire_ok(stored: Stored) -> bool | None:
    """Compare the graph's input with the metadata that clients read."""
    properties, wire = stored.properties, stored.wire
    metadata = {name: properties[name] for name in ("wire", SCALE) if name in properties}
    if wire.dtype not in WIRE_DTYPES:
        return False if metadata else None
    expected = {"wire": wire.dtype}
    if wire.scale is not None:
        expected[SCALE] = scale_text(wire.scale)
    return metadata == expected if metadata else None


def _sha_ok(stored: Stored) -> bool | None:
    """Compare W, and the bias if there is one, with their hashes."""
    tensors = {"weights_sha256": stored.w, "bias_sha256": stored.bias}
    matches = [
        tensor is not None and sha256(tensor) == stored.properties[name]
        for name, tensor in tensors.items()
        if name in stored.properties
    ]
    return all(matches) if matches else None


def _seed_ok(stored: Stored) -> bool | None:
    seed = stored.properties.get("seed")
    if seed is None:
        return None
    if not seed.isdecimal():
        return False
    classes, features = stored.w.shape
    drawn = exported(from_seed(classes, features, int(seed)), stored.w.dtype)
    return stored.bias is None and np.array_equal(drawn, stored.w)
