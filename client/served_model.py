"""Cache a server's metadata of a model."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.class_names import ClassNames, class_names, labelled_output
from client.connection.channel import MAX_MESSAGE_BYTES
from client.control import ControlClient
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.datatypes import DTYPES
from protos.quantize import wire_scale

Answer = TypeVar("Answer")

LABEL = "label"


class ServedModel:
    """Inputs, outputs and limits of one model; RequestFailed if the server has no metadata.

    `takes`: its input, for a server without metadata. Metadata are read when first needed, and kept
    until `forget`: another version may have another signature.
    """

    def __init__(self, server: ControlClient, takes: ModelInput | None = None) -> None:
        self._server = server
        self._takes = takes
        self.forget()

    def forget(self) -> None:
        """Drop the metadata; they are read again when needed."""
        self._metadata: pb.ModelMetadataResponse | None = None
        self._config: config_pb.ModelConfig | None = None
        self._has_no_config = False
        self._inputs: Mapping[str, ModelInput] | None = None
        self._class_names: dict[str, ClassNames] = {}

    def inputs(self) -> Mapping[str, ModelInput]:
        """Inputs by name; none without metadata."""
        if self._takes is not None:
            return {self._takes.name: self._takes}
        inputs = self._inputs
        if inputs is None:
            tensors = self._signature().inputs
            inputs = {each.name: self._input(each, alone=len(tensors) == 1) for each in tensors}
            self._inputs = inputs
        return inputs

    def only_input(self) -> ModelInput:
        """The one input of a model with a first axis; UsageError for any other model."""
        inputs = self.inputs()
        if len(inputs) != 1 or next(iter(inputs.values())).whole == ():
            raise UsageError(
                f"model {self._server.model!r} has inputs {list(inputs)}; expected exactly one, "
                "with a batch axis: send arrays by name, predict({NAME: ARRAY}) or infer"
            )
        return next(iter(inputs.values()))

    def output(self) -> str:
        """The output that is the prediction: `label`, or the only one; UsageError otherwise."""
        if self._takes is not None:
            return LABEL
        names = [output.name for output in self._signature().outputs]
        # Some servers do not return a model's signature; ours has labels.
        if LABEL in names or not names:
            return LABEL
        if len(names) > 1:
            raise UsageError(
                f"model {self._server.model!r} has outputs {names}, none of them {LABEL!r}: "
                "name the output to return"
            )
        return names[0]

    def empty(self, name: str) -> NDArray[Any]:
        """An output without rows; free sizes are 0 too. UsageError for an unknown output."""
        described = () if self._takes is not None else self._signature().outputs
        outputs = {each.name: each for each in described}
        if name not in outputs:
            raise UsageError(
                f"got no rows, and output {name!r} is not among those the server lists, "
                f"{list(outputs)}"
            )
        sizes = [max(size, 0) for size in outputs[name].shape[1:]]
        return np.empty((0, *sizes), DTYPES[outputs[name].datatype])

    def class_names(self, output: str | None) -> ClassNames:
        """How to name the classes of an output; None: of the one that has labels.

        UsageError if there are none.
        """
        config = self._served()
        if config is None:
            raise UsageError(
                f"classes of model {self._server.model!r} cannot be named: the server has no "
                "ModelConfig, which has the labels"
            )
        name = output or labelled_output(config, LABEL) or self.output()
        # Another thread may forget meanwhile.
        known = self._class_names
        if name not in known:
            known[name] = class_names(config, name)
        return known[name]

    def most_rows(self) -> int | None:
        """Rows of one request: `max_batch_size`. 0: rows stay together; None: it is not known."""
        config = self._served()
        return None if config is None else config.max_batch_size

    def gathered_rows(self) -> int:
        """Rows that the server gathers for one execution: `preferred_batch_size`; 0: unknown."""
        config = self._served()
        sizes = () if config is None else config.dynamic_batching.preferred_batch_size
        return max(sizes, default=0)

    def most_message_bytes(self) -> int:
        """Bytes of one message."""
        text = self._parameter("max_message_bytes")
        return int(text) if text else MAX_MESSAGE_BYTES

    def _input(self, tensor: pb.ModelMetadataResponse.TensorMetadata, *, alone: bool) -> ModelInput:
        dtype = DTYPES[tensor.datatype]
        # The metadata have one scale; with several inputs its input is unknown.
        scale = self._scale() if alone and dtype == np.int8 else None
        whole = tuple(tensor.shape) if self.most_rows() == 0 or not tensor.shape else None
        return ModelInput(tensor.name, dtype, tuple(tensor.shape[1:]), scale, whole)

    def _scale(self) -> float | None:
        text = self._parameter("wire_scale")
        try:
            return wire_scale(text) if text else None
        except ValueError as error:
            raise UsageError(f"the server's wire_scale cannot be used: {error}") from None

    def _signature(self) -> pb.ModelMetadataResponse:
        # Another thread may forget meanwhile.
        metadata = self._metadata
        if metadata is None:
            metadata = self._optional(self._server.metadata) or pb.ModelMetadataResponse()
            self._metadata = metadata
        return metadata

    def _served(self) -> config_pb.ModelConfig | None:
        config = self._config
        if config is None and not self._has_no_config:
            config = self._optional(self._server.config)
            self._config, self._has_no_config = config, config is None
        return config

    @staticmethod
    def _optional(ask: Callable[[], Answer]) -> Answer | None:
        """The server's configuration of the model; None if it lacks that optional call."""
        try:
            return ask()
        except RequestFailed as error:
            if error.code != "UNIMPLEMENTED":
                raise
            return None

    def _parameter(self, name: str) -> str:
        config = self._served()
        # Reading a missing entry would add it.
        if config is None or name not in config.parameters:
            return ""
        return config.parameters[name].string_value
