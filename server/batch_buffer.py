"""Gather the rows of a batch in memory that is used again and again."""

from collections.abc import Mapping, Sequence

import numpy as np

from server.batching import Piece
from server.request import Array


class BatchBuffer:
    """Memory that one worker gathers its batches in, again and again."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._arrays: dict[str, Array] = {}

    def assemble(self, pieces: Sequence[Piece]) -> Mapping[str, Array]:
        """Inputs of a batch by name: views where one request makes the batch, else copied here.

        What is returned is overwritten by the next call.
        """
        if len(pieces) == 1:
            piece = pieces[0]
            whole = piece.rows == piece.request.rows
            return {
                # Senders that do not pad their messages leave tensors unaligned.
                name: np.require(
                    data if whole else data[piece.start : piece.stop],
                    requirements=("C_CONTIGUOUS", "ALIGNED"),
                )
                for name, data in piece.request.inputs.items()
            }
        inputs = {}
        rows = sum(piece.rows for piece in pieces)
        for name, data in pieces[0].request.inputs.items():
            target = self._array(name, data)[:rows]
            at = 0
            for piece in pieces:
                source = piece.request.inputs[name][piece.start : piece.stop]
                np.copyto(target[at : at + piece.rows], source)
                at += piece.rows
            inputs[name] = target
        return inputs

    def _array(self, name: str, like: Array) -> Array:
        array = self._arrays.get(name)
        if array is None or array.shape[1:] != like.shape[1:] or array.dtype != like.dtype:
            array = np.empty((self._rows, *like.shape[1:]), like.dtype)
            self._arrays[name] = array
        return array
