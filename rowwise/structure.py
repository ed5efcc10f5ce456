"""Read a graph without its weights: the proof needs only small constants."""

import mmap
from pathlib import Path
from typing import cast

import onnx

from protos import wire

# Fields of ModelProto, GraphProto and TensorProto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_MOST_BYTES = 1024


def read(path: Path) -> onnx.ModelProto:
    """The graph in a file; the data of larger initializers are neither read nor kept.

    Raises:
        google.protobuf.message.DecodeError: it is not an ONNX graph.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        # It is read by index and slice only, as bytes are.
        content = cast(bytes, mapped)
        outer = wire.split(content, _GRAPH)
        if outer is None:
            return onnx.ModelProto.FromString(mapped[:])
        model = onnx.ModelProto.FromString(outer.rest)
        for start, stop in outer.spans:
            inner = wire.split(content, _INITIALIZER, start, stop)
            if inner is None:
                model.graph.MergeFromString(mapped[start:stop])
                continue
            model.graph.MergeFromString(inner.rest)
            for span in inner.spans:
                model.graph.initializer.add().MergeFromString(_tensor(content, *span))
    return model


def _tensor(content: bytes, start: int, stop: int) -> bytes:
    tensor = wire.split(content, _RAW_DATA, start, stop) if stop - start > _MOST_BYTES else None
    return content[start:stop] if tensor is None else tensor.rest
