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
from model.export import ELEMENT_TYPES, SCALE, WIRE_TYPES, Wire, scale_text
from model.layout import find
from model.reference import expect
from model.weights import exported, from_seed, sha256
from protos.quantize import WIRE_DTYPES, from_wire, to_wire, wire_scale

# The reference is faster on many rows; the graph is run on as few as a service would send it.
GROUP_ROWS = 256
RUN_ROWS = 64


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
    w, wire, properties = _read(graph)
    session = _session(graph)
    wrong = ties = same = 0
    for first_row in range(0, examples, GROUP_ROWS):
        rows = min(GROUP_ROWS, examples - first_row)
        x = standard_normal(rows, w.shape[1], seed, w.dtype, first_row)
        drawn = given = expect(w, x, w.dtype)
        if wire.dtype in WIRE_DTYPES:
            sent = to_wire(x, wire.dtype, wire.scale)
            given = expect(w, from_wire(sent, wire.scale), w.dtype)
            labels = _labels(session, sent)
        else:
            labels = _labels(session, x)
        wrong += int(given.wrong(labels).sum())
        ties += int(given.near_ties.sum())
        same += int((labels == drawn.labels).sum())
    return Verification(
        path=graph,
        examples=examples,
        wrong_labels=wrong,
        near_ties=ties,
        agreement=same / examples,
        sha_ok=_sha_ok(w, properties),
        seed_ok=_seed_ok(w, properties),
        wire=wire.dtype,
        wire_scale=wire.scale,
        wire_ok=_wire_ok(wire, properties),
    )


def _read(graph: Path) -> tuple[NDArray[np.floating], Wire, dict[str, str]]:
    """Return W [classes, features], what the graph takes, and its metadata."""
    try:
        model = onnx.load(graph)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{graph} cannot be read ({error}); wanted an ONNX graph") from error
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if inputs != ["x"] or outputs != ["label", "scores"] or set(stored) - {SCALE} != {"W"}:
        raise ModelError(
            f"{graph} takes {inputs}, gives {outputs}, holds {list(stored)}; "
            "wanted a linear argmax model that takes ['x'], gives ['label', 'scores'], holds ['W']"
        )
    try:
        w = numpy_helper.to_array(stored["W"]).T
        w = exported(w, w.dtype)
        wire = _taken(model.graph.input[0], stored.get(SCALE))
    except (ModelError, ValueError) as error:
        raise ModelError(f"{graph}: {error}") from error
    return w, wire, {item.key: item.value for item in model.metadata_props}


def _taken(value: onnx.ValueInfoProto, stored: onnx.TensorProto | None) -> Wire:
    """Return the dtype of the graph's input, with the scale that it holds for int8."""
    element = value.type.tensor_type.elem_type
    names = {int(number): name for name, number in (ELEMENT_TYPES | WIRE_TYPES).items()}
    dtype = names.get(element)
    if dtype is None or (dtype == "int8") != (stored is not None):
        raise ModelError(
            f"x is of type {element}, {'no' if stored is None else 'a'} scale is there; "
            f"wanted {', '.join(names.values())}, with a scale for int8"
        )
    if stored is None:
        return Wire(dtype)
    scale = numpy_helper.to_array(stored)
    if scale.size != 1:
        raise ModelError(f"there are {scale.size} scales; wanted one")
    return Wire(dtype, wire_scale(float(scale.item())))


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


def _wire_ok(wire: Wire, properties: dict[str, str]) -> bool | None:
    """Hold against the graph what a client is told of it."""
    told = {name: properties[name] for name in ("wire", SCALE) if name in properties}
    if wire.dtype not in WIRE_DTYPES:
        return False if told else None
    wanted = {"wire": wire.dtype}
    if wire.scale is not None:
        wanted[SCALE] = scale_text(wire.scale)
    return told == wanted if told else None


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
