"""Cache a server's metadata of a model."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.class_names import ClassNames, class_names, labelled_output
from client.connection.call_options import CallSettings, left_s
from client.connection.channel import MAX_MESSAGE_BYTES
from client.connection.waiting import Turns
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.datatypes import DTYPES
from protos.quantize import wire_scale

Answer = TypeVar("Answer")

LABEL = "label"


@dataclass(frozen=True, slots=True)
class _Config:
    """The answer of the server; None if it has no ModelConfig."""

    config: config_pb.ModelConfig | None


class ServedModel:
    """Inputs, outputs and limits of one model; RequestFailed if the server has no metadata.

    `read_metadata` and `read_config` ask the server, the tasks of an event loop in `turns`.
    `takes`: the model's input, for a server without metadata. Metadata are read when first needed,
    and kept until `forget`: another version may have another signature.
    """

    def __init__(
        self,
        name: str,
        read_metadata: Callable[[CallSettings], Awaitable[pb.ModelMetadataResponse]],
        read_config: Callable[[CallSettings], Awaitable[config_pb.ModelConfig]],
        turns: Turns,
        takes: ModelInput | None = None,
    ) -> None:
        self._name = name
        self._read_metadata = read_metadata
        self._read_config = read_config
        self._turns = turns
        self._takes = takes
        self.forget()

    def forget(self) -> None:
        """Drop the metadata; they are read again when needed."""
        self._metadata: pb.ModelMetadataResponse | None = None
        self._config: _Config | None = None
        self._inputs: Mapping[str, ModelInput] | None = None
        self._class_names: dict[str, ClassNames] = {}

    async def inputs(self, settings: CallSettings) -> Mapping[str, ModelInput]:
        """Inputs by name; none without metadata."""
        if self._takes is not None:
            return {self._takes.name: self._takes}
        inputs = self._inputs
        if inputs is None:
            tensors = (await self._signature(settings)).inputs
            inputs = {
                each.name: await self._input(each, settings, alone=len(tensors) == 1)
                for each in tensors
            }
            self._inputs = inputs
        return inputs

    async def only_input(self, settings: CallSettings) -> ModelInput:
        """The one input of a model with a first axis; UsageError for any other model."""
        inputs = await self.inputs(settings)
        if len(inputs) != 1 or next(iter(inputs.values())).whole == ():
            raise UsageError(
                f"model {self._name!r} has inputs {list(inputs)}; expected exactly one, "
                "with a batch axis: send arrays by name, predict({NAME: ARRAY}) or infer"
            )
        return next(iter(inputs.values()))

    async def output(self, settings: CallSettings) -> str:
        """The output that is the prediction: `label`, or the only one; UsageError otherwise."""
        if self._takes is not None:
            return LABEL
        names = [output.name for output in (await self._signature(settings)).outputs]
        # Some servers do not return a model's signature; ours has labels.
        if LABEL in names or not names:
            return LABEL
        if len(names) > 1:
            raise UsageError(
                f"model {self._name!r} has outputs {names}, none of them {LABEL!r}: "
                "name the output to return"
            )
        return names[0]

    async def empty(self, name: str, settings: CallSettings) -> NDArray[Any]:
        """An output without rows; free sizes are 0 too. UsageError for an unknown output."""
        described = () if self._takes is not None else (await self._signature(settings)).outputs
        outputs = {each.name: each for each in described}
        if name not in outputs:
            raise UsageError(
                f"got no rows, and output {name!r} is not among those the server lists, "
                f"{list(outputs)}"
            )
        sizes = [max(size, 0) for size in outputs[name].shape[1:]]
        return np.empty((0, *sizes), DTYPES[outputs[name].datatype])

    async def class_names(self, output: str | None, settings: CallSettings) -> ClassNames:
        """How to name the classes of an output; None: of the one that has labels.

        UsageError if there are none.
        """
        config = await self._served(settings)
        if config is None:
            raise UsageError(
                f"classes of model {self._name!r} cannot be named: the server has no "
                "ModelConfig, which has the labels"
            )
        name = output or labelled_output(config, LABEL) or await self.output(settings)
        # Another thread may forget meanwhile.
        known = self._class_names
        if name not in known:
            known[name] = class_names(config, name)
        return known[name]

    async def most_rows(self, settings: CallSettings) -> int | None:
        """Rows of one request: `max_batch_size`. 0: rows stay together; None: it is not known."""
        config = await self._served(settings)
        return None if config is None else config.max_batch_size

    async def gathered_rows(self, settings: CallSettings) -> int:
        """Rows that the server gathers for one execution: `preferred_batch_size`; 0: unknown."""
        config = await self._served(settings)
        sizes = () if config is None else config.dynamic_batching.preferred_batch_size
        return max(sizes, default=0)

    async def most_message_bytes(self, settings: CallSettings) -> int:
        """Bytes of one message."""
        text = await self._parameter("max_message_bytes", settings)
        return int(text) if text else MAX_MESSAGE_BYTES

    async def _input(
        self,
        tensor: pb.ModelMetadataResponse.TensorMetadata,
        settings: CallSettings,
        *,
        alone: bool,
    ) -> ModelInput:
        dtype = DTYPES[tensor.datatype]
        # The metadata have one scale; with several inputs its input is unknown.
        scale = await self._scale(settings) if alone and dtype == np.int8 else None
        rows_belong_together = await self.most_rows(settings) == 0
        whole = tuple(tensor.shape) if rows_belong_together or not tensor.shape else None
        return ModelInput(tensor.name, dtype, tuple(tensor.shape[1:]), scale, whole)

    async def _scale(self, settings: CallSettings) -> float | None:
        text = await self._parameter("wire_scale", settings)
        try:
            return wire_scale(text) if text else None
        except ValueError as error:
            raise UsageError(f"the server's wire_scale cannot be used: {error}") from None

    async def _signature(self, settings: CallSettings) -> pb.ModelMetadataResponse:
        # Another thread may forget meanwhile.
        metadata = self._metadata
        if metadata is None:
            async with self._turns.within(left_s(settings.ends_s())):
                metadata = self._metadata
                if metadata is None:
                    read = await _optional(self._read_metadata(settings))
                    metadata = self._metadata = read or pb.ModelMetadataResponse()
        return metadata

    async def _served(self, settings: CallSettings) -> config_pb.ModelConfig | None:
        found = self._config
        if found is None:
            async with self._turns.within(left_s(settings.ends_s())):
                found = self._config
                if found is None:
                    found = self._config = _Config(await _optional(self._read_config(settings)))
        return found.config

    async def _parameter(self, name: str, settings: CallSettings) -> str:
        config = await self._served(settings)
        # Reading a missing entry would add it.
        if config is None or name not in config.parameters:
            return ""
        return config.parameters[name].string_value


async def _optional(asked: Awaitable[Answer]) -> Answer | None:
    """The answer to a call; None if the server lacks the call."""
    try:
        return await asked
    except RequestFailed as error:
        if error.code != "UNIMPLEMENTED":
            raise
        return None
