"""Test whether the outputs of a row change with the other rows in its batch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.datatypes import BFLOAT16
from server.loaded_model.made_up_rows import Recipe, recipes, taken
from server.onnx.engine import Engine
from server.onnx.execution_provider import CPU

_ROWS = 7
# The largest group size that is chosen automatically.
_GROUP_ROWS = 64
_MOST_BYTES = 64 * 2**20
# No batch is tried after this time; the first few always are.
_MOST_S = 2.0
_LEAST_TRIED = 3
# A label may change in a near tie, because kernels for other numbers of rows round differently.
# Such rows are rare.
_SEEDS = (0, 1, 2)
# Relative to the largest output. Sums of many terms round more than one step of the type.
_TOLERANCE = {
    np.dtype(np.float64): 1e-9,
    np.dtype(np.float32): 1e-4,
    np.dtype(np.float16): 2e-2,
    BFLOAT16: 6e-2,
}
# Other providers may multiply float32 in narrower types, such as TF32.
_TOLERANCE_ELSEWHERE = 2e-2


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of the test: how rows change each other's outputs, or why it showed nothing."""

    change: str = ""
    unclear: str = ""


class _Unclear(Exception):
    """Outputs cannot be compared."""


class _Changed(Exception):
    """An output differs for the same row."""


def probe(engine: Engine, most_rows: int, group_rows: int | None) -> Finding:
    """Run random rows whole, alone, with others, and in another order.

    Never more than `most_rows` at a time, nor than fit into 64 MiB (but 2); more than `group_rows`
    (None: to be measured) where they do.
    """
    if most_rows < 2:
        return Finding()
    for recipe in recipes(engine.inputs):
        trial = _Trial(engine, recipe, most_rows, group_rows or _GROUP_ROWS)
        if trial.runs_whole():
            return trial.finding()
        if trial.runs_alone():
            return Finding(change=f"it takes single rows, but rejects {trial.count} together")
    return Finding(unclear="it runs on none of the generated inputs")


class _Trial:
    """Rows of one recipe."""

    def __init__(self, engine: Engine, recipe: Recipe, most_rows: int, group_rows: int) -> None:
        self._engine = engine
        self._recipe = recipe
        self._names = [spec.name for spec in engine.outputs]
        self._fit = _MOST_BYTES // recipe.row_bytes(engine.inputs)
        self._large = min(most_rows, group_rows + 1)
        self.count = max(2, min(_ROWS, most_rows, self._fit))
        floats = [
            spec.dtype for spec in (*engine.inputs, *engine.outputs) if spec.dtype in _TOLERANCE
        ]
        self._tolerance = max((_TOLERANCE[dtype] for dtype in floats), default=0.0)
        if engine.provider != CPU:
            self._tolerance = max(self._tolerance, _TOLERANCE_ELSEWHERE)

    def runs_whole(self) -> bool:
        return self._runs(self._rows(_SEEDS[0]))

    def runs_alone(self) -> bool:
        rows = self._rows(_SEEDS[0])
        return all(self._runs(taken(rows, [row])) for row in range(self.count))

    def finding(self) -> Finding:
        changes = []
        for seed in _SEEDS:
            try:
                self._compare(seed)
            except _Unclear as reason:
                return Finding(unclear=str(reason))
            except _Changed as reason:
                changes.append(str(reason))
                if len(changes) > 1:
                    return Finding(change=changes[0])
            else:
                if not changes:
                    break
        return Finding()

    def _rows(self, seed: int) -> dict[str, NDArray[Any]]:
        return self._recipe.rows(self._engine.inputs, self.count, seed)

    def _runs(self, rows: dict[str, NDArray[Any]]) -> bool:
        try:
            self._engine.run(self._names, rows)
        except Exception:  # any failure: such rows show nothing
            return False
        return True

    def _compare(self, seed: int) -> None:
        started_s = time.monotonic()
        rows = self._rows(seed)
        whole = self._outputs(rows, range(self.count))
        try:
            self._same(whole, self._outputs(rows, range(self.count)), range(self.count))
        except _Changed:
            raise _Unclear("it gives other outputs for the same inputs when run again") from None
        for number, company in enumerate(self._companies(whole, seed)):
            if number >= _LEAST_TRIED and time.monotonic() - started_s > _MOST_S:
                return
            self._same(whole, self._outputs(rows, company), company)

    def _companies(self, whole: Sequence[NDArray[Any]], seed: int) -> list[list[int]]:
        """Which rows are run together, by number; the most revealing first."""
        generator = np.random.default_rng(seed)
        order = generator.permutation(self.count).tolist()
        row_bytes = sum(data.nbytes for data in whole) // self.count
        large = min(self._large, self._fit, _MOST_BYTES // max(1, row_bytes))
        companies = [order[:1], order[::-1], order[-2:], order[1:4], order[1:2], order[-1:]]
        if large > self.count:
            companies.append(generator.integers(0, self.count, large).tolist())
        return companies

    def _outputs(self, rows: dict[str, NDArray[Any]], company: Sequence[int]) -> list[NDArray[Any]]:
        try:
            outputs = self._engine.run(self._names, taken(rows, list(company)))
        except Exception as error:
            raise _Changed(
                f"it takes {self.count} rows together, but rejects {len(company)} of them"
            ) from error
        for name, data in zip(self._names, outputs, strict=True):
            if data.shape[:1] != (len(company),):
                raise _Changed(
                    f"output {name!r} has shape {list(data.shape)} for {len(company)} rows"
                )
        return outputs

    def _same(
        self, whole: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]], company: Sequence[int]
    ) -> None:
        for name, right, got in zip(self._names, whole, others, strict=True):
            if right.shape[1:] != got.shape[1:]:
                raise _Changed(f"the shape of output {name!r} changes with the rows in the batch")
            if not same(right[list(company)], got, self._tolerance):
                raise _Changed(f"output {name!r} of a row changes with the other rows in its batch")


def same(one: NDArray[Any], other: NDArray[Any], tolerance: float) -> bool:
    """Whether arrays of one shape and type are equal.

    Floats may differ by `tolerance` times the largest of them; NaN equals NaN.
    """
    if one.dtype.kind != "f" and one.dtype != BFLOAT16:
        return bool(np.array_equal(one, other))
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        finite = np.abs(one[np.isfinite(one)])
        most = tolerance * (float(finite.max()) if finite.size else 0.0)
        equal = (one == other) | (np.isnan(one) & np.isnan(other)) | (np.abs(one - other) <= most)
    return bool(equal.all())
