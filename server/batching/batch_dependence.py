"""Decide for which answers the server can say whether a label depends on the batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from protos.datatypes import BFLOAT16
from server.batching.argmax_labels import ArgmaxLabel
from server.onnx.engine import TensorSpec


@dataclass(frozen=True, slots=True)
class Dependence:
    """Knowledge about an answer before it is computed.

    `known`: False where no label can depend on the batch, None where nothing can be said yet;
    `judged`: labels to check against their scores, all that the answer has.
    """

    known: bool | None = None
    judged: tuple[ArgmaxLabel, ...] = ()


class BatchDependence:
    """Knows which outputs of a model are labels, and what rounding can do to them."""

    def __init__(
        self, outputs: Sequence[TensorSpec], judged: Sequence[ArgmaxLabel], *, never: bool
    ) -> None:
        """`judged`: labels whose scores are known. `never`: rows always run with the same rows,
        or alone, or in executions of one size."""
        self._never = never
        self._labels = {
            spec.name for spec in outputs if spec.dtype.kind != "f" and spec.dtype != BFLOAT16
        }
        self._judged = {each.label: each for each in judged}

    def of(self, outputs: Sequence[str]) -> Dependence:
        """Dependence of an answer with these outputs."""
        labels = [name for name in outputs if name in self._labels]
        if not labels:
            return Dependence()
        if self._never:
            return Dependence(known=False)
        if not self._judged.keys() >= set(labels):
            return Dependence()
        return Dependence(judged=tuple(self._judged[name] for name in labels))
