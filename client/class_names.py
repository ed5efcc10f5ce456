"""Name the classes that a model predicts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import UsageError
from protos.codec import RequestedOutput
from protos.model_config_pb2 import DataType, ModelConfig, ModelOutput

# Parameters of ModelConfig: our server gives the lines of each output's label file, our exports
# have the labels in the metadata of the graph.
_OF_OUTPUT = "labels:"
_OF_MODEL = "labels"
_CLASSIFICATION = "classification"
_SCORES = (DataType.TYPE_FP16, DataType.TYPE_BF16, DataType.TYPE_FP32, DataType.TYPE_FP64)


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Names for one output of a model.

    `labels`: by class; None if the output holds names already, as text. `in_answer`: the server
    writes them into its answer, by the classification extension.
    """

    output: str
    labels: Sequence[str] | None = None
    in_answer: bool = False

    @property
    def requested(self) -> RequestedOutput:
        """The output as the request names it."""
        return RequestedOutput(self.output, {_CLASSIFICATION: 1} if self.in_answer else {})

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """A name for each class index, str of the same shape, or for the best of scores [n, ...].

        `values`: the server's answer to `requested`. UsageError for a class without a label.
        """
        if not len(values):
            return np.empty(0, np.str_)
        if self.in_answer:
            return np.array([self._in_text(text) for text in values.reshape(-1)])
        if self.labels is None:
            return np.array([text.decode() for text in values.flat]).reshape(values.shape)
        indices = values if values.dtype.kind in "iu" else self._best(values)
        lowest, highest = int(indices.min()), int(indices.max())
        for index in (lowest, highest):
            if not 0 <= index < len(self.labels):
                most = len(self.labels) - 1
                raise self._nameless(index, f"expected a class of 0 to {most}, as there are labels")
        names: NDArray[Any] = np.array(self.labels)[indices]
        if not names.all():
            index = int(indices[names == ""][0])
            raise self._nameless(index, "its line in the label file is blank")
        return names

    def _best(self, scores: NDArray[Any]) -> NDArray[Any]:
        if scores.ndim < 2:
            raise UsageError(
                f"output {self.output!r} has shape {list(scores.shape)}, expected scores "
                "[n, classes] to name the best of"
            )
        best: NDArray[Any] = scores.reshape(len(scores), -1).argmax(axis=1)
        return best

    def _in_text(self, text: bytes) -> str:
        _, index, *label = text.decode().split(":", 2)
        if not label:
            raise self._nameless(int(index), "the server's label file lacks it")
        return label[0]

    def _nameless(self, index: int, reason: str) -> UsageError:
        return UsageError(f"class {index} of output {self.output!r} has no label: {reason}")


def class_names(config: ModelConfig, output: str) -> ClassNames:
    """How to name the classes of an output.

    UsageError for an output that the model lacks, or one without labels.
    """
    configured = {each.name: each for each in config.output}.get(output)
    if configured is None:
        names = [each.name for each in config.output]
        raise UsageError(f"model {config.name!r} has outputs {names}, but no {output!r} to name")
    if configured.data_type == DataType.TYPE_STRING:
        return ClassNames(output)
    labels = _labels(config, f"{_OF_OUTPUT}{output}") or _labels(config, _OF_MODEL)
    if labels:
        return ClassNames(output, labels)
    _check_in_answer(config, configured)
    return ClassNames(output, in_answer=True)


def labelled_output(config: ModelConfig, preferred: str) -> str | None:
    """The output whose classes have labels: the preferred one, else the only one."""
    names = [
        each.name
        for each in config.output
        if each.label_filename or f"{_OF_OUTPUT}{each.name}" in config.parameters
    ]
    if preferred in names:
        return preferred
    return names[0] if len(names) == 1 else None


def _labels(config: ModelConfig, parameter: str) -> tuple[str, ...]:
    # Reading a missing entry would add it.
    if parameter not in config.parameters:
        return ()
    try:
        labels = json.loads(config.parameters[parameter].string_value)
    except ValueError:
        return ()
    return tuple(map(str, labels)) if isinstance(labels, list) else ()


def _check_in_answer(config: ModelConfig, output: ModelOutput) -> None:
    """UsageError unless the server can return the label of the highest score."""
    what = f"output {output.name!r} of model {config.name!r}"
    if not output.label_filename:
        raise UsageError(
            f"{what} has no labels; name a file with one per line in the model's config.pbtxt: "
            f'output {{ name: "{output.name}" label_filename: "labels.txt" }}'
        )
    if output.data_type not in _SCORES or config.max_batch_size < 1:
        raise UsageError(
            f"{what} has a label file, but the server does not return its lines; expected scores "
            "of a model with a batch axis, which the server names itself"
        )
