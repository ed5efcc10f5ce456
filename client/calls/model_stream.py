"""The answers of a stream of batches, as a model's client takes them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.batch import Batch
from client.batch_stream import BatchAnswer, BatchStream
from client.errors import RequestFailed
from protos.codec import InferResponse
from protos.errors import OutputMissing


class ModelStream:
    """Answers of a BatchStream, each taken within `watching`: a Series.

    `output` is the first one that was requested.
    """

    def __init__(
        self,
        stream: BatchStream,
        output: str,
        watching: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.output = output
        self._stream = stream
        self._watching = watching

    async def next(self) -> BatchAnswer | None:
        """The answer to the next batch; None at the end."""
        with self._watching():
            return await self._stream.next()

    async def close(self) -> None:
        """End the stream, wherever it stands."""
        await self._stream.close()


class Once:
    """One batch, as a Series."""

    def __init__(self, batch: Batch) -> None:
        self._batches = [batch]

    async def next(self) -> Batch | None:
        """The batch, then None."""
        return self._batches.pop() if self._batches else None


def the_output(response: InferResponse, name: str) -> NDArray[Any]:
    """An output of an answer; RequestFailed if the server left it out."""
    try:
        return response[name]
    except OutputMissing as error:
        raise RequestFailed("DATA_LOSS", str(error)) from None


def joined(responses: Sequence[InferResponse], name: str) -> NDArray[Any]:
    """An output of the answers to one batch."""
    parts = [the_output(response, name) for response in responses]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
