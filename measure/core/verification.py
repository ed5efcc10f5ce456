"""Recreate an experiment's examples from its seed, with their expected labels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import RequestFailed, UsageError
from model.errors import ModelError
from model.examples import BLOCK_ROWS, THREADS, standard_normal
from model.reference import Expected, expect
from model.weights import exported, from_seed, sha256
from protos.quantize import from_wire, to_wire

# Memory beyond X is that of so many rows widened again: 128 MiB of 262,144 features.
_BLOCK_ROWS = 128


@dataclass(frozen=True, slots=True)
class Experiment:
    """W [classes, features] and X [examples, features], standard normal, in one dtype.

    `wire`: the dtype X is rounded to on its way to the model, if not `dtype`; `wire_scale`: the
    value of one int8 step.
    """

    classes: int
    features: int
    dtype: str
    seed: int
    examples: int = 1024
    wire: str | None = None
    wire_scale: float | None = None

    @property
    def sent(self) -> str:
        """The dtype of examples on the wire."""
        return self.wire or self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one example on the wire."""
        return self.features * np.dtype(self.sent).itemsize


@dataclass(frozen=True, slots=True)
class Truth:
    """Examples `x`, the float64 reference's results for them, and the hash of the weights.

    `expected` is computed from `x`, `judged` from `x` after rounding on the wire: a label that
    rounding changes is a disagreement, but not wrong. Without a wire dtype they are the same.
    """

    x: NDArray[Any]
    expected: Expected
    judged: Expected
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Number of labels of a batch that are wrong, near ties, or different from the reference's.

    The first two are judged on the rows as the model receives them, the last on the examples.
    """

    wrong_labels: int
    near_ties: int
    disagreements: int


def truth(experiment: Experiment) -> Truth:
    """Compute an experiment's expected results; UsageError for invalid settings."""
    try:
        weights = exported(
            from_seed(experiment.classes, experiment.features, experiment.seed), experiment.dtype
        )
        x = standard_normal(
            experiment.examples, experiment.features, experiment.seed, experiment.dtype
        )
        expected = judged = expect(weights, x, experiment.dtype)
        if experiment.wire is not None:
            judged = _judged(weights, x, experiment.dtype, experiment.wire, experiment.wire_scale)
        return Truth(x, expected, judged, sha256(weights))
    except (ModelError, ValueError) as error:
        raise UsageError(str(error)) from None


def _judged(
    weights: NDArray[Any], x: NDArray[Any], dtype: str, wire: str, scale: float | None
) -> Expected:
    """Return what the model should say of `x` after the wire, a block of rows in memory at once."""
    parts = []
    for start in range(0, len(x), _BLOCK_ROWS):
        sent = to_wire(x[start : start + _BLOCK_ROWS], wire, scale)
        parts.append(expect(weights, from_wire(sent, scale), dtype))
    return Expected(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Expected)
        )
    )


def one_a_row(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels of an answer as int64 `[n]`; RequestFailed unless they are one integer per row."""
    # Some servers keep a trailing axis of length 1.
    if labels.dtype.kind not in "iu" or labels.shape[1:] != (1,) * (labels.ndim - 1):
        raise RequestFailed(
            "DATA_LOSS", f"got labels {labels.dtype} {list(labels.shape)}, expected integers [n]"
        )
    return np.ascontiguousarray(labels, np.int64).reshape(-1)


def check(truth: Truth, start: int, labels: NDArray[Any]) -> LabelCounts:
    """Compare labels of the examples from `start` on with the reference."""
    rows = slice(start, start + len(labels))
    judged = truth.judged.rows(rows)
    return LabelCounts(
        wrong_labels=int(judged.wrong(labels).sum()),
        near_ties=int(judged.near_ties.sum()),
        disagreements=int((labels != truth.expected.labels[rows]).sum()),
    )


def check_counted(
    truth: Truth, indices: NDArray[Any], labels: NDArray[Any], counts: NDArray[Any]
) -> LabelCounts:
    """Hold labels against the reference, int64 `[n]`: each came `counts` times of an example.

    UsageError when there is no such example.
    """
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(truth.expected.labels):
        raise UsageError(
            f"got labels of examples {indices.min()} to {indices.max()}; "
            f"expected indices below {len(truth.expected.labels)}"
        )
    judged = truth.judged.rows(indices)
    return LabelCounts(
        wrong_labels=int(counts[judged.wrong(labels)].sum()),
        near_ties=int(counts[judged.near_ties].sum()),
        disagreements=int(counts[labels != truth.expected.labels[indices]].sum()),
    )


def examples(experiment: Experiment, indices: Sequence[int]) -> NDArray[Any]:
    """Draw examples of an experiment by index, `[n, features]`, in the order of `indices`.

    Uses memory for two blocks of rows beyond the result, because whole blocks are drawn.
    """
    wanted = np.asarray(indices, np.int64)
    x = np.empty((len(wanted), experiment.features), experiment.dtype)
    blocks = wanted // BLOCK_ROWS

    def fill(block: int) -> None:
        places = np.flatnonzero(blocks == block)
        start = block * BLOCK_ROWS
        rows = 1 + int(wanted[places].max()) - start
        drawn = standard_normal(rows, experiment.features, experiment.seed, x.dtype, start)
        x[places] = drawn[wanted[places] - start]

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, np.unique(blocks).tolist()):
            pass
    return x
