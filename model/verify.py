"""Run an exported graph against the float64 reference of its own weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from model.errors import ModelError
from model.examples import standard_normal
from model.layout import find
from model.reference import expect
from model.weights import exported, from_seed, sha256

# The reference is faster on many rows; the graph is run on as few as a service would send it.
GROUP_ROWS = 256
RUN_ROWS = 64


@dataclass(frozen=True, slots=True)
class Verification:
    """What running a graph has shown.

    Attributes:
        path: the graph that was run.
        examples: number of rows that were compared.
        wrong_labels: number of labels that rounding cannot explain.
        near_ties: number of rows that rounding may decide.
        agreement: fraction of labels identical to the reference.
        sha_ok: whether W has the hash in the metadata; None without one.
        seed_ok: whether W is what the seed in the metadata gives; None without one.
    """

    path: Path
    examples: int
    wrong_labels: int
    near_ties: int
    agreement: float
    sha_ok: bool | None
    seed_ok: bool | None

    @property
    def ok(self) -> bool:
        """Tell whether no label is wrong while W is what the metadata say, as far as they do."""
        return not self.wrong_labels and self.sha_ok is not False and self.seed_ok is not False


def verify(path: Path, examples: int, seed: int) -> Verification:
    """Compare the labels that ONNX Runtime gives on the CPU with the reference.

    The reference is built from the W inside the graph, so that a fault of the graph shows apart
    from a fault of W, for which the metadata answer. Examples are standard normal, 256 at a time,
    of which ONNX Runtime gets 64 at a time.

    Raises:
        ModelError: path means no single graph, or one that is not a linear argmax model.
    """
    if examples < 1:
        raise ModelError(f"there are {examples} examples; wanted at least 1")
    graph = find(path)
    w, properties = _read(graph)
    session = _session(graph)
    wrong = ties = same = 0
    for first_row in range(0, examples, GROUP_ROWS):
        rows = min(GROUP_ROWS, examples - first_row)
        x = standard_normal(rows, w.shape[1], seed, w.dtype, first_row)
        expected = expect(w, x, w.dtype)
        labels = _labels(session, x)
        wrong += int(expected.wrong(labels).sum())
        ties += int(expected.near_ties.sum())
        same += int((labels == expected.labels).sum())
    return Verification(
        path=graph,
        examples=examples,
        wrong_labels=wrong,
        near_ties=ties,
        agreement=same / examples,
        sha_ok=_sha_ok(w, properties),
        seed_ok=_seed_ok(w, properties),
    )


def _read(graph: Path) -> tuple[NDArray[np.floating], dict[str, str]]:
    """Return W [classes, features] with the metadata of a graph."""
    try:
        model = onnx.load(graph)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{graph} cannot be read ({error}); wanted an ONNX graph") from error
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if inputs != ["x"] or outputs != ["label", "scores"] or list(stored) != ["W"]:
        raise ModelError(
            f"{graph} takes {inputs}, gives {outputs}, holds {list(stored)}; "
            "wanted a linear argmax model that takes ['x'], gives ['label', 'scores'], holds ['W']"
        )
    try:
        w = numpy_helper.to_array(stored["W"]).T
        w = exported(w, w.dtype)
    except (ModelError, ValueError) as error:
        raise ModelError(f"{graph}: {error}") from error
    return w, {item.key: item.value for item in model.metadata_props}


def _session(graph: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Threads that spin between the runs would take cores from the reference.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT's errors have no base class of their own
        raise ModelError(f"{graph} cannot be run: {error}") from error


def _labels(session: ort.InferenceSession, x: NDArray[np.floating]) -> NDArray[np.int64]:
    groups = (x[start : start + RUN_ROWS] for start in range(0, len(x), RUN_ROWS))
    try:
        return np.concatenate([session.run(["label"], {"x": group})[0] for group in groups])
    except Exception as error:  # ORT's errors have no base class of their own
        raise ModelError(f"the graph fails on {len(x)} examples: {error}") from error


def _sha_ok(w: NDArray[np.floating], properties: dict[str, str]) -> bool | None:
    wanted = properties.get("weights_sha256")
    return None if wanted is None else sha256(w) == wanted


def _seed_ok(w: NDArray[np.floating], properties: dict[str, str]) -> bool | None:
    seed = properties.get("seed")
    if seed is None:
        return None
    if not seed.isdecimal():
        return False
    classes, features = w.shape
    return np.array_equal(exported(from_seed(classes, features, int(seed)), w.dtype), w)
