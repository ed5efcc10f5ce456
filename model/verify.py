"""Run an exported graph against the float64 reference of its own weights."""

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
    """What running a graph has shown.

    Attributes:
        path: the graph that was run.
        examples: number of rows that were compared.
        wrong_labels: number of labels that rounding cannot explain, of examples as the graph gets
            them: what float16 or int8 on the wire changed is not its fault.
        near_ties: number of those rows that rounding may decide.
        agreement: fraction of labels identical to the reference of the examples as they were drawn.
        sha_ok: whether W has the hash in the metadata; None without one.
        seed_ok: whether W is what the seed in the metadata gives; None without one.
        wire: what the graph takes, a dtype.
        wire_scale: what int8 examples are multiples of.
        wire_ok: whether the metadata say the same of the wire, None if they say nothing.
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
        """Tell whether no label is wrong while the metadata, as far as they go, say the truth."""
        return not self.wrong_labels and False not in (self.sha_ok, self.seed_ok, self.wire_ok)


def verify(path: Path, examples: int, seed: int) -> Verification:
    """Compare the labels that ONNX Runtime gives on the CPU with the reference.

    The reference is built from the W inside the graph, so that a fault of the graph shows apart
    from a fault of W, for which the metadata answer. Examples are standard normal, 256 at a time,
    of which ONNX Runtime gets 64 at a time, narrowed to the dtype that the graph takes.

    Raises:
        ModelError: path means no single graph, or one that is not a linear argmax model.
    """
    if examples < 1:
        raise ModelError(f"there are {examples} examples; wanted at least 1")
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
        given = drawn if sent is x else stored.expected_of_sent(sent)
        wrong += int(given.wrong(labels).sum())
        ties += int(given.near_ties.sum())
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
    """Hold against the graph what a client is told of it."""
    properties, wire = stored.properties, stored.wire
    told = {name: properties[name] for name in ("wire", SCALE) if name in properties}
    if wire.dtype not in WIRE_DTYPES:
        return False if told else None
    wanted = {"wire": wire.dtype}
    if wire.scale is not None:
        wanted[SCALE] = scale_text(wire.scale)
    return told == wanted if told else None


def _sha_ok(stored: Stored) -> bool | None:
    """Hold W, and the bias if there is one, against their hashes."""
    tensors = {"weights_sha256": stored.w, "bias_sha256": stored.bias}
    told = [
        tensor is not None and sha256(tensor) == stored.properties[name]
        for name, tensor in tensors.items()
        if name in stored.properties
    ]
    return all(told) if told else None


def _seed_ok(stored: Stored) -> bool | None:
    seed = stored.properties.get("seed")
    if seed is None:
        return None
    if not seed.isdecimal():
        return False
    classes, features = stored.w.shape
    drawn = exported(from_seed(classes, features, int(seed)), stored.w.dtype)
    return stored.bias is None and np.array_equal(drawn, stored.w)
